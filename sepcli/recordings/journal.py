"""Outputs that take long: kept beside their place with a journal until they are whole."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError
from sepcli.files import ENDING, beside, check_place, exists, explained

_JOURNAL = "journal.jsonl"
_MOST_OPEN = 64  # files at a time


class Part:
    """What is done of an output that is not finished: files of bytes in a folder NAME.part.

    `append` adds to the end of a file; `commit` writes a record to the journal, together with how
    long every file has become. Whatever a crash left behind the last whole record is cut off when
    the part is opened again, so files and `records` always agree. `publish` puts the result into
    its place in one step. One process at a time; a context manager.
    """

    def __init__(
        self,
        target: str,
        plan: dict[str, Any],
        *,
        resume: bool = False,
        overwrite: bool | None = None,
    ) -> None:
        """Open or begin the part of `target`.

        plan: JSON object that says what the output is made of; it must not change in between.
        resume: continue what is there. overwrite: start again, and replace `target`.
        Raises SepcliError when there is a target or a part and neither was asked for, when
        another process is at it, and when the plan is not that of the part.
        """
        check_place(target, folder=os.path.isdir(target))
        self.target = Path(os.path.realpath(target))  # a link stays a link
        self.folder = _folder_of(self.target)
        self.records, self._files, self._sizes, self._changed = [], {}, {}, {}
        if is_whole(target) and not overwrite:
            raise exists(target)
        if self.folder.exists() and not (resume or overwrite):
            raise SepcliError(
                f"{self.folder}: an unfinished run; resume with --resume, or start again with "
                "--overwrite"
            )
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._journal = open(self.folder / _JOURNAL, "ab+", buffering=0)  # noqa: SIM115
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.close)
            self._lock()
            self._load(json.loads(json.dumps(plan)), anew=not resume)
            on_error.pop_all()

    def append(self, name: str, data: bytes) -> None:
        """Add bytes to the file `name`; they count with the next `commit`."""
        with explained(self.folder):
            if name not in self._files:
                (self.folder / name).parent.mkdir(exist_ok=True)
                if len(self._files) == _MOST_OPEN:
                    self._files.pop(next(iter(self._files))).close()
                self._files[name] = open(self.folder / name, "ab", buffering=0)  # noqa: SIM115
            _put(self._files[name], data)
        size = self._changed.get(name, self._sizes.get(name, 0)) + len(data)
        self._changed[name] = size

    def commit(self, record: dict[str, Any]) -> None:
        """Keep `record`, a JSON object, and what was appended since the last one."""
        line = json.dumps({"sizes": self._changed, "record": record}).encode() + b"\n"
        with explained(self.folder):
            _put(self._journal, line)
        self._sizes |= self._changed
        self._changed = {}
        self.records.append(record)

    @property
    def finished(self) -> str | None:
        """The name with which `publish` was called before a crash, or None."""
        return self._done

    def publish(self, name: str) -> None:
        """Put the file or folder `name` of the part where the output belongs; remove the part."""
        with explained(self.target):
            if self._done is None:
                _sync(self.folder / name)
                _put(self._journal, json.dumps({"done": name}).encode() + b"\n")
                os.fsync(self._journal.fileno())
                self._done = name
            if (self.folder / name).exists():  # or it is in its place already
                if self.target.is_dir():
                    shutil.rmtree(self.target)
                os.replace(self.folder / name, self.target)
            self.close()
            # The journal goes last: without it, what is left could not be told from a new part.
            for entry in sorted(self.folder.iterdir(), key=lambda path: path.name == _JOURNAL):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            self.folder.rmdir()

    def close(self) -> None:
        """Let go of the files; the part stays for --resume."""
        for file in (*self._files.values(), self._journal):
            file.close()
        self._files = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _lock(self):
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SepcliError(
                f"{self.folder}: another process is writing it; wait until it ends"
            ) from None

    def _load(self, plan, anew):
        """Read the journal as far as it is whole, and cut the files to what it says."""
        self._done = None
        with explained(self.folder):
            entries = [] if anew else list(self._entries())
            if entries and entries[0][0] != {"plan": plan}:
                raise SepcliError(
                    f"{self.folder}: started with other inputs or options; start again with "
                    "--overwrite, or repeat the command as it was"
                )
            whole = 0
            for entry, end in entries:
                if "record" in entry:
                    if any(self._stored(name) < size for name, size in entry["sizes"].items()):
                        break  # the machine went down before the data was on the disk
                    self._sizes |= entry["sizes"]
                    self.records.append(entry["record"])
                self._done = entry.get("done")
                whole = end
            self._journal.truncate(whole)
            if self._done is None:
                self._cut()
            if not whole:
                _put(self._journal, json.dumps({"plan": plan}).encode() + b"\n")

    def _entries(self):
        """Yield (entry, where it ends) for every line that was written to its end."""
        self._journal.seek(0)
        end = 0
        for line in self._journal.readall().splitlines(keepends=True):
            end += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield entry, end

    def _stored(self, name):
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _cut(self):
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            name = path.relative_to(self.folder).as_posix()
            if name in self._sizes:
                os.truncate(path, self._sizes[name])
            elif name != _JOURNAL:
                path.unlink()


def is_whole(target: str | Path) -> bool:
    """Whether an output stands in its place, and nothing of a part beside it."""
    target = Path(os.path.realpath(target))
    folder = _folder_of(target)
    if folder.is_dir() and not os.listdir(folder):
        folder.rmdir()  # by a run that was killed within its last step
    return os.path.exists(target) and not folder.exists()


def _folder_of(target):
    return beside(target, ENDING)


def fingerprint(lines: Iterable[str]) -> str:
    """A short text that changes when any of `lines`, text, does."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(os.fsencode(line) + b"\n")
    return digest.hexdigest()


def _put(file, data):
    view = memoryview(data)
    while len(view):  # a full disk takes less than it gets, before it refuses
        view = view[file.write(view) :]


def _sync(path):
    """Have everything in `path` written to the disk."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
