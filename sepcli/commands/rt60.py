"""`sepcli rt60`: how long rooms reverberate, from their impulse responses."""

import sys
from typing import Any

import click

from sepcli import files, options
from sepcli.errors import SepcliError


class DecayRange(click.ParamType):
    """`START:STOP` in dB at or below 0, in either order, as (start, stop) with start > stop."""

    name = "START:STOP"

    def convert(
        self, value: Any, param: Any, ctx: click.Context
    ) -> tuple[float | int, float | int]:
        try:
            stop, start = sorted(float(end) + 0 for end in value.split(":"))  # -0 is 0
        except ValueError:
            stop = start = 1
        if not 0 >= start > stop > -1000:
            self.fail(f"{value!r} is not a range of a decay; write one like -5:-35", param, ctx)
        return start, stop


@click.command("rt60")
@click.argument("inputs", nargs=-1, metavar="[FILE|DIR|-]...")
@click.option(
    "--method",
    type=click.Choice(["schroeder", "regression"]),
    default="schroeder",
    show_default=True,
    help="Backward integration without the noise, or the power under a Hann window.",
)
@click.option(
    "--range",
    "range_db",
    type=DecayRange(),
    help="Range of the fitted line, in dB.  [default: -5:-35 (T30), or else -5:-25 (T20)]",
)
@click.option(
    "--window",
    "window_ms",
    type=options.Number(0.1, 1000),
    default=20,
    show_default=True,
    help="Length in ms of the Hann window of --method regression.",
)
@click.option(
    "--band",
    type=click.Choice(["octave", "third", "none"]),
    default="none",
    show_default=True,
    help="Measure in octaves, in thirds of octaves, or in one band.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per row.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print the number only, nan where it is not measurable."
)
@click.option("--plot", metavar="FILE.png", help="Plot the decays and the fitted lines.")
@click.option("--strict", is_flag=True, help="Exit with 1 when an RT60 is not measurable.")
def command(
    inputs: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    plot: str | None,
    strict: bool,
    **settings: Any,
) -> None:
    """Measure the reverberation of room impulse responses.

    After ISO 3382-1.

    \b
        $ sepcli rt60 rooms/ --band octave
        $ sepcli rt60 hall.wav --method regression --range -5:-35 --plot hall.png
        $ T=$(sepcli rt60 -q hall.wav)
        $ sox hall.flac -t wav - | sepcli rt60 - --json | jq .t30_s

    RT60 is T30 where the decay stands out from the noise by 45 dB, T20 where it does by 35 dB, and
    otherwise not measurable: no number is given then, but the reason. EDT is the first 10 dB,
    C50, C80, D50 and DRR compare early with late energy (DRR: 2.5 ms around the main tap), and
    "decay" is how far it falls before the noise. Every channel is measured on its own.
    """
    from sepcli.rirs import responses

    if as_json and quiet:
        raise click.UsageError("--json and -q are two forms of output; choose one.")
    if not inputs and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("Nothing to measure: name files, or pipe a WAV in.")
    if plot:
        files.check_place(plot)
    rooms, count, failures = [], 0, options.Failures()
    for path in responses.find_responses(inputs or ("-",)):
        count += 1
        try:
            for room in responses.measure_rooms(path, **settings):
                rooms.append(room)
                show_row(room, as_json, quiet)
        except SepcliError as error:
            failures.add(error)
    failures.tell_rest()
    if not (as_json or quiet):
        show_table(rooms)
    if plot and rooms:
        from sepcli.rirs import plots

        plots.save(plot, plots.decay_figure(rooms))
    failures.check(count, "measured")
    if strict and (lost := sum(not room.measurable for room in rooms)):
        raise SepcliError(f"{lost} of {len(rooms)} not measurable, see above")


def show_row(room: Any, as_json: bool, quiet: bool) -> None:
    """Print what has the form of lines: JSON, or bare numbers with the reasons on stderr."""
    from sepcli.rirs import responses

    if as_json:
        click.echo(responses.as_json(room))
    elif quiet:
        click.echo(f"{room.measurement.rt60_s:.4f}")
        for line in responses.remarks([room]):
            click.echo(line, err=True)


def show_table(rooms: Any) -> None:
    """Print the table, with lines on a terminal, and why numbers are missing."""
    from sepcli.rirs import responses
    from sepcli.scoring import tables

    header, rows = responses.table(rooms)
    if not rows:
        return
    if not sys.stdout.isatty():
        click.echo(tables.aligned(header, rows, left=range(1)), nl=False)
        for line in responses.remarks(rooms):
            click.echo(line)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, table = Console(), Table()
    table.add_column(header[0], overflow="fold")
    for title in header[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for line in responses.remarks(rooms):
        console.print(line, markup=False, highlight=False)
