"""Options that mean the same in two or more commands, each defined once."""

import json
import math
import sys

import click


class Number(click.FloatRange):
    """A number within limits, which every option has: "nan" is within all, so it is refused."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Range(click.ParamType):
    """`LO:HI` or one number, as the pair (lo, hi) of floats (or ints) within [minimum, maximum].

    Both are finite and lo <= hi; -0 is 0, so that hi - lo has no sign where they are equal.
    """

    def __init__(self, number=float, minimum=None, maximum=None):
        self.number, self.minimum, self.maximum = number, minimum, maximum
        self.name = "LO:HI"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            low, high = self.number(low) + 0, self.number(high if colon else low) + 0
            if not math.isfinite(high - low):
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a range; write LO:HI or a number, as -5:15", param, ctx)
        if low > high:
            self.fail(f"{value!r} starts above its end; write the smaller number first", param, ctx)
        if self.minimum is not None and low < self.minimum:
            self.fail(f"{value!r} goes below {self.minimum}, the least allowed", param, ctx)
        if self.maximum is not None and high > self.maximum:
            self.fail(f"{value!r} goes above {self.maximum}, the most allowed", param, ctx)
        return low, high


output = click.option(
    "-o", "--output", metavar="PATH|DIR|-", help="Where to write; - is standard output."
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
    help="Processes to work with; the output is the same whatever the number.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|mps",
    help="Where the model runs.",
)
threads = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of the model. [default: all cores]"
)
config = click.option(
    "-c", "--config", type=click.Path(exists=True, dir_okay=False), help="YAML file of settings."
)
settings = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=C", help="Override one setting; repeatable."
)
model = click.option(
    "-m", "--model", metavar="NAME|FILE|DIR", help="A shipped model, a model file or a run folder."
)
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Only errors on standard error.")
verbose = click.option("-v", "--verbose", count=True, help="Say more on standard error.")
progress = click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="auto draws a bar when standard error is a terminal; json writes one line per item.",
)
overwrite = click.option(
    "--overwrite/--skip-existing",
    default=None,
    help="Replace outputs that exist, or leave them as they are. [default: an error]",
)
strict = click.option(
    "--strict/--no-strict",
    default=True,
    help="Whether a sample stream without its closing count is an error.  [default: strict]",
)
input_type = click.option(
    "-t",
    "--input-type",
    type=click.Choice(["auto", "tar", "wav", "audio", "jsonl"]),
    default="auto",
    show_default=True,
    help="What standard input is, where guessing fails.",
)


def watch(records, label, progress, quiet, *, total=None):
    """Pass on records (with a "key"), counting them on standard error as `--progress` says.

    A bar is drawn only on a terminal, and not when standard input is a pipe: the commands
    upstream draw theirs there.
    """
    if progress == "auto" and not quiet and sys.stderr.isatty() and sys.stdin.isatty():
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        records = track(records, label, total=total, console=console, transient=True)
    for record in records:
        if progress == "json":
            click.echo(json.dumps(record), err=True)
        yield record
