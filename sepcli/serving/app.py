"""The application: what every address answers."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sepcli.errors import SepcliError
from sepcli.serving import answers, fields, guard, streams, uploads
from sepcli.serving.metrics import Metrics
from sepcli.serving.pool import Pool, free_bytes
from sepcli.serving.settings import RequestError, Settings
from sepcli.serving.store import DONE, Job, Store
from sepcli.version import __version__

PAGE = Path(__file__).parent / "page"
HEARTBEAT_S = 15.0
SWEEP_S = 30.0
LATER, REFUSED = 1013, 1008  # why a WebSocket is closed, RFC 6455
ROOM = 4  # times the largest upload, that the disk has to have free


class Server:
    """What the addresses share."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.store = Store(settings.folder)
        self.pool = Pool(settings, self.store, self.metrics)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.streams = streams.Streams(settings, cores or 1, self.metrics)
        self._closing = False

    async def start(self) -> None:
        """Load the models, and go on with the jobs that there are; SepcliError where it cannot."""
        await self.pool.start()
        self.streams.facts = self.pool.facts
        self._sweeper = asyncio.create_task(self._sweep())

    def end_events(self) -> None:
        """Let those who listen to the progress of jobs go, as the server is about to end."""
        self._closing = True
        for job in self.store.jobs.values():
            job.update(job.state, job.progress)

    async def close(self) -> None:
        """End the workers; jobs that are not done are for the next server."""
        self._sweeper.cancel()
        await self.pool.close()
        self.streams.close()
        self.store.close()

    async def _sweep(self):
        while True:
            for job in self.store.expired(self.settings.keep_s):
                self.store.remove(job)
            await asyncio.sleep(min(SWEEP_S, self.settings.keep_s / 2 + 0.1))

    def job(self, name: str) -> Job:
        job = self.store.find(name)
        if job is None or job.state == "deleted":
            raise RequestError(404, "no such job; it was deleted, or is too old")
        return job

    async def accept(self, request: Request, kind: str, *, waiting: bool) -> Job:
        """Receive an upload and make a job of it; RequestError for what cannot be one."""
        self.pool.check_room()
        self._check_size(request)
        self.pool.uploads += 1
        folder = self.store.begin_upload()
        try:
            kind_of_body = request.headers.get("content-type", "")
            form = await uploads.receive(kind_of_body, request.stream(), folder, self.settings)
            about = fields.asked(kind, form, self.pool.facts) | {"waiting": waiting}
            job = self.store.add(folder, about)
        finally:
            self.pool.uploads -= 1
            self.store.drop_upload(folder)
        await self.pool.add(job)
        return job

    def _check_size(self, request):
        told = request.headers.get("content-length", "0")
        if told.isdigit() and int(told) > self.settings.most_bytes:
            raise uploads.too_large(self.settings)
        if free_bytes(self.settings.folder) < ROOM * self.settings.most_bytes:
            raise RequestError(507, "the disk is nearly full; try again later", retry_s=60)

    async def answer(self, request: Request, kind: str) -> Response:
        """Do what one POST asks for."""
        if "respond-async" in request.headers.get("prefer", ""):
            job = await self.accept(request, kind, waiting=False)
            headers = {"Location": answers.link(job), "Preference-Applied": "respond-async"}
            told = answers.about(job, self.pool.position(job))
            return JSONResponse(told, 202, headers=headers)
        accept = request.headers.get("accept", "")
        job = await self.accept(request, kind, waiting="application/json" not in accept)
        try:
            await self._wait(request, job)
            response = answers.result(job, accept)
        except BaseException:
            await self.pool.remove(job)
            raise
        after = self.store.remove if job.about["waiting"] else None
        return answers.Sent(response, job, after)

    async def _wait(self, request, job):
        """Wait for a job while its client does; ClientDisconnect when that leaves."""
        done = asyncio.create_task(job.wait())
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise ClientDisconnect
        finally:
            for task in (done, gone):
                task.cancel()

    async def events(self, job: Job) -> AsyncIterator[str]:
        """The progress of a job as server-sent events."""
        with answers.being_read(job):
            async for _ in beats(job.changes()):
                state = answers.about(job, self.pool.position(job))
                yield f"event: {job.state}\ndata: {json.dumps(state)}\n\n"
                if self._closing:
                    return


async def beats(changes: AsyncIterator[None]) -> AsyncIterator[None]:
    """Pass on what comes, and something every `HEARTBEAT_S`, by which a lost client is noticed."""
    step = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait((step,), timeout=HEARTBEAT_S)
            if done:
                step = None
                try:
                    done.pop().result()
                except StopAsyncIteration:
                    return
            yield
    finally:
        if step is not None:
            step.cancel()


async def _disconnected(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(server: Server) -> Any:
    """The ASGI application of a server."""
    app = FastAPI(title="sepcli", version=__version__, docs_url=None, redoc_url=None)
    add_errors(app)
    add_jobs(app, server)
    add_state(app, server)
    add_streams(app, server)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return guard.Guard(app, server.settings.token, server.metrics)


def add_errors(app: FastAPI) -> None:
    """Every error is JSON with one line."""

    @app.exception_handler(RequestError)
    async def refused(_request: Request, error: RequestError) -> Response:
        return guard.refusal(error)

    @app.exception_handler(HTTPException)
    async def missing(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # which nobody reads, but is counted


def add_jobs(app: FastAPI, server: Server) -> None:
    """Uploads, and what becomes of them."""

    @app.post("/separate")
    async def separate(request: Request) -> Response:
        """All sources of a sound, or those in `target`."""
        return await server.answer(request, "separate")

    @app.post("/enhance")
    async def enhance(request: Request) -> Response:
        """The speech of a noisy recording."""
        return await server.answer(request, "enhance")

    @app.post("/extract")
    async def extract(request: Request) -> Response:
        """The voice that is heard in `reference`, out of a mixture."""
        return await server.answer(request, "extract")

    @app.get("/jobs/{name}")
    async def state(name: str) -> Response:
        job = server.job(name)
        return JSONResponse(answers.about(job, server.pool.position(job)))

    @app.delete("/jobs/{name}")
    async def delete(name: str) -> Response:
        await server.pool.remove(server.job(name))
        return Response(status_code=204)

    @app.get("/jobs/{name}/events")
    async def events(name: str) -> Response:
        return StreamingResponse(server.events(server.job(name)), media_type="text/event-stream")

    @app.get("/jobs/{name}/result")
    async def result(name: str, request: Request) -> Response:
        job = server.job(name)
        return answers.Sent(answers.result(job, request.headers.get("accept", "")), job)

    @app.get("/jobs/{name}/stems/{stem:path}")
    async def stem(name: str, stem: str) -> Response:
        job = server.job(name)
        return answers.Sent(answers.stem(job, stem), job)

    @app.get("/jobs/{name}/spectrograms/{stem:path}")
    async def spectrogram(name: str, stem: str) -> Response:
        return view(answers.stem_path(server.job(name), stem).with_suffix(".png"))

    @app.get("/jobs/{name}/peaks")
    async def peaks(name: str) -> Response:
        job = server.job(name)
        answers.check_done(job)
        return view(job.folder / DONE / "peaks.json")


def view(path: Path) -> Response:
    """A file that is there if views were asked for."""
    if not path.is_file():
        raise RequestError(404, "no views of this job; ask for them with views=true")
    return FileResponse(path)


def add_state(app: FastAPI, server: Server) -> None:
    """The page, the models, and how the server is."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/models")
    async def models() -> Response:
        return JSONResponse({"models": server.pool.facts, "defaults": defaults(server.pool.facts)})

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/metrics")
    async def metrics() -> Response:
        gauges = {
            "jobs_waiting": server.pool.waiting,
            "jobs_running": server.pool.running,
            "jobs_kept": len(server.store.jobs),
            "uploads": server.pool.uploads,
            "streams": server.streams.count,
        }
        return PlainTextResponse(server.metrics.text(**gauges))


def defaults(facts: dict[str, Any]) -> dict[str, str]:
    """The model of each kind of job, where there is one."""
    found = {}
    for kind in fields.KINDS:
        with suppress(RequestError):
            found[kind] = fields.default_model(kind, facts)
    return found


def add_streams(app: FastAPI, server: Server) -> None:
    """Live streams."""

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        try:
            default = defaults(server.pool.facts).get("enhance", "")
            asked = streams.asked_for(socket.query_params, default)
            server.streams.check(asked)
            server.streams.check_room(asked)
            offered = socket.scope.get("subprotocols", ())
            await socket.accept(guard.PROTOCOL if guard.PROTOCOL in offered else None)
        except RequestError as error:
            await guard.refuse_stream(socket, error)
            return
        await talk(socket, server.streams, asked)


async def talk(socket: WebSocket, live: streams.Streams, asked: streams.Asked) -> None:
    """Serve one live stream; an error is sent to the client and closes the stream."""
    with suppress(RuntimeError, WebSocketDisconnect):  # the client may be gone at any moment
        try:
            await live.prepare(asked.model)
            with live.admitted(asked):
                await streams.converse(socket, live, asked)
            await socket.close()
        except SepcliError as error:
            await socket.send_text(json.dumps({"event": "error", "error": str(error)}))
            is_full = isinstance(error, RequestError) and error.status == 503
            await socket.close(LATER if is_full else REFUSED)
