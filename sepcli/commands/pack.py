"""`sepcli pack`: many recordings or samples in one file."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from sepcli import options
from sepcli.errors import SepcliError

OTHER_FILES = (".hdf5", ".gz", ".tgz", ".xz", ".zip", ".wav", ".flac", ".jsonl", ".txt")


def sources(name: str, text: str) -> Any:
    """A repeatable option that names recordings."""
    return click.option(f"--{name}", multiple=True, metavar="PATH", help=text)


class Regex(click.ParamType):
    """A regular expression, as text."""

    name = "REGEX"

    def convert(self, value: Any, param: Any, ctx: click.Context) -> Any:
        import re

        try:
            re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is not a regular expression: {error}", param, ctx)
        return value


@click.command()
@click.argument("inputs", nargs=-1, metavar="[SAMPLES|PACK]...")
@sources("speech", "Clean speech: a folder, glob, file or list (.txt, .jsonl); repeatable.")
@sources("noise", "Noise, likewise.")
@sources("rir", "Room impulse responses, likewise.")
@click.option(
    "-o",
    "--output",
    metavar="FILE.h5|FILE.tar|DIR",
    help="Pack, sample tar or folder of shards to write.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["h5", "tar"]),
    help="Format: HDF5, or tars of samples.  [default: by the output's name]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Samples per tar of a folder.",
)
@click.option(
    "--dtype",
    type=click.Choice(["int16", "float32", "flac"]),
    help="Encoding of samples; flac is smaller and much slower.  [default: int16, float32 "
    "for RIRs]",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(4000, 768_000),
    help="Sample rate in Hz; recordings are resampled.  [default: that of each first recording]",
)
@click.option(
    "--keep-channels",
    is_flag=True,
    help="Keep all channels of speech and noise instead of their mean.",
)
@click.option(
    "--speaker-regex",
    type=Regex(),
    help="Regular expression whose first group names the speaker.  [default: first folder]",
)
@click.option(
    "--val-fraction",
    type=options.Number(0, 0.9),
    default=0.05,
    show_default=True,
    help="Fraction of each source's sorted speakers (or names), from the end, for validation.",
)
@click.option("--resume", is_flag=True, help="Resume a run that was stopped or killed.")
@click.option(
    "--list", "mode", flag_value="list", help="Print the contents of packs, one line per item."
)
@click.option("--stats", "mode", flag_value="stats", help="Print the totals of packs.")
@click.option("--verify", "mode", flag_value="verify", help="Check packs by their checksums.")
@options.spread
@options.overwrite
@options.strict
@options.input_type
@options.as_json
@options.progress
@options.quiet
def command(inputs: Any, mode: str, output: Any, **settings: Any) -> None:
    """Pack recordings or samples into one file for training.

    \b
        $ sepcli pack --speech vctk/ --speech ears/ --noise noise/ --rir rooms/ -o data.h5
        $ sepcli mix --speech data.h5 --noise data.h5 --rir data.h5 -n 1000 -o mixtures.tar
        $ sepcli mix -n 100 | sepcli pack - -o samples.h5
        $ sepcli pack --speech vctk/ --shard-size 500 -o shards
        $ sepcli pack --verify data.h5

    The file also holds the speaker of each recording, and which speakers (noises, rooms) are for
    validation: --list --json prints that as JSON lines. As a source, data.h5 stands for what
    is for training, data.h5:validation for the rest, and data.h5:all for both.

    A folder gets tars of samples, as WebDataset reads them, and manifest.jsonl.

    Inputs that cannot be read are named, left out, and noted in the pack; then the exit code is 1.
    The pack appears when it is complete. Until then FILE.h5.part holds what is done, and at the
    end both take space; --resume continues from it, however the previous run ended.
    """
    if mode:
        check_usage(inputs, output, settings)
        look_into(inputs, mode, settings["as_json"])
    else:
        write(inputs, output, **settings)


def check_usage(inputs: Any, output: Any, settings: Any) -> None:
    """Fail on what does not go with --list, --stats and --verify."""
    named = [settings[kind] for kind in ("speech", "noise", "rir")]
    if output or any(named) or not inputs:
        raise click.UsageError(
            "--list, --stats and --verify take packs: sepcli pack --list data.h5"
        )


def write(
    inputs: Any,
    output: Any,
    form: str | None,
    shard_size: Any,
    speech: Any,
    noise: Any,
    rir: Any,
    resume: bool,
    spread: Any,
    overwrite: bool | None,
    strict: bool,
    input_type: str,
    as_json: bool,
    progress: str,
    quiet: bool,
    **spec: Any,
) -> None:
    """Make a pack; say what was left out."""
    from sepcli.cluster.objects import find, is_url, uploaded
    from sepcli.files import exists
    from sepcli.recordings.journal import is_whole
    from sepcli.recordings.packing import Packing, PackSpec, find_sources
    from sepcli.samples.inputs import expand
    from sepcli.samples.shards import MANIFEST

    if not (inputs or speech or noise or rir):
        raise click.UsageError("Nothing to pack: name --speech, --noise, --rir or samples.")
    form = choose_form(output, form, shard_size)
    if is_url(output) and not overwrite and find(output):
        if overwrite is None:
            raise exists(output)
        click.echo(f"{output}: exists already, left as it is", err=True)
        return
    if not overwrite and (resume or overwrite is False) and is_whole(output):
        click.echo(f"{output}: exists already, left as it is", err=True)
        return
    given = {"speech": speech, "noise": noise, "rir": rir}
    found = [source for kind, paths in given.items() for source in find_sources(kind, paths)]
    inputs = [path for given in inputs for path in expand(given)]
    reading = {"strict": strict, "input_type": input_type}
    packing = Packing(found, inputs, PackSpec(**spec), form, **reading)
    if is_url(output) and resume:
        raise click.UsageError("--resume is for packs that are written to a file; omit it")
    bar = options.Progress("Packing", progress, quiet, spread)
    with uploaded(output, last=MANIFEST) as path:
        records = packing.run(path, resume=resume, overwrite=overwrite, spread=spread)
        collect(bar.watch(named(records), packing.count(spread)))
    report(output, packing, quiet)


def choose_form(output: Any, form: str | None, shard_size: Any) -> Any:
    """How to write `output`: None for HDF5, or a `TarForm`."""
    from sepcli.samples.shards import TarForm

    extension = os.path.splitext(output or "")[1].lower()
    if (output or "").endswith(os.sep) or os.path.isdir(output or ""):
        extension = ""
    form = form or ("h5" if extension == ".h5" else "tar")
    if not output or extension in OTHER_FILES or (form == "h5") != (extension == ".h5"):
        raise click.UsageError("Name the pack to write: -o FILE.h5, -o FILE.tar, or -o DIR")
    if form == "h5":
        return None
    return TarForm(None if extension == ".tar" else shard_size)


def named(records: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The keys of records, and why what was skipped was."""
    return ({"key": r["name"], "skipped": r.get("skipped")} for r in records)


def collect(records: Iterable[dict[str, Any]]) -> None:
    """Run, naming the first inputs that are skipped."""
    failures = options.Failures("Skipped")
    for record in records:
        if record["skipped"]:
            failures.add(record["skipped"])
    failures.tell_rest()


def report(output: Any, packing: Any, quiet: bool) -> None:
    """Say what of the inputs is not in the new pack; exit with 1 if something is not."""
    if packing.clipped and not quiet:
        click.echo(f"{output}: {packing.clipped} samples beyond full scale were clipped", err=True)
    if not quiet:
        click.echo(f"Wrote {output}", err=True)
    if packing.skipped:
        count = packing.skipped + packing.packed
        message = f"{packing.skipped} of {count} inputs could not be read and are not in {output}"
        click.echo(f"Error: {message}", err=True)
        sys.exit(1)


def look_into(inputs: Any, mode: str, as_json: bool) -> None:
    """Print what is asked about packs; exit with 1 if one of them is no whole pack."""
    from sepcli.samples.pack import Pack

    failed = 0
    for path in inputs:
        try:
            pack = Pack(path)
            for line in LOOKS[mode](pack, as_json):
                click.echo(line)
        except SepcliError as error:
            click.echo(f"Error: {error}", err=True)
            failed += 1
    if failed:
        sys.exit(1)


def listed(pack: Any, as_json: bool) -> Iterator[str]:
    """Yield a line per item: where it is, who speaks, how long it is, what it is for."""
    for item in pack.manifest():
        if as_json:
            yield json.dumps(item)
        else:
            name = f"{item['kind']}/{item['source']}/{item['name']}"
            seconds = f"{item['frames'] / item['sample_rate']:.2f} s"
            yield "\t".join((name, item["speaker"] or "-", seconds, item["split"]))


def counted(pack: Any, as_json: bool) -> Iterator[str]:
    """Yield a line per source: how much there is of it."""
    for source in pack.stats():
        if as_json:
            yield json.dumps(source)
        else:
            yield (
                f"{source['kind']}/{source['source']}: {source['items']} items "
                f"({source['validation']} for validation), {source['speakers']} speakers, "
                f"{source['seconds'] / 3600:.3f} h, {source['sample_rate']} Hz, {source['dtype']}, "
                f"{source['bytes'] / 1e6:.1f} MB"
            )
    for record in pack.skipped:
        yield json.dumps(record) if as_json else f"skipped: {record['skipped']}"


def verified(pack: Any, as_json: bool) -> Iterator[str]:
    """Yield that a pack is whole, or raise."""
    pack.verify()
    about = {"pack": pack.path, "whole": True, "items": pack.count}
    yield json.dumps(about) if as_json else f"{pack.path}: whole, {pack.count} items"


LOOKS = {"list": listed, "stats": counted, "verify": verified}
