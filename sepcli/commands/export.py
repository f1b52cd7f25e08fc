"""`sepcli export`: a model as a graph, or a program, for other programs."""

import json
from typing import Any

import click

from sepcli import files, options


@click.command("export")
@click.argument("model", metavar="NAME|FILE|DIR")
@click.option(
    "-o",
    "--output",
    metavar="FILE.onnx|FILE.pt2|DIR",
    help="Graph to write, or a folder for it.  [default: MODEL.onnx in the working folder]",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Write a graph for whole signals even if the model is causal.",
)
@click.option(
    "--length",
    "length_s",
    type=options.Number(0, 3600, min_open=True),
    metavar="SECONDS",
    help="Length in seconds of the signals that a graph for whole signals takes.  [default: any, "
    "or 10 where the model is for one length]",
)
@options.overwrite
@options.as_json
def command(
    model: str,
    output: Any,
    offline: bool,
    length_s: float | None,
    overwrite: bool | None,
    as_json: bool,
) -> None:
    """Write a model as an ONNX graph or a torch.export program.

    \b
        $ sepcli export denoise -o denoise.onnx
        $ sepcli export runs/mine/best.safetensors -o runs/mine/best.onnx
        $ cat noisy.wav | sepcli stream -m runs/mine/best.safetensors --engine onnx > speech.wav
        $ sepcli export vocals -o vocals.onnx && sepcli separate -m vocals.onnx song.wav
        $ sepcli export vocals -o vocals.pt2 && sepcli separate -m vocals.pt2 song.wav

    Of a causal model it is the streaming graph, which takes a chunk and the states, and gives the
    output and the next states, for any batch and any number of hops, or for one hop at a time.
    Of all others, and as FILE.pt2, it is for whole signals, of any length where the model allows
    it. A model that takes references gets a second graph, MODEL.condition.onnx, which makes of a
    reference what the first one needs besides, and MODEL.resemblance.onnx if it tells voices apart,
    by which extract says how sure the presence is. The model's card is inside.

    A graph is compared with the model before it is written. separate, extract and stream run it
    with ONNX Runtime alone, without torch; beside the weights and under their name, it is what
    stream runs. separate and extract run FILE.pt2 by torch, and no code that is in it.
    ONNX needs the packages onnx and onnxscript: pip install 'sepcli[export]'.
    """
    from sepcli.graphs.export import export
    from sepcli.models.modelfile import locate

    output = files.in_folder(output or ".", f"{locate(model).stem}.onnx")
    if files.stays([output], overwrite):
        return
    files.check_place(output)
    record = export(model, output, offline=offline, length_s=length_s)
    if as_json:
        click.echo(json.dumps(record))
    else:
        click.echo(
            f"{output}: {record['bytes']:,} bytes, {what(record)}, "
            f"within {record['max_difference']:.1g} of the model"
        )


def what(record: dict[str, Any]) -> str:
    """The kind of a graph, in words."""
    if record["kind"] == "streaming":
        return f"{record['states']} states"
    if record["length_s"] is None:
        return "for signals of any length"
    return f"for signals of {record['length_s']:.4g} s"
