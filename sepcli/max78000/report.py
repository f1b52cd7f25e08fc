"""What an export costs, as plain data and as Markdown."""

from typing import Any

from sepcli.max78000.host import Host
from sepcli.max78000.plan import Plan, is_emulated

NAMES = {"conv": "Conv1d", "keep": "copy", "add": "add"}


def report(name: str, model: Any, plan: Plan, host: Host) -> dict[str, Any]:
    """Describe the export of `model`, called `name`: per layer, in all, and on the host."""
    run_ms = 1000 * plan.frames * model.hop / model.sample_rate
    frames_per_second = model.sample_rate / model.hop
    used = {name: number for name, (number, _) in plan.used.items()}
    return {
        "model": name,
        "device": "MAX78000",
        "frames_per_run": plan.frames,
        "window_frames": plan.input.frames,
        "audio_per_run_ms": run_ms,
        "latency_ms": run_ms + 1000 * model.delay / model.sample_rate,
        "layers": [_layer(plan, i) for i in range(len(plan.steps))],
        "totals": {**used, "cycles": plan.cycles, "ms": plan.ms},
        "limits": {**{name: most for name, (_, most) in plan.used.items()}, "ms": run_ms},
        "host": {
            "macs_per_frame": host.macs_per_frame,
            "macs_per_second": round(host.macs_per_frame * frames_per_second),
            "table_bytes": host.table_bytes,
            "state_bytes": host.state_bytes,
        },
    }


def _layer(plan, index):
    """One row; bytes and columns are of one instance and one processor where they say so."""
    step = plan.steps[index]
    layer, source, written = step.layer, step.read[0], step.written
    row = {
        "layer": index,
        "name": layer.name,
        "operation": NAMES[layer.kind],
        "inputs": list(layer.inputs),
        "input_shape": [source.channels, step.frames_in],
        "output_shape": [written.channels, written.frames],
    }
    if layer.weight is not None:
        taps = layer.weight.shape[2]
        row |= {
            "kernel": taps,
            "dilation": layer.dilation,
            "emulated": is_emulated(layer),
            "activation": "ReLU" if layer.relu else "none",
            "output_shift": layer.output_shift,
            "weight_bytes": layer.weight.size * layer.weight_bits // 8,
            "columns": step.columns,
            "stored_bytes": 9 * step.columns * source.processors,
        }
    alive = {plan.input, *(other.written for other in plan.steps)}
    alive = {(t.start, t.end) for t in alive if t.first <= index <= t.last}  # operands lie together
    return row | {
        "in_offset": step.in_offset,
        "out_offset": written.offset,
        "write_gap": written.gap,
        "written": [written.start, written.end],
        "needed_until_layer": written.last,
        "data_bytes_per_instance": sum(end - start for start, end in alive),
        "cycles": step.cycles,
        "ms": step.ms,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    totals, most, host = report["totals"], report["limits"], report["host"]
    rows = [_row(row) for row in report["layers"]]
    usage = [
        f"| {label} | {totals[key]:,} | {most[key]:,} | {100 * totals[key] / most[key]:.0f} % |"
        for label, key in (
            ("layers", "layers"),
            ("columns of weights per processor", "columns"),
            ("bytes of weights, before the chip stretches kernels", "weight_bytes"),
            ("bytes of biases", "bias_bytes"),
            ("bytes of data per instance", "data_bytes_per_instance"),
            ("frames of the longest tensor", "frames_longest"),
        )
    ]
    return "\n".join(
        [
            f"# {report['model']} on the MAX78000",
            "",
            f"{report['frames_per_run']} frames of output per run, from a window of "
            f"{report['window_frames']}. A run takes {totals['ms']:.2f} ms at 50 MHz, by the "
            f"vendor's model of cycles, every {most['ms']:g} ms; {report['latency_ms']:g} ms of "
            "algorithmic latency.",
            "",
            "Checked against the documented format, simulated in integers. Not tried on silicon.",
            "",
            "In this folder, with ai8x-synthesis (https://github.com/analogdevicesinc) installed, "
            "which needs no network:",
            "",
            "    python .../ai8xize.py --device MAX78000 --no-version-check --test-dir . \\",
            f"        --prefix {report['model']} --config-file network.yaml \\",
            "        --checkpoint-file checkpoint.pth.tar --sample-input sample_input.npy",
            "",
            "Its known answer is then expected_output.npy.",
            "",
            "| of the chip | used | there is | |",
            "|---|---|---|---|",
            *usage,
            f"| milliseconds | {totals['ms']:.2f} | {most['ms']:g} | "
            f"{100 * totals['ms'] / most['ms']:.0f} % |",
            "",
            "| on the microcontroller | |",
            "|---|---|",
            f"| multiply-accumulates per frame, counted by host.c | {host['macs_per_frame']:,} |",
            f"| multiply-accumulates per second | {host['macs_per_second']:,} |",
            f"| bytes of tables | {host['table_bytes']:,} |",
            f"| bytes of state | {host['state_bytes']:,} |",
            "",
            "## Layers",
            "",
            "Weights: bytes as such, and the columns that they take in the memory of each "
            "processor. Data: what the layer writes in each instance, junk included, and the last "
            "layer that reads it; what is alive while the layer runs.",
            "",
            "| layer | operation | in | out | weights | columns | written | until | alive | cycles "
            "| ms |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            f"| sum | | | | {totals['weight_bytes']:,} | {totals['columns']} | | "
            f"| {totals['data_bytes_per_instance']:,} | {totals['cycles']:,} "
            f"| {totals['ms']:.3f} |",
            "",
        ]
    )


def _row(row):
    """A line of the table of layers."""
    what = row["operation"]
    if "kernel" in row:
        what += f" {row['kernel']}"
        if row["dilation"] > 1:
            what += f", dilation {row['dilation']}" + (" in 2-D" if row["emulated"] else "")
        if row["activation"] != "none":
            what += f", {row['activation']}"
    shapes = [
        f"{channels}x{frames}" for channels, frames in (row["input_shape"], row["output_shape"])
    ]
    start, end = row["written"]
    cells = [
        f"{row['layer']} {row['name']}",
        what,
        *shapes,
        f"{row['weight_bytes']:,}" if "weight_bytes" in row else "",
        str(row.get("columns", "")),
        f"{start:#06x}-{end:#06x}",
        str(row["needed_until_layer"]),
        f"{row['data_bytes_per_instance']:,}",
        f"{row['cycles']:,}",
        f"{row['ms']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"
