"""Options that mean the same in two or more commands, each defined once."""

import functools
from collections.abc import Callable
from typing import Any

import click

from sepcli.options.reporting import (
    STDOUT,
    Failures,
    Progress,
    Written,
    carry_out,
    check_stdout,
    shortest,
)
from sepcli.options.types import Grouped, Number, Range, ShardType

__all__ = [
    "STDOUT", "Failures", "Grouped", "Number", "Progress", "Range", "Written", "carry_out",
    "check_stdout", "shortest",
]  # fmt: skip

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
shard = click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N",
    help="Do every N-th item only, from the I-th on, as one of N commands that differ in I.",
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
    import logging

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


def _keep_strict(ctx, _param, value):
    """The option's own value; everything that reads sound in this run obeys it, too."""
    from sepcli.errors import leniency

    ctx.with_resource(leniency(not value))
    return value


strict = click.option(
    "--strict/--no-strict",
    default=True,
    callback=_keep_strict,
    help="Treat sound that is cut off or damaged, and a sample stream without its closing count, "
    "as an error; otherwise, read it as far as it goes.  [default: strict]",
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

cluster = click.option(
    "--cluster",
    metavar="ADDRESS|local",
    help="Have the workers of a dask scheduler do it, such as tcp://10.0.0.1:8786, or so many "
    "workers on this machine as --jobs says.",
)
ledger = click.option(
    "--ledger",
    metavar="FILE",
    help="Append a line of JSON per item to a file: done or failed, why, and where.",
)


def spread(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of work that is shared out, which a command gets as `spread`, a `Spread`."""

    @functools.wraps(command)
    def spreading(
        *args: Any, jobs: int, shard: Any, cluster: str | None, ledger: str | None, **others: Any
    ) -> Any:
        from sepcli.cluster import LOCAL
        from sepcli.cluster.shard import WHOLE
        from sepcli.cluster.spread import Spread

        if jobs > 1 and cluster not in (None, LOCAL):
            raise click.UsageError("--jobs is for workers of this machine; omit it")
        return command(*args, spread=Spread(shard or WHOLE, jobs, cluster, ledger), **others)

    return jobs(shard(cluster(ledger(spreading))))


def separation(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what separates inputs into stems, in the order in which `--help` has them."""
    shared = (
        *(segment, overlap, start, duration),
        *(output, filename, container, subtype, overwrite),
        *(spread, device, threads, strict, input_type),
    )
    for option in reversed(shared):
        command = option(command)
    return command
