"""What a command says of its work: progress, failures, and where the outputs are."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from sepcli.errors import SepcliError, one_line

if TYPE_CHECKING:
    from sepcli.cluster.spread import Spread

STDOUT = "standard output"  # what outputs call it


def check_stdout() -> None:
    """Raise, before any work, if standard output cannot be written because it is closed."""
    try:
        os.write(sys.stdout.fileno(), b"")
    except io.UnsupportedOperation:
        pass  # a test's
    except OSError as error:
        from sepcli import files

        raise SepcliError(files.complaint(error, STDOUT)) from None


class Progress:
    """How far a command is, on standard error, as `--progress` says.

    A bar is drawn only on a terminal, and not when standard input is a pipe: the commands
    upstream draw theirs there.
    """

    def __init__(
        self, label: str, progress: str, quiet: bool, spread: "Spread | None" = None
    ) -> None:
        """spread: how the items are shared out; what it notes them in, if it does, is written here.

        Runs on a cluster, which are watched in a log, tell how far they are in a line now and then.
        """
        self._spread, self._pace = spread, None
        if spread and spread.cluster and progress == "auto" and not quiet:
            self._pace = Pace(label)
        self._label, self.is_json, self._bar = label, progress == "json", None
        self._task: Any = None
        self._draws = progress == "auto" and not quiet and _is_terminal(sys.stderr, sys.stdin)
        self._done = 0

    def watch(self, records: Iterable[Any], total: int | None = None) -> Iterator[Any]:
        """Pass on records (with a "key"), counting them; total: how many, if that is known."""
        import json

        from sepcli.cluster.spread import ALONE

        with self._drawn(total), (self._spread or ALONE).ledger() as ledger:
            for record in ledger.watch(records):
                self._done += 1
                self.within(0.0)
                if self._pace and not self._bar:
                    self._pace.tell(self._done, total)
                if self.is_json:
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


class Pace:
    """Lines on standard error on how far a run is, how fast, and how long it will still take."""

    def __init__(self, label: str, every_s: float = 30.0) -> None:
        self._label, self._every_s = label, every_s
        self._start = self._told = time.monotonic()

    def tell(self, done: int, total: int | None) -> None:
        """A line, if it is time for one; done: records so far, out of `total` if that is known."""
        now = time.monotonic()
        if now - self._told < self._every_s:
            return
        self._told, rate = now, done / (now - self._start)
        line = f"{self._label}: {done} of {'?' if total is None else total}, {rate:.3g} per second"
        if total is not None:
            line += f", {in_words((total - done) / rate)} left"
        click.echo(line, err=True)


def in_words(seconds: float) -> str:
    """A time that is rough: 40 s, 12 min, 3.5 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _is_terminal(*streams):
    return all(stream is not None and stream.isatty() for stream in streams)


MOST_FAILURES = 20  # named one by one


class Failures:
    """Names the first failures on standard error and counts all, so that none hides the others."""

    def __init__(self, label: str = "Failed") -> None:
        self.label, self.count = label, 0

    def add(self, reason: object) -> None:
        """Count a failure, a line that says what failed and why."""
        self.count += 1
        if self.count <= MOST_FAILURES:
            click.echo(f"{self.label}: {one_line(str(reason))}", err=True)

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
        self._protocol = ""

    def add(self, path: str | os.PathLike[str]) -> None:
        """Count an output, of which several may be in the same file."""
        if path == STDOUT:
            return
        protocol, path = _split_protocol(path)
        self.count += 1
        self._protocol = protocol
        if self._place not in (None, path):
            path = os.path.commonpath([self._place, os.path.dirname(path)])
        self._place = path

    def tell(self, quiet: bool = False, what: str = "file") -> None:
        """The last line of a command on standard error."""
        if self._place is not None and not quiet:
            many = f"{self.count} {what}s to " if self.count > 1 else ""
            place = self._protocol + self._place if self._protocol else shortest(self._place)
            click.echo(f"Wrote {many}{place}", err=True)


def _split_protocol(path):
    """("s3://", "bucket/a.wav") of a URL; ("", the absolute path) of a path."""
    from sepcli.cluster.objects import is_url

    if not is_url(path):
        return "", os.path.abspath(path)
    protocol, _, rest = path.partition("://")
    return f"{protocol}://", rest


def shortest(path: str) -> str:
    """A path as seen from here, where that is shorter than the whole."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith(os.pardir) else os.path.abspath(path)


def carry_out(
    job: Any, bar: Progress, *, quiet: bool, verb: str, tell: Callable[[Any], None] | None = None
) -> None:
    """Run a job of `sepcli.jobs`: say what could not be done, what to know, and where outputs are.

    verb: what is done to the items, a participle. tell: is given the record of each that is done.
    Raises SepcliError, in the end, where there were failures.
    """
    failures, written = Failures(), Written()
    for record in bar.watch(job.run(), job.total):
        if "error" in record:
            failures.add(record["error"])
            continue
        for path in record["outputs"]:
            written.add(path)
        for note in () if quiet else record["notes"]:
            click.echo(note, err=True)
        if tell is not None:
            tell(record)
    failures.tell_rest()
    written.tell(quiet or bar.is_json, job.noun)
    failures.check(job.count, verb)
