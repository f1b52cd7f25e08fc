"""`sepcli rir-decay`: shorter rooms, as targets of partial dereverberation."""

import os
import sys
from pathlib import Path

import click

from sepcli import files, options
from sepcli.errors import SepcliError


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
    help="Take the largest sample for the main tap, not the largest absolute value.",
)
@click.option(
    "--joint/--per-channel",
    default=False,
    help="One main tap for all channels, or one each.  [default: per channel]",
)
@click.option("--plot", metavar="FILE.png", help="Plot the responses before and after.")
@options.overwrite
def command(inputs, output, plot, overwrite, **settings):
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
    folders given), or - for WAV on standard output, the default in a pipe.
    """
    from sepcli.rirs import responses

    if plot:
        files.check_place(plot)
    targets = choose_targets(inputs or ("-",), output)
    failed, drawn = 0, []
    for path, target in targets.items():
        try:
            if isinstance(target, Path) and files.stays([target], overwrite):
                continue
            before, after, rate = responses.shorten(path, target, **settings)
        except SepcliError as error:
            failed += 1
            click.echo(f"Failed: {error}", err=True)
            continue
        if plot:
            drawn += [(path, *pair, rate) for pair in zip(before, after, strict=True)]
    if drawn:
        from sepcli.rirs import plots

        plots.save(plot, plots.shortening_figure(drawn))
    if failed:
        raise SepcliError(f"{failed} of {len(targets)} could not be shortened, see above")


def choose_targets(inputs, output):
    """{path or "-": where its result goes}; standard output only for one response."""
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
    is_file = Path(output).suffix and not os.path.isdir(output)
    if "-" in inputs and not is_file:
        raise click.UsageError("Standard input has no name; use -o FILE for it.")
    if not is_file:
        return responses.output_paths(inputs, output)
    paths = list(responses.find_responses(inputs))
    if len(paths) > 1:
        raise click.UsageError(f"{len(paths)} responses do not fit into {output}; name a folder.")
    return {paths[0]: Path(output)}
