"""`sepcli rir-decay`: shorter rooms, as targets of partial dereverberation."""

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from sepcli import files, options
from sepcli.errors import OutputError, SepcliError


@click.command("rir-decay")
@click.argument("inputs", nargs=-1, metavar="[FILE|DIR|-]...")
@options.output
@click.option(
    "--rt60",
    "rt60_s",
    type=options.Number(min=0, min_open=True),
    default=0.3,
    show_default=True,
    help="Time in seconds in which the added decay reaches 60 dB.",
)
@click.option(
    "--early-ms",
    type=options.Number(min=0),
    default=20,
    show_default=True,
    help="Time in ms after the main tap that stays as it is.",
)
@click.option(
    "--signed-argmax",
    "signed",
    is_flag=True,
    help="Take the largest sample as the main tap, not the largest absolute value.",
)
@click.option(
    "--joint/--per-channel",
    default=False,
    help="One main tap for all channels, or one each.  [default: per channel]",
)
@click.option("--plot", metavar="FILE.png", help="Plot the responses before and after.")
@options.overwrite
@options.quiet
def command(
    inputs: tuple[str, ...],
    output: str | None,
    plot: Any,
    overwrite: bool | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Shorten room impulse responses.

    Early sound stays as it is, late sound decays faster.

    \b
        $ sepcli rir-decay rooms/ -o decayed/
        $ sepcli rir-decay hall.wav --rt60 0.2 -o - | sepcli rt60 -q -
        $ sepcli rir-decay hall.wav -o short.wav --plot short.png

    Up to 20 ms after the main tap nothing changes; from there on the response falls by 60 dB per
    0.3 s on top of its own decay, so that T seconds become 1 / (1/T + 1/0.3). Speech heard through
    the result is the target of a model that removes late reverberation only. Rate, channels,
    format and sample format are kept. -o is a file for one input, a folder (with the tree of the
    folders given), or - for WAV on standard output, the default in a pipe. A name that does not
    end like a sound file is a folder. Files of the same name keep
    their folders.
    """
    from sepcli.rirs import responses

    if plot:
        files.check_place(plot)
    targets = choose_targets(inputs or ("-",), output)
    failures, written, drawn = options.Failures(), options.Written(), []
    for path, target in targets.items():
        try:
            if isinstance(target, Path) and files.stays([target], overwrite):
                continue
            before, after, rate = responses.shorten(path, target, **settings)
        except OutputError:
            raise
        except SepcliError as error:
            failures.add(error)
            continue
        if isinstance(target, Path):
            written.add(target)
        if plot:
            drawn += [(path, *pair, rate) for pair in zip(before, after, strict=True)]
    if drawn:
        from sepcli.rirs import plots

        plots.save(plot, plots.shortening_figure(drawn))
    failures.tell_rest()
    written.tell(quiet)
    failures.check(len(targets), "shortened")


def choose_targets(
    inputs: tuple[str, ...], output: str | None
) -> dict[str, BinaryIO] | dict[str, Path]:
    """{path or "-": where its result goes}; standard output only for one response."""
    from sepcli.audio import names_a_file
    from sepcli.rirs import responses

    if inputs == ("-",) and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("Nothing to shorten: name files, or pipe a WAV in.")
    if output in (None, "-"):
        if sys.stdout.isatty():
            raise click.UsageError("Sound is not written to a terminal; use -o FILE or a pipe.")
        paths = list(responses.find_responses(inputs))
        if len(paths) > 1:
            raise click.UsageError(f"{len(paths)} responses do not fit into one; use -o FOLDER.")
        return {paths[0]: sys.stdout.buffer}
    is_file = names_a_file(output)
    if "-" in inputs and not is_file:
        raise click.UsageError("Standard input has no name; use -o FILE for it.")
    files.check_place(output, folder=not is_file)
    if not is_file:
        return responses.output_paths(inputs, output)
    paths = list(responses.find_responses(inputs))
    if len(paths) > 1:
        raise click.UsageError(f"{len(paths)} responses do not fit into {output}; name a folder.")
    return {paths[0]: Path(output)}
