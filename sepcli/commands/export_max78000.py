"""`sepcli export-max78000`: what the MAX78000 and its microcontroller need to run a model."""

import json
from typing import Any

import click

from sepcli import files, options


@click.command("export-max78000")
@click.argument("model", metavar="NAME|FILE|DIR|CONFIG.yaml")
@click.option("-o", "--output", metavar="DIR", help="Output folder.")
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    help="Output frames per run of the chip.  [default: those of 20 ms]",
)
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Report, layer by layer, what the chip cannot do and what replaces it; write nothing.",
)
@options.overwrite
@options.as_json
def command(
    model: str,
    output: Any,
    frames: Any,
    only_check: bool,
    overwrite: bool | None,
    as_json: bool,
) -> None:
    """Write what runs a model on Analog Devices' MAX78000.

    \b
        $ sepcli export-max78000 denoise-max78000 -o chip/
        $ sepcli export-max78000 runs/chip/best.safetensors -o chip/ --frames 10 --json
        $ sepcli export-max78000 recipes/tasnet-toy/config.yaml --check
        $ sepcli export-max78000 chip/ --check

    The folder has network.yaml, checkpoint.pth.tar and sample_input.npy for ai8xize.py,
    expected_output.npy from an integer simulator, host.h and host.c with all that the
    microcontroller does, and report.md and report.json: memory, weights, cycles, per layer. A model
    that does not fit is refused, with the layer and the number, before anything is written.

    --check takes any model or configuration, and exports that somebody has changed; it exits with 1
    when the chip cannot run them as they are.
    """
    if only_check:
        from sepcli.max78000.check import check, table

        about = check(model)
        click.echo(json.dumps(about) if as_json else table(about))
        if about["violations"]:
            raise click.exceptions.Exit(1)
        return
    if output is None:
        raise click.UsageError("name a folder with -o, or --check")
    from sepcli.max78000.export import export

    if files.stays([output], overwrite):
        return
    files.check_place(output, folder=True)
    about = export(model, output, frames=frames)
    totals, most = about["totals"], about["limits"]
    if totals["ms"] > most["ms"]:
        click.echo("Too slow to run live: more --frames per run take less time each.", err=True)
    if as_json:
        click.echo(json.dumps(about))
        return
    click.echo(
        f"{output}: {totals['layers']} layers, {totals['columns']} of {most['columns']} columns of "
        f"weights, {totals['data_bytes_per_instance']:,} of {most['data_bytes_per_instance']:,} "
        f"bytes of data, {totals['ms']:.2f} ms per {most['ms']:g} ms of audio"
    )
