"""What the MAX78000 cannot do of a model, layer by layer, and what replaces it at what cost.

Weights are those of convolutions and matrices, without biases. In the totals, `weights_dense` are
those that would be on the chip, convolutions in groups made dense, as the chip has no groups;
`weights_all` has those of the microcontroller, too. Activations are those of one hop of a causal
model, or of one run of the chip of a model that is made for it, a byte for each value.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepcli.about import configured
from sepcli.errors import SepcliError
from sepcli.max78000 import limits
from sepcli.max78000.export import build, problems
from sepcli.max78000.operations import record
from sepcli.models.modelfile import load_model
from sepcli.nn.causal import flat
from sepcli.quant.max78000 import NAME

HOST = "on the microcontroller"
ACTIVATIONS = ("tanh", "gelu", "silu", "elu", "leaky_relu", "softplus", "hardtanh", "hardswish")
OTHERS = {  # name of torch: (what it is, what replaces it)
    **{name: (name, "ReLU, and train again") for name in ACTIVATIONS},
    "_prelu_kernel": ("PReLU", "ReLU, and train again"),
    "sigmoid": ("sigmoid", f"a table of 256 values {HOST}, after the network"),
    "_softmax": ("softmax", "no replacement: use another architecture"),
    "native_layer_norm": ("norm over each frame", "batch norm before the activation, which folds"),
    "native_group_norm": ("norm over time", "batch norm before the activation, which folds"),
    "rsqrt": ("norm over each frame", "batch norm before the activation, which folds"),
    "mkldnn_rnn_layer": ("LSTM", "dilated convolutions, and train again"),
    "lstm": ("LSTM", "dilated convolutions, and train again"),
    "gru": ("GRU", "dilated convolutions, and train again"),
    "_fft_r2c": ("Fourier transform", HOST),
    "_fft_c2r": ("inverse Fourier transform", HOST),
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


@dataclass
class LayerVerdict:
    """One layer: what is wrong with it (nothing if empty), and what replaces it.

    weights: as it is; dense: as the chip would hold it, 0 when the microcontroller does.
    columns: of weight memory; layers: of the chip's 32 that it would take.
    inputs: shapes of the signals that it reads, context included, without the batch; output: of
    what it makes. activation_bytes: of both.
    """

    name: str
    operation: str
    violations: list = field(default_factory=list)
    replacement: str = ""
    weights: int = 0
    dense: int = 0
    columns: int = 0
    layers: int = 0
    inputs: tuple = ()
    output: tuple = ()

    @property
    def activation_bytes(self) -> int:
        return sum(map(math.prod, (*self.inputs, self.output)))

    def refuse(self, what: str, instead: str) -> None:
        self.violations.append(what)
        self.replacement = "; ".join(filter(None, [self.replacement, instead]))


def check(name: str | Path) -> dict[str, Any]:
    """Check the model, YAML configuration or export `name`; a dict that fits into JSON.

    `layers`: a dict per layer, see `LayerVerdict`; `totals`, `limits`; `violations`: lines, empty
    when the chip can run the model. Raises SepcliError when there is no such model.
    """
    if (Path(name) / "network.yaml").is_file():
        return _about(name, "export", [], {}, problems(name))
    model: Any
    if Path(name).suffix in (".yaml", ".yml"):
        architecture, model, _ = configured(name)
    else:
        model, card = load_model(name)
        architecture = card.model
    if model.chip == NAME:
        return _made_for_the_chip(name, architecture, model)
    rows = list(_rows(record(model)))
    dense = sum(row.dense for row in rows)
    totals = {
        "layers": sum(row.layers for row in rows),
        "weights": sum(row.weights for row in rows),
        "weights_all": dense + sum(row.weights for row in rows if not row.dense),
        "weights_dense": dense,
        "columns": limits.stacked(row.columns for row in rows),
    }
    if model.causal:
        totals["state_bytes"] = sum(x.numel() for x in flat(model.initial_state(1)))
    lines = [f"{row.name}: {what}" for row in rows for what in row.violations]
    return _about(name, architecture, rows, totals, lines)


def _made_for_the_chip(name, architecture, model):
    """The same for a model of which the chip's part is known: does the export succeed?"""
    try:
        _, report = build(model, name=str(name))
    except SepcliError as error:
        return _about(name, architecture, [], {}, [str(error)])
    totals = report["totals"]
    known = {"layers": totals["layers"], "columns": totals["columns"]}
    known |= dict.fromkeys(("weights", "weights_all", "weights_dense"), totals["weight_bytes"])
    shapes = {"input": report["layers"][0]["input_shape"]}
    shapes |= {row["name"]: row["output_shape"] for row in report["layers"]}
    rows = [
        LayerVerdict(
            row["name"],
            row["operation"],
            inputs=tuple(tuple(shapes[source]) for source in row["inputs"]),
            output=tuple(row["output_shape"]),
        )
        for row in report["layers"]
    ]
    return _about(name, architecture, rows, known, [])


def _about(name, architecture, rows, totals, lines):
    most = {
        "layers": limits.LAYERS,
        "weights_dense": limits.WEIGHT_BYTES,
        "columns": limits.COLUMNS,
    }
    what = {"layers": "layers", "weights_dense": "bytes of weights", "columns": "weight columns"}
    over = [
        f"in all: {totals[key]:,} {what[key]}, the chip has {most[key]:,}"
        for key in most
        if totals.get(key, 0) > most[key]
    ]
    return {
        "model": str(name),
        "architecture": architecture,
        "device": "MAX78000",
        "layers": [vars(row) | {"activation_bytes": row.activation_bytes} for row in rows],
        "totals": totals,
        "limits": most,
        "violations": lines + over,
    }


def _rows(operations):
    """Turn what was recorded into `LayerVerdict`s; what only moves numbers is left out."""
    before = None
    for operation in operations:
        row = _row(operation, before)
        if row is not None:
            signals = zip(operation.shapes, operation.parameters, strict=True)
            row.inputs = tuple(s[1:] for s, known in signals if s and len(s) > 1 and not known)
            row.output = operation.output[1:]
            yield row
            before = operation.name


def _row(operation, before):
    """The row of one operation, or None; `before` is the name of the one in the row before."""
    kind, shapes = operation.name, operation.shapes
    name = operation.module or f"(after {before or 'the start'})"
    if kind == "convolution":
        return _convolution(operation, name)
    if kind in PRODUCTS:
        return _product(operation, name)
    if kind in OTHERS:
        what, instead = OTHERS[kind]
        row = LayerVerdict(name, what)
        if kind == "mkldnn_rnn_layer":
            row.weights = sum(_parameters(operation, 2))
        row.refuse(f"{what}: the chip has none", instead)
        return row
    if kind in NORMS:
        row = LayerVerdict(name, "batch norm", replacement="folds into the convolution")
        if before != "convolution":
            row.replacement = ""
            row.refuse(
                "batch norm after an activation cannot be folded",
                "norm_first: true, and train again",
            )
        return row
    both = len(shapes) > 1 and None not in shapes[:2] and not any(operation.parameters[:2])
    if kind in ("mul", "div") and both and min(map(len, shapes[:2])) > 1:
        row = LayerVerdict(name, "product")
        row.refuse("product of two signals: the chip has sums only", f"{HOST}, after the network")
        return row
    if kind in ("add", "sub") and both and shapes[0] == shapes[1] and len(shapes[0]) > 2:
        return LayerVerdict(
            name, "sum", replacement="a copy and an Add; operands on one scale", layers=2
        )
    if kind == "relu":
        return LayerVerdict(name, "ReLU")
    return None


def _parameters(operation, dimensions):
    """Sizes of the parameters with so many dimensions that go into an operation."""
    for shape, known in zip(operation.shapes, operation.parameters, strict=True):
        if known and len(shape) == dimensions:
            yield math.prod(shape)


def _product(operation, name):
    """A product with a matrix: of weights, or of two signals."""
    row = LayerVerdict(name, "matrix product")
    row.weights = sum(_parameters(operation, 2))
    if row.weights:
        row.refuse("matrix product outside a convolution", f"{HOST}, or a 1x1 convolution")
    else:
        row.refuse("product of two signals", "no replacement: use another architecture")
    return row


def _convolution(operation, name):
    """A convolution: what of it the chip has, and what it costs when it is made so."""
    weight = operation.shapes[1]
    stride, padding, dilation, transposed, _, groups = operation.arguments[3:]
    sizes, dimensions = weight[2:], len(weight) - 2
    row = LayerVerdict(name, _describe(weight, stride, dilation, transposed, groups))
    row.weights = math.prod(weight)
    if transposed:
        row.refuse("transposed convolution: the chip has none for one dimension", HOST)
        return row
    if dimensions == 1 and stride[0] > 1:
        folded = f"; or fold {stride[0]} samples into {stride[0]} channels, which is exact"
        exact = sizes[0] % stride[0] == 0 and weight[1] * groups == 1
        row.refuse(f"stride {stride[0]}: the chip has 1", HOST + folded * exact)
        return row
    if any(n > 1 for n in stride):
        row.refuse(f"stride {_times(stride)}: the chip has 1", "pooling, and train again")
    row.dense, row.layers = row.weights * groups, 1
    if groups > 1:
        row.refuse(
            f"{groups} groups: the chip has 1",
            f"a dense convolution, {row.weights:,} -> {row.dense:,} weights",
        )
    if dimensions == 2:
        if tuple(sizes) not in ((1, 1), (3, 3)):
            row.refuse(f"kernel {_times(sizes)}: the chip has 1x1 and 3x3", "3x3, and train again")
        taps, spread = math.prod(sizes), 1
    else:
        taps, spread = sizes[0], dilation[0]
        _length(row, taps, spread)
    if any(n > limits.PAD for n in padding):
        row.refuse(f"padding {_times(padding)}: the chip has up to {limits.PAD}", "past frames")
    inputs, outputs = weight[1] * groups, weight[0]
    if max(inputs, outputs) > limits.CHANNELS:
        row.refuse(f"{max(inputs, outputs):,} channels: the chip has {limits.CHANNELS:,}", "fewer")
    row.columns = limits.columns(inputs, outputs, taps, spread)
    return row


def _length(row, taps, dilation):
    """Refuse what no kernel of the chip spans."""
    if taps > limits.TAPS:
        row.refuse(f"{taps} taps: the chip has up to {limits.TAPS}", "several layers")
    if limits.emulated(taps, dilation) and taps > 3:
        row.refuse(
            f"{taps} taps with dilation {dilation}: the chip has 3 taps where it spans more than "
            f"{limits.TAPS} frames",
            "3 taps and more layers, and train again",
        )
    if dilation > limits.DILATION:
        row.refuse(f"dilation {dilation}: the chip has up to {limits.DILATION}", "less")


def _describe(weight, stride, dilation, transposed, groups):
    """Such as `Conv1d 64->64, kernel 3, dilation 4, 64 groups`."""
    inputs, outputs = weight[1] * groups, weight[0]
    if transposed:
        inputs, outputs = weight[0], weight[1] * groups
    parts = [f"Conv{'Transpose' * transposed}{len(weight) - 2}d {inputs}->{outputs}"]
    parts.append(f"kernel {_times(weight[2:])}")
    for label, values in (("stride", stride), ("dilation", dilation)):
        if any(n > 1 for n in values):
            parts.append(f"{label} {_times(values)}")
    return ", ".join(parts + [f"{groups} groups"] * (groups > 1))


def _times(sizes):
    return "x".join(map(str, sizes))


def table(about: dict[str, Any]) -> str:
    """What `check` found, for people."""
    rows = [row for row in about["layers"] if row["violations"]]
    width = max((len(row["name"]) for row in rows), default=0)
    lines = [
        f"{row['name']:{width}}  {'; '.join(row['violations'])} -> {row['replacement']}"
        for row in rows
    ]
    totals, most = about["totals"], about["limits"]
    lines += _activations(about)
    if rows:
        lines += [
            "",
            f"With these {len(rows)} of {len(about['layers'])} layers replaced, "
            f"{totals['weights']:,} weights become {totals['weights_all']:,}; on the chip are",
        ]
    if totals:
        lines += [
            f"{totals['weights_dense']:>9,} bytes of weights, of {most['weights_dense']:,}",
            f"{totals['columns']:>9,} columns of weights per processor, of {most['columns']:,}",
            f"{totals['layers']:>9,} layers, of {most['layers']:,}",
        ]
    else:
        lines += about["violations"]
    if not about["violations"]:
        return "\n".join([*lines, f"{about['model']} can run on the MAX78000."])
    lines.append(f"{about['model']} cannot run on the MAX78000 as it is.")
    return "\n".join(lines)


def _activations(about):
    """Lines on what each layer reads and writes, and what is kept from hop to hop."""
    rows = about["layers"]
    if not rows:
        return []
    cells = [
        (row["name"], " + ".join(map(_times, row["inputs"])), _times(row["output"]), row)
        for row in rows
    ]
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]
    lines = ["", "Activations: what each layer reads, context included, and makes, in 8 bits"]
    for name, read, made, row in cells:
        sizes = f"{read:{widths[1]}}  {made:{widths[2]}}  {row['activation_bytes']:>9,} bytes"
        lines.append(f"{name:{widths[0]}}  {sizes}  {row['operation']}")
    largest = max(rows, key=lambda row: row["activation_bytes"])
    lines.append(f"{largest['activation_bytes']:>9,} bytes at most, in {largest['name']}")
    if "state_bytes" in about["totals"]:
        lines.append(f"{about['totals']['state_bytes']:>9,} bytes of past, kept from hop to hop")
    return lines
