"""`sepcli export`: a model's streaming graph as ONNX."""

import json
from typing import Any

import click

from sepcli import files, options


@click.command("export")
@click.argument("model", metavar="NAME|FILE|DIR")
@click.option("-o", "--output", metavar="FILE.onnx|DIR", help="[default: MODEL.onnx, here]")
@options.overwrite
@options.as_json
def command(model: str, output: Any, overwrite: bool | None, as_json: bool) -> None:
    """Write a causal model's streaming graph as ONNX.

    \b
        $ sepcli export denoise -o denoise.onnx
        $ sepcli export runs/mine/best.safetensors -o runs/mine/best.onnx
        $ cat noisy.wav | sepcli stream -m runs/mine/best.safetensors --engine onnx > speech.wav

    The graph takes a chunk and the states, and gives the output and the next states, for any batch
    and any number of hops, or for one hop at a time (dmgtcm_unet). It is compared with the model
    before it is written. Where it lies beside the weights and has their name, sepcli stream runs it
    without torch, which starts sooner and is faster.
    Needs the packages onnx and onnxscript: pip install 'sepcli[export]'.
    """
    from sepcli.inference.export import export
    from sepcli.models.modelfile import locate

    output = files.in_folder(output or ".", f"{locate(model).stem}.onnx")
    if files.stays([output], overwrite):
        return
    files.check_place(output)
    record = export(model, output)
    if as_json:
        click.echo(json.dumps(record))
    else:
        click.echo(
            f"{output}: {record['bytes']:,} bytes, {record['states']} states, "
            f"within {record['max_difference']:.1g} of the model"
        )
