"""The processes that do the jobs, one at a time each, and the queue in front of them."""

import asyncio
import json
import logging
import os
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError
from sepcli.serving import store
from sepcli.serving.metrics import Metrics
from sepcli.serving.settings import TRIES, RequestError, Settings
from sepcli.serving.store import Job, Store

SILENCE_S = 600.0  # of a worker that has a job, before it counts as stuck
STOP_S = 20.0  # for a worker to come to its next block
START_S = 300.0  # for a worker to load the models
_LOG = logging.getLogger("sepcli")


class Died(Exception):  # noqa: N818
    """A worker ended, or is stuck."""


class Worker:
    """A process and the lines to and from it; see `worker`."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._process = settings, None
        self.facts: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the process and let it load the models; SepcliError where it cannot."""
        code = "from sepcli.serving.worker import main; main()"
        paths = [path for path in sys.path if path]
        threads = str(self._settings.threads)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", code),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server
            limit=1 << 20,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads},
        )
        models = {"models": self._settings.models, "device": self._settings.device}
        self._send({"do": "describe", **models})
        answer = await self._next(START_S)
        if "error" in answer:
            raise SepcliError(answer["error"])
        self.facts = answer["facts"]

    async def do(self, job: Job) -> dict[str, Any] | None:
        """Do a job, telling it how far it is; what is wrong, or None. Raises Died."""
        folder, duration_s = str(job.folder), self._settings.duration_s
        self._send({"do": "job", "folder": folder, "duration_s": duration_s})
        while True:
            answer = await self._next(SILENCE_S)
            if "end" in answer:
                return answer["end"]
            if not job.ended:
                job.update("running", answer["progress"])

    def stop_job(self) -> None:
        """Let the job end at its next block."""
        self._send({"do": "stop"})

    async def end(self) -> None:
        """End the process now, whatever it does."""
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _send(self, request):
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _next(self, timeout):
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            raise Died(f"said nothing for {timeout:g} s") from None
        if not line:
            raise Died(f"ended with {await self._process.wait()}")
        return json.loads(line)


class Pool:
    """Jobs in the order in which they came, done by `settings.workers` processes."""

    def __init__(self, settings: Settings, jobs: Store, metrics: Metrics) -> None:
        self.settings, self.store, self.metrics = settings, jobs, metrics
        self.facts: dict[str, Any] = {}  # of the models, by name
        self.uploads = 0  # that are on their way here
        self._queue: deque[Job] = deque()
        self._arrived = asyncio.Condition()
        self._running: dict[str, Worker] = {}  # by the job's id
        self._tasks: list[asyncio.Task[None]] = []
        self._seconds = 10.0  # that a job takes, smoothed

    async def start(self) -> None:
        """Start the workers, and with them the jobs that an earlier server left."""
        workers = [Worker(self.settings) for _ in range(self.settings.workers)]
        self._workers = workers
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
        except Died as error:
            raise SepcliError(f"the process that loads the models {error}") from None
        self.facts = workers[0].facts
        self._queue.extend(self.store.recover())
        self._tasks = [asyncio.create_task(self._work(worker)) for worker in workers]

    async def close(self) -> None:
        """End all processes; jobs that are not done are for the next server."""
        for name in self._running:
            store.forget_tries(self.store.jobs[name])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            await worker.end()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._running)

    def check_room(self) -> None:
        """Raise RequestError when the queue is full."""
        if self.waiting + self.uploads >= self.settings.queue:
            wait = self._seconds * (self.waiting + 1) / self.settings.workers
            raise RequestError(503, "the queue is full; try again later", retry_s=min(wait, 600))

    def position(self, job: Job) -> int | None:
        """How many jobs are in front of one that waits."""
        return self._queue.index(job) if job in self._queue else None

    async def add(self, job: Job) -> None:
        async with self._arrived:
            self._queue.append(job)
            self._arrived.notify()

    async def remove(self, job: Job) -> None:
        """Remove a job, whatever it is doing."""
        if job in self._queue:
            self._queue.remove(job)
        if worker := self._running.get(job.id):
            job.update("deleted")
            worker.stop_job()
            asyncio.get_running_loop().call_later(STOP_S, self._give_up, job, worker)
            return  # the worker's own task removes the folder, which is in use
        self.store.remove(job)

    def _give_up(self, job, worker):
        if self._running.get(job.id) is worker:
            task = asyncio.create_task(worker.end())
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _work(self, worker):
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._queue)
                job = self._queue.popleft()
            self._running[job.id] = worker
            began = time.monotonic()
            try:
                await self._attempt(worker, job)
            except Exception:
                _LOG.exception("job %s", job.id)
                store.fail(job, 500, "the server failed; its log says why")
            finally:
                self._running.pop(job.id, None)
            self._count(job, time.monotonic() - began)
            if job.state == "deleted":
                self.store.remove(job)

    async def _attempt(self, worker, job):
        """Do a job; a worker that dies is replaced, and the job tried again."""
        while not job.ended:
            if store.count_try(job) > TRIES:
                store.fail(job, 500, "the server crashed on this sound repeatedly; convert it")
                return
            job.update("running")
            try:
                end = await worker.do(job)
            except (Died, ConnectionError) as error:
                _LOG.warning("a worker %s; another one is started", error)
                await worker.end()
                await self._replace(worker)
                continue
            if job.ended:
                return
            if end is None and not store.settle(job):
                end = {"status": 500, "error": "the server lost the result"}
            if end is not None:
                store.fail(job, end["status"], end["error"])

    async def _replace(self, worker):
        while True:
            try:
                await worker.start()
                return
            except (Died, SepcliError, OSError) as error:
                _LOG.warning("a worker cannot be started: %s", error)
                await worker.end()
                await asyncio.sleep(5)

    def _count(self, job, seconds):
        self._seconds += 0.2 * (seconds - self._seconds)
        result = job.result
        sound_s = result["frames"] / result["sample_rate"] if result else 0.0
        self.metrics.job(job.state, seconds, sound_s)


def free_bytes(folder: Path) -> int:
    """The room on the disk of a folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
