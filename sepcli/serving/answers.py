"""What is sent of a job: its state as JSON, one stem as a sound, or all of them as a zip."""

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from sepcli.serving.settings import RequestError
from sepcli.serving.store import DONE, FAILED, Job

TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg"}
SHOWN = ("sample_rate", "channels", "frames", "notes", "presence")
PIECE = 1 << 18  # bytes


def link(job: Job, *rest: str) -> str:
    return "/".join(["/jobs", job.id, *(quote(part, safe="") for part in rest)])


def about(job: Job, position: int | None = None) -> dict[str, Any]:
    """A job as plain data, with links."""
    told: dict[str, Any] = {
        "id": job.id,
        "kind": job.about["kind"],
        "model": job.about["model"],
        "name": job.about["name"],
        "state": job.state,
        "progress": round(job.progress, 4),
        "links": {"self": link(job), "events": link(job, "events")},
    }
    if position is not None:
        told["position"] = position
    if job.state == FAILED:
        told |= job.error or {}
    if job.state == DONE:
        result = job.result
        told |= {key: result[key] for key in SHOWN if key in result}
        told["links"]["result"] = link(job, "result")
        if job.about["views"]:
            told["links"]["peaks"] = link(job, "peaks")
        told["stems"] = [_stem(job, each) for each in result["stems"]]
    return told


def _stem(job, each):
    name = each["name"]
    told = {"name": name, "bytes": each["bytes"], "url": link(job, "stems", name)}
    if job.about["views"]:
        told["spectrogram"] = link(job, "spectrograms", name)
    return told


def check_done(job: Job) -> None:
    """Raise RequestError for a job without a result."""
    if job.state == FAILED:
        raise failure(job)
    if job.state != DONE:
        raise RequestError(409, f"the job is {job.state}; wait until it is done")


def failure(job: Job) -> RequestError:
    """The error that ended a job."""
    error = job.error or {"status": 500, "error": "failed"}
    return RequestError(error["status"], error["error"])


def stem_path(job: Job, name: str) -> Path:
    """The file of a stem; RequestError where there is none of that name."""
    check_done(job)
    found = job.stem(name)
    if found is None:
        known = ", ".join(each["name"] for each in job.result["stems"])
        raise RequestError(404, f"no stem of that name; there are {known}")
    return job.folder / DONE / found["file"]


def stem(job: Job, name: str) -> Response:
    """One stem as a sound."""
    path = stem_path(job, name)
    kind = TYPES.get(path.suffix[1:], "application/octet-stream")
    filename = f"{job.about['name']}-{name}{path.suffix}"
    return FileResponse(path, media_type=kind, filename=filename)


def result(job: Job, accept: str) -> Response:
    """All of a result in the form that a client accepts: JSON, zip, or, of one stem, a sound."""
    check_done(job)
    if "application/json" in accept:
        return JSONResponse(about(job))
    names = [each["name"] for each in job.result["stems"]]
    if len(names) == 1 and "application/zip" not in accept:
        return stem(job, names[0])
    named = quote(f"{job.about['name']}.zip", safe="")
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{named}"}
    return StreamingResponse(zipped(job), media_type="application/zip", headers=headers)


def zipped(job: Job) -> Iterator[bytes]:
    """The stems as an uncompressed zip, piece by piece."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[arg-type]
        for each in job.result["stems"]:
            path = job.folder / DONE / each["file"]
            inside = f"{job.about['name']}/{each['name'].replace('/', '_')}{path.suffix}"
            with path.open("rb") as file, archive.open(inside, "w", force_zip64=True) as member:
                while piece := file.read(PIECE):
                    member.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink:
    """A file that cannot seek, whose bytes are taken from it."""

    def __init__(self):
        self._pieces = []

    def write(self, data):
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self):
        """Nothing is held back."""

    def take(self):
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class Sent(Response):
    """Another response, during which the job does not expire, and after which `after` is called."""

    def __init__(
        self, response: Response, job: Job, after: Callable[[Job], None] | None = None
    ) -> None:
        self.response, self.job, self.after, self.background = response, job, after, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with being_read(self.job):
                await self.response(scope, receive, send)
        finally:
            if self.after:
                self.after(self.job)


@contextlib.contextmanager
def being_read(job: Job) -> Iterator[None]:
    """While this lasts the job does not expire."""
    job.readers += 1
    try:
        yield
    finally:
        job.readers -= 1
