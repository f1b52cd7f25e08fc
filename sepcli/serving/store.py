"""Jobs as folders: a job is there as a whole or not at all, whatever kills the server.

    FOLDER/lock             held by the server that owns the folder
    FOLDER/incoming/...     uploads that are not complete, and what is being removed
    FOLDER/jobs/ID/job.json what is wanted; beside it the uploads
    FOLDER/jobs/ID/tries    how often it was begun
    FOLDER/jobs/ID/done/    stems, views, and result.json
    FOLDER/jobs/ID/failed.json

An upload is moved into `jobs` by one rename, and so is what a worker made, into `done`.
"""

import asyncio
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.errors import SepcliError

ID = re.compile(r"[0-9a-f]{32}")
DONE, FAILED = "done", "failed"
ENDED = (DONE, FAILED)


class Job:
    """One job: what is wanted (`about`), its `state` and how far it is (`progress`, 0 to 1)."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about, self.id = folder, about, folder.name
        self.state, self.progress = "queued", 0.0
        self.error: dict[str, Any] | None = None  # {"status", "error"}
        self.result: dict[str, Any] = {}
        self.ended_at: float | None = None  # as time.monotonic, as clocks may jump
        self.readers = 0  # answers that are being sent
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.state in (*ENDED, "deleted")

    def update(self, state: str, progress: float = 0.0) -> None:
        """Go on, and tell everybody who waits."""
        self.state, self.progress = state, progress
        if self.ended:
            self.ended_at = time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[None]:
        """Yield at once, and after every change, until it has ended."""
        while True:
            changed, ended = self._changed, self.ended
            yield
            if ended:
                return
            await changed.wait()

    async def wait(self) -> None:
        """Wait for the end."""
        async for _ in self.changes():
            pass

    def stem(self, name: str) -> dict[str, Any] | None:
        """What the result says of one stem, None where there is none of that name."""
        return next((each for each in self.result.get("stems", []) if each["name"] == name), None)


class Store:
    """The jobs of a folder that this server alone owns. Raises SepcliError if another does."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._jobs, self._incoming = self.folder / "jobs", self.folder / "incoming"
        with files.explained(folder):
            for each in (self._jobs, self._incoming):
                each.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise SepcliError(
                f"{folder}: another server has its jobs there; name another folder with --folder"
            ) from None
        self.jobs: dict[str, Job] = {}

    def recover(self) -> list[Job]:
        """Read the jobs that are there, and return those that are to be done, oldest first."""
        for each in self._incoming.iterdir():
            shutil.rmtree(each, ignore_errors=True)
        for job in self._found():
            self.jobs[job.id] = job
        waiting = [job for job in self.jobs.values() if not job.ended]
        return sorted(waiting, key=lambda job: job.about["created"])

    def _found(self) -> Iterator[Job]:
        for folder in list(self._jobs.iterdir()):
            about = _read_json(folder / "job.json")
            if not ID.fullmatch(folder.name) or about is None or about.get("waiting"):
                self._remove(folder)  # nobody waits any more for an answer
                continue
            for scratch in folder.glob(".*"):  # of a worker that was killed
                shutil.rmtree(scratch, ignore_errors=True)
            job = Job(folder, about)
            settle(job)
            yield job

    def begin_upload(self) -> Path:
        """A new folder for an upload."""
        folder = self._incoming / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def drop_upload(self, folder: Path) -> None:
        """Remove an upload that did not become a job."""
        shutil.rmtree(folder, ignore_errors=True)

    def add(self, upload: Path, about: dict[str, Any]) -> Job:
        """Make a job of a complete upload."""
        about = about | {"created": time.time()}
        files.save(upload / "job.json", json.dumps(about), sync=True)
        folder = self._jobs / upload.name
        os.replace(upload, folder)
        job = self.jobs[folder.name] = Job(folder, about)
        return job

    def find(self, name: str) -> Job | None:
        return self.jobs.get(name)

    def remove(self, job: Job) -> None:
        """Forget a job and all that is on the disk of it."""
        self.jobs.pop(job.id, None)
        self._remove(job.folder)
        job.update("deleted")

    def _remove(self, folder):
        trash = self._incoming / secrets.token_hex(16)
        with suppress(OSError):
            os.replace(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)

    def expired(self, keep_s: float) -> list[Job]:
        """Jobs that ended so long ago, and are not being read."""
        limit = time.monotonic() - keep_s
        return [
            job
            for job in self.jobs.values()
            if job.ended_at is not None and job.ended_at < limit and not job.readers
        ]

    def close(self) -> None:
        self._lock.close()


def settle(job: Job) -> bool:
    """Take over the end of a job from its folder; whether there is one."""
    result, failed = (
        _read_json(job.folder / name) for name in (f"{DONE}/result.json", f"{FAILED}.json")
    )
    if result is not None:
        job.result = result
        job.update(DONE, 1.0)
    elif failed is not None:
        job.error = failed
        job.update(FAILED, job.progress)
    return job.ended


def fail(job: Job, status: int, error: str) -> None:
    """End a job that could not be done."""
    record = json.dumps({"status": status, "error": error})
    with suppress(SepcliError):  # its folder is gone, or the disk full: it has ended all the same
        files.save(job.folder / f"{FAILED}.json", record)
    job.error = json.loads(record)
    job.update(FAILED, job.progress)


def count_try(job: Job) -> int:
    """Remember that a job is begun; returns how often it was, this time included."""
    path = job.folder / "tries"
    tries = len(path.read_bytes()) + 1 if path.exists() else 1
    path.write_bytes(b"." * tries)
    return tries


def forget_tries(job: Job) -> None:
    """A job that was begun is not to blame for the end of the server."""
    (job.folder / "tries").unlink(missing_ok=True)


def _read_json(path):
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
