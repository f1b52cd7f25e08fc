"""A file that says of every item of a run whether it is done, and why not."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sepcli import files

_PASSED_ON = ("key", "target", "input", "outputs", "worker", "seconds", "attempts")


class Ledger:
    """Lines of JSON, {"key", "status": "done" or "failed", "why", ..., "time"}, one per item.

    They are added to the end of the file as items finish, so several runs may share one; the last
    line of a key counts. "time" is in seconds since 1970.
    """

    def __init__(self, path: str) -> None:
        """Open or begin the file; a line that a crash cut off is ended first."""
        self.path = path
        with files.explained(path):
            self._file = open(path, "ab+", buffering=0)  # noqa: SIM115
            if self._file.tell():
                self._file.seek(-1, 2)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")

    def add(self, record: dict[str, Any]) -> None:
        """Note an item by its record, in which "error" or "skipped" says why it failed."""
        why = record.get("error") or record.get("skipped")
        line = {name: record[name] for name in _PASSED_ON if name in record}
        line |= {"status": "failed", "why": str(why)} if why else {"status": "done"}
        line["time"] = round(time.time(), 3)
        with files.explained(self.path):
            self._file.write(json.dumps(line).encode() + b"\n")

    def watch(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass on records, noting each."""
        for record in records:
            self.add(record)
            yield record

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Nothing:
    """Notes nothing."""

    def watch(self, records):
        return iter(records)


@contextmanager
def open_ledger(path: str | None) -> Iterator[Any]:
    """A `Ledger`, or what stands for none where there is no path."""
    if path is None:
        yield _Nothing()
        return
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()
