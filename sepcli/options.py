"""Options that mean the same in two or more commands, each defined once."""

import contextlib
import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from sepcli import files
from sepcli.errors import SepcliError


class Number(click.FloatRange):
    """A number within limits, which every option has: "nan" is within all, so it is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Range(click.ParamType):
    """`LO:HI` or one number, as the pair (lo, hi) of floats (or ints) within [minimum, maximum].

    Both are finite and lo <= hi; -0 is 0, so that hi - lo has no sign where they are equal.
    """

    def __init__(
        self,
        number: type[float] = float,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self.number, self.minimum, self.maximum = number, minimum, maximum
        self.name = "LO:HI"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            low, high = self.number(low) + 0, self.number(high if colon else low) + 0
            if not math.isfinite(high - low):
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a range; write one like -5:15, or a number", param, ctx)
        if low > high:
            self.fail(f"{value!r} starts above its end; write the lower number first", param, ctx)
        if self.minimum is not None and low < self.minimum:
            self.fail(f"{value!r} is below {self.minimum}, the lowest value allowed", param, ctx)
        if self.maximum is not None and high > self.maximum:
            self.fail(f"{value!r} is above {self.maximum}, the highest value allowed", param, ctx)
        return low, high


class Grouped(click.Command):
    """A command whose help shows its options under the titles of `groups`, {title: (names)}."""

    def __init__(self, *args: Any, groups: dict[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, and one for all other options."""
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        left = {name: record for name, record in records.items() if record}
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([left.pop(name) for name in names])
        with formatter.section("Other options"):
            formatter.write_dl(list(left.values()))


output = click.option(
    "-o", "--output", metavar="PATH|DIR|-", help="Output file or folder; - is standard output."
)
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of every random choice.",
)
jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes; the output does not depend on it.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|mps",
    help="Device that the model runs on.",
)
threads = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of the model.  [default: all cores]"
)
config = click.option(
    "-c", "--config", type=click.Path(exists=True, dir_okay=False), help="Configuration in YAML."
)
settings = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=C", help="Override one setting; repeatable."
)
model = click.option(
    "-m", "--model", metavar="NAME|FILE|DIR", help="Shipped model, model file or run folder."
)
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def _keep_quiet(_ctx, _param, value):
    """The option's own value; the notes of the library (`errors.note`) obey it, too."""
    logging.getLogger("sepcli").setLevel(logging.ERROR if value else logging.NOTSET)
    return value


quiet = click.option("-q", "--quiet", is_flag=True, callback=_keep_quiet, help="Print errors only.")
progress = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="auto draws a bar when standard error is a terminal; json prints one line per item.",
)
overwrite = click.option(
    "--overwrite/--skip-existing",
    default=None,
    help="Replace existing outputs, or keep them.  [default: an existing output is an error]",
)
strict = click.option(
    "--strict/--no-strict",
    default=True,
    help="Treat a sample stream without its closing count as an error, and in separate a sound "
    "file that is cut off or damaged; otherwise, read it as far as it goes.  [default: strict]",
)
input_type = click.option(
    "-t",
    "--input-type",
    type=click.Choice(["auto", "tar", "wav", "audio", "jsonl"]),
    default="auto",
    show_default=True,
    help="Type of standard input, where it is not recognised.",
)


def _check_format(ctx: click.Context, param: Any, value: Any) -> None:
    """The name of an audio format that can be written, or None."""
    if value is None:
        return None
    from sepcli.audio import FORMATS

    if value.lower() not in FORMATS:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(FORMATS)}.", ctx, param)
    return value.lower()


segment = click.option(
    "--segment",
    "segment_s",
    type=Number(0.1, 3600),
    help="Segment length in seconds of models that are not causal; longer segments take more "
    "memory.  "
    "[default: 20]",
)
overlap = click.option(
    "--overlap",
    type=Number(0, 0.9),
    help="Fraction of a segment that the next one overlaps, with a cross-fade in its middle.  "
    "[default: 0.15]",
)
start = click.option(
    "--start",
    "start_s",
    type=Number(0),
    default=0.0,
    metavar="SECONDS",
    help="Start within audio files, in seconds.",
)
duration = click.option(
    "--duration",
    "duration_s",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="Duration to separate, in seconds.  [default: up to the end]",
)
filename = click.option(
    "--filename",
    "template",
    help="Template of the file names below the output folder; {model} is available, too.  "
    "[default: {track}/{stem}.{ext}]",
)
container = click.option(
    "--format",
    "container",
    metavar="wav|flac|mp3|...",
    callback=_check_format,
    help="Format of files and of standard output.  [default: wav]",
)
subtype = click.option(
    "--subtype",
    metavar="NAME",
    help="Sample format, such as PCM_16, PCM_24 or FLOAT.  [default: FLOAT]",
)


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
