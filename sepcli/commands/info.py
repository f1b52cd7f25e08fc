"""`sepcli info`: what a model is, and what it was trained on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sepcli import options


@click.command("info")
@click.argument("names", nargs=-1, metavar="[NAME|FILE|GRAPH|DIR|CONFIG.yaml]...")
@options.as_json
@click.option(
    "--attention",
    metavar="SONG",
    help="Draw what the model attends to in the middle of this recording.",
)
@click.option("-o", "--output", metavar="FILE", help="Picture of --attention: .png, .svg or .pdf.")
def command(names: Any, as_json: bool, attention: str | None, output: str | None) -> None:
    """Show the cards of models.

    Size, cost, latency, training data, scores and licence.

    \b
        $ sepcli info                       # the models that come with sepcli, and architectures
        $ sepcli info denoise runs/toy recipes/tasnet-toy/config.yaml
        $ sepcli info denoise --json | jq .parameters
        $ sepcli info denoise.onnx vocals.pt2    # graphs of sepcli export
        $ sepcli info runs/tfswa --attention song.wav -o maps.png

    Without a name it is a table; with --json, the cards of the models that come with sepcli.
    """
    if (attention is None) != (output is None):
        raise click.UsageError("--attention SONG and -o FILE belong together")
    if attention is not None:
        if len(names) != 1:
            raise click.UsageError("--attention takes one model")
        from sepcli.inference.attention import draw

        about = draw(names[0], attention, output or "")
        click.echo(json.dumps(about) if as_json else about["file"])
        return
    from sepcli.about import describe, overview
    from sepcli.graphs.about import describe_graph
    from sepcli.graphs.onnx import SUFFIXES
    from sepcli.models.modelfile import shipped
    from sepcli.scoring.tables import outline

    if not names and not as_json:
        click.echo("\n".join(overviews(*overview())))
        return
    for name in names or shipped():
        about = describe_graph(Path(name)) if Path(name).suffix in SUFFIXES else describe(name)
        click.echo(json.dumps(about) if as_json else outline(about))


def overviews(models: Any, architectures: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of `describe.overview` as text."""
    from sepcli.scoring.tables import aligned

    heads = ["parameters", "Hz", "latency ms", "sources"]
    rows = [[name, about["model"], *cells(about)] for name, about in models.items()]
    yield aligned(["model", "architecture", *heads], rows, left=(0, 1, 5))
    rows = [[name, *cells(about), about["about"]] for name, about in architectures.items()]
    yield aligned(["architecture", *heads, ""], rows, left=(0, 4, 5))
    yield "sepcli info MODEL, or FILE, or DIR of a run, shows all that is known of it."


def cells(about: dict[str, Any]) -> list[str]:
    """What both tables say."""
    latency = about["latency_ms"]
    return [
        f"{about['parameters']:,}",
        str(about["sample_rate"]),
        "not causal" if latency is None else f"{latency:g}",
        ", ".join(about["sources"]),
    ]
