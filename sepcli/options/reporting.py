"""What a command says of its work: progress, failures, and where the outputs are."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from sepcli import files
from sepcli.errors import SepcliError

STDOUT = "standard output"  # what outputs call it


def check_stdout() -> None:
    """Raise, before any work, if standard output cannot be written because it is closed."""
    try:
        os.write(sys.stdout.fileno(), b"")
    except io.UnsupportedOperation:
        pass  # a test's
    except OSError as error:
        raise SepcliError(files.complaint(error, STDOUT)) from None


class Progress:
    """How far a command is, on standard error, as `--progress` says.

    A bar is drawn only on a terminal, and not when standard input is a pipe: the commands
    upstream draw theirs there.
    """

    def __init__(self, label: str, progress: str, quiet: bool) -> None:
        self._label, self._json, self._bar = label, progress == "json", None
        self._task: Any = None
        self._draws = progress == "auto" and not quiet and _is_terminal(sys.stderr, sys.stdin)
        self._done = 0

    def watch(self, records: Iterable[Any], total: int | None = None) -> Iterator[Any]:
        """Pass on records (with a "key"), counting them; total: how many, if that is known."""
        with self._drawn(total):
            for record in records:
                self._done += 1
                self.within(0.0)
                if self._json:
                    click.echo(json.dumps(record), err=True)
                yield record

    def within(self, fraction: float) -> None:
        """Tell how much of the next record is done, from 0 to 1."""
        if self._bar:
            percent = f"{fraction:4.0%}" if fraction else ""
            done = self._done
            self._bar.update(self._task, completed=done + fraction, done=done, percent=percent)

    @contextlib.contextmanager
    def _drawn(self, total):
        if not self._draws:
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn()]
        columns.append(TextColumn("{task.fields[done]}/{task.fields[of]} {task.fields[percent]}"))
        with Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
        ) as self._bar:
            of = "?" if total is None else total
            self._task = self._bar.add_task(self._label, total=total, done=0, of=of, percent="")
            yield
        self._bar = None


def _is_terminal(*streams):
    return all(stream is not None and stream.isatty() for stream in streams)


def watch(
    records: Iterable[Any], label: str, progress: str, quiet: bool, *, total: int | None = None
) -> Iterator[Any]:
    """`Progress.watch` for what has no progress within a record."""
    return Progress(label, progress, quiet).watch(records, total)


MOST_FAILURES = 20  # named one by one


class Failures:
    """Names the first failures on standard error and counts all, so that none hides the others."""

    def __init__(self, label: str = "Failed") -> None:
        self.label, self.count = label, 0

    def add(self, reason: object) -> None:
        """Count a failure, a line that says what failed and why."""
        self.count += 1
        if self.count <= MOST_FAILURES:
            click.echo(f"{self.label}: {reason}", err=True)

    def tell_rest(self) -> None:
        """Say how many were not named, when all is done."""
        if self.count > MOST_FAILURES:
            click.echo(f"{self.label}: {self.count - MOST_FAILURES} more", err=True)

    def check(self, total: int, what: str) -> None:
        """Raise SepcliError, "3 of 7 could not be read", if there were any."""
        if self.count:
            raise SepcliError(f"{self.count} of {total} could not be {what}, see above")


class Written:
    """Counts the files that a command writes, to say in the end where they are."""

    def __init__(self) -> None:
        self.count = 0
        self._place: str | None = None

    def add(self, path: str | os.PathLike[str]) -> None:
        """Count an output, of which several may be in the same file."""
        if path == STDOUT:
            return
        path = os.path.abspath(path)
        self.count += 1
        if self._place not in (None, path):
            path = os.path.commonpath([self._place, os.path.dirname(path)])
        self._place = path

    def tell(self, quiet: bool = False, what: str = "file") -> None:
        """The last line of a command on standard error."""
        if self._place is not None and not quiet:
            many = f"{self.count} {what}s to " if self.count > 1 else ""
            click.echo(f"Wrote {many}{shortest(self._place)}", err=True)


def shortest(path: str) -> str:
    """A path as seen from here, where that is shorter than the whole."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith(os.pardir) else os.path.abspath(path)
