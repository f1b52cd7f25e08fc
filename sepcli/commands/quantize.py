"""`sepcli quantize`: a model in integers of 8 bits, and what that costs."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from sepcli import config as configuration
from sepcli import files, options
from sepcli.quant.targets import TARGETS, target_module


@click.command("quantize")
@click.argument("model", metavar="NAME|FILE|DIR")
@click.option(
    "-o", "--output", metavar="FILE|DIR", help="[default: MODEL-TARGET.safetensors, here]"
)
@click.option(
    "--mode",
    type=click.Choice(["ptq", "qat"]),
    default="ptq",
    show_default=True,
    help="Calibration alone (ptq), or fine-tuning with rounding (qat).",
)
@click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="cpu",
    show_default=True,
    help="Hardware: any processor, or Analog Devices' MAX78000, for a tcn_max78000.",
)
@click.option("--calib", metavar="PATH", help="Samples or audio files to calibrate with.")
@click.option(
    "--calib-minutes",
    type=options.Number(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Longest duration to calibrate with, in minutes.",
)
@options.config
@options.settings
@click.option("--steps", type=click.IntRange(min=1), help="Steps of fine-tuning.  [default: 10000]")
@click.option(
    "--lr",
    type=options.Number(min=0, min_open=True),
    help="Learning rate of fine-tuning.  [default: 0.0001]",
)
@click.option(
    "--run", "folder", metavar="DIR", help="Run folder of fine-tuning.  [default: OUTPUT.qat]"
)
@click.option("--resume", is_flag=True, help="Resume the fine-tuning in the run folder.")
@click.option(
    "--items", type=click.IntRange(min=1), default=20, show_default=True, help="Items to score."
)
@click.option(
    "--max-drop",
    type=options.Number(-100, 100),
    default=0.5,
    show_default=True,
    help="Largest loss of SI-SDR, in dB.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    help="Largest size of the weights, in bytes.  [default: the chip's, if any]",
)
@click.option(
    "--onnx/--no-onnx", "more", default=True, help="Also write an ONNX graph (target cpu)."
)
@options.overwrite
@options.seed
@options.threads
@options.as_json
@options.progress
@options.quiet
def command(
    model: str,
    output: Any,
    mode: str,
    target: Any,
    steps: int | None,
    lr: float | None,
    seed: int,
    threads: int | None,
    **flags: Any,
) -> None:
    """Quantise a causal model to 8-bit integers.

    Reports what the integers lose and what each layer takes.

    \b
        $ sepcli quantize denoise-tiny -o tiny-int8.safetensors
        $ sepcli quantize runs/toy --mode qat --steps 2000 -o toy-int8.safetensors --json
        $ sepcli quantize denoise-tiny --calib recordings/ -c data.yaml --max-drop 0.2

    The file is a model like any other, for separate, stream, eval and info. A graph for ONNX
    Runtime is written beside it, and its speed is measured. Weights have a scale per output
    channel, activations a range that calibration sees; batch norm is folded. The same network is
    computed in integers, too, which must give the same bits. Nothing is written when SI-SDR falls
    by more than --max-drop or the weights exceed --budget.

    Fine-tuning (qat) is a run as sepcli train makes it; -c FILE has its sections data and train,
    and data.valid is scored. Without it the model's own data are used if they need
    no files, else synthetic speech and noise.
    """
    import torch

    from sepcli.models.modelfile import locate
    from sepcli.runs import quantize

    output = files.in_folder(output or ".", f"{locate(model).stem}-{target}.safetensors")
    if output.suffix == ".onnx":
        raise click.UsageError(f"{output}: name the model file; its graph is written beside it")
    graph = flags["more"] and target_module(target).QDQ
    outputs = [output, files.companion(output, ".onnx")] if graph else [output]
    overwrite = flags["overwrite"]
    if files.stays(outputs, overwrite):
        return
    for path in outputs:
        files.check_place(path)
    folder = Path(flags["folder"] or files.companion(output, ".qat"))
    if mode == "qat":
        files.check_place(folder, folder=True)
    options.check_stdout()
    if threads:
        torch.set_num_threads(threads)
    overrides = [f"train.seed={seed}", *flags["overrides"]]
    overrides += [f"train.steps={steps}"] if steps else []
    overrides += [f"train.lr={lr}"] if lr else []
    choices = quantize.Choices(
        target=target,
        mode=mode,
        config=configuration.load(flags["config"] or os.devnull, overrides),
        calib=flags["calib"],
        calib_minutes=flags["calib_minutes"],
        items=flags["items"],
        max_drop_db=flags["max_drop"],
        budget=flags["budget"] or target_module(target).BUDGET,
        folder=str(folder),
        resume=flags["resume"],
        overwrite=bool(overwrite),
        more=flags["more"],
        command=shlex.join(["sepcli", *sys.argv[1:]]),
    )
    report = quantize.quantize(
        model, output, choices, tell=teller(flags["progress"], flags["quiet"])
    )
    click.echo(json.dumps(report) if flags["as_json"] else table(report))


def teller(progress: str, quiet: bool) -> Any:
    """A function that shows a record of what is being done on standard error."""

    def tell(record):
        if progress == "json":
            plain = {key: value for key, value in record.items() if key != "audio"}
            click.echo(json.dumps(plain), err=True)
        elif record["event"] == "calibrating":
            click.echo("Calibrating ...", err=True)
        elif record["event"] == "warning":
            click.echo(record["message"], err=True)
        elif record["event"] == "valid":
            best = " (best)" if record["best"] else ""
            click.echo(
                f"step {record['step']}: SI-SDR {record['si_sdr_db']:.2f} dB{best}", err=True
            )

    return (lambda record: None) if quiet or progress == "none" else tell


def table(report: dict[str, Any]) -> str:
    """The report as text: layers, totals, scores, and how fast the graph is."""
    rows: list[tuple[Any, ...]] = [("layer", "op", "in", "out", "weights", "activations")]
    for row in report["layers"]:
        shapes = [" ".join("x".join(map(str, shape)) for shape in row["inputs"])]
        shapes.append("x".join(map(str, row["outputs"])))
        sizes = [f"{row[key]:,}" for key in ("weight_bytes", "activation_bytes")]
        rows.append((row["name"], row["op"], *shapes, *sizes))
    rows.append(
        (
            "total, bytes",
            "",
            "",
            "",
            f"{report['weight_bytes']:,}",
            f"{report['activation_bytes']:,}",
        )
    )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
    if report["budget"]:
        lines.append(
            f"budget {report['budget']:,} bytes, {report['budget'] - report['weight_bytes']:,} left"
        )
    lines.append("")
    for kind, scores in report["scores"].items():
        values = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        lines.append(f"{kind:15} {values}")
    lines.append(
        f"drop            {report['si_sdr_drop_db']:.3f} dB SI-SDR; the integers give the same bits"
    )
    if "file" in report.get("onnx", {}):
        lines.append(
            f"{report['onnx']['file']}: {report['onnx']['bytes']:,} bytes, in ONNX Runtime"
        )
        for size, text in (
            ("whole", f"{report['onnx']['seconds']:g} s at once"),
            ("chunks", "in chunks of 10 ms"),
        ):
            times = report["onnx"][size]
            lines.append(
                f"  {text}: {times['int8_ms']:.1f} ms, float32 {times['float32_ms']:.1f} ms: "
                f"{times['speedup']:.2f} times as fast"
            )
    elif "onnx" in report:
        lines.append(f"no graph for ONNX Runtime: {report['onnx']['skipped']}")
    lines.append(f"{report['file']}: {report['bytes']:,} bytes")
    return "\n".join(lines)


def _cells(row, widths):
    for i, (text, width) in enumerate(zip(row, widths, strict=True)):
        yield text.rjust(width) if i > 3 else text.ljust(width)
