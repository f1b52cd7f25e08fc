"""A fake-quantised twin as an ONNX graph of QuantizeLinear and DequantizeLinear: 8-bit QDQ.

Activations are uint8, weights int8 per output channel, biases int32, which is what ONNX Runtime
turns into kernels for integers. It rescales in float32, so a code may be off by one where a result
lies beside a half. Weights beside 8-bit tensors have codes from -64 to 64 (see
`quant/convolution.py`), so that kernels which add two products in 16 bits do not saturate. Tensors
of 16 bits are rounded in floating point.
"""

import copy
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of 8 bits
from torch import nn
from torch.nn import functional as F

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.graphs import export
from sepcli.graphs.onnx import OnnxRunner
from sepcli.nn.runner import CHUNK_MS, TorchRunner, whole_hops
from sepcli.quant import layers
from sepcli.quant.convolution import CONVOLUTIONS, Conv

TOLERANCE = 1e-2  # largest difference to the twin: codes that are off by one add up
SECONDS = 4.0  # of noise that graphs are timed with
TURNS = 5
PACKAGES = ("onnx", "onnxscript")


class Qdq(nn.Module):
    """A layer as ONNX describes it: in floating point, between roundings.

    again: whether an input is to be rounded once more, being joined from several tensors; it stays
    the same, but only so does a convolution become one of integers.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    bias_scale: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, layer: Any, again: bool = False) -> None:
        super().__init__()
        self.layer: Any = layer
        self.again = again
        self.grids: list[Any] = [_numbers(grid) for grid in layer.grids]
        if isinstance(layer, layers.Rescale):
            plain = len(layer.negative) == 1 and layer.positive == 1 and layer.offset == 0
            self.slope = float(layer.negative) if plain else None
        if isinstance(layer, Conv):
            codes, bias, _ = layer.constants()[0]
            repeats = layer.outputs // len(layer.weight_scale)
            scales = layer.weight_scale.repeat(repeats) * layer.grids[0].scale
            self.register_buffer("codes", codes.detach().to(torch.int8))
            self.register_buffer("scale", layer.weight_scale.clone())
            self.register_buffer("bias", bias.detach().to(torch.int32))
            self.register_buffer("bias_scale", scales)
            self.register_buffer("zeros", torch.zeros(layer.outputs, dtype=torch.int64))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        layer, out = self.layer, self.grids[-1]
        if isinstance(layer, layers.Leave):
            return inputs[0]
        if self.again:
            inputs = tuple(on_grid(x, *g) for x, g in zip(inputs, self.grids, strict=False))
        if isinstance(layer, layers.Enter):
            y = inputs[0]
        elif isinstance(layer, Conv):
            y = self._convolve(*inputs)
        elif isinstance(layer, layers.Rescale):
            slope = self.slope  # a leaky ReLU has a kernel for integers
            y = layer.real(*inputs) if slope is None else F.leaky_relu(inputs[0], slope)
        else:
            y = layer.real(*inputs)
        return y if out is None else on_grid(y, *out)

    def _convolve(self, x):
        ops, layer = torch.ops.quantized_decomposed, self.layer
        zeros = self.zeros[: len(self.scale)]
        weight = ops.dequantize_per_channel(
            self.codes, self.scale, zeros, layer.axis, -128, 127, torch.int8
        )
        bias = ops.dequantize_per_channel(
            self.bias, self.bias_scale, self.zeros, 0, -(2**31), 2**31 - 1, torch.int32
        )
        if layer.kind == "product":
            y = x @ weight + bias
        else:
            y = CONVOLUTIONS[layer.kind](x, weight, bias, **layer.options)
        return y.relu() if layer.relu else y


def _numbers(grid):
    """(bits, scale, zero point) of a grid, as Python's numbers."""
    if grid is None:
        return None
    return grid.bits, float(grid.scale), -int(grid.bounds[0]) if grid.bits == 8 else 0


def on_grid(x: torch.Tensor, bits: int, scale: float, zero: int) -> torch.Tensor:
    """Values rounded to a grid, as ONNX writes it."""
    if bits == 16:
        return (x / scale).round().clamp(-32767, 32767) * scale
    ops, about = torch.ops.quantized_decomposed, (scale, zero, 0, 255, torch.uint8)
    return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *about), *about)


def as_qdq(twin: Any) -> Any:
    """A copy of a twin that torch exports as QDQ."""
    twin = copy.deepcopy(twin).eval().requires_grad_(False)
    for node in list(twin.graph.graph.nodes):
        layer = twin.graph.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, layers.Layer):
            moved = isinstance(layer, Conv) and node.args[0].op != "call_module"
            twin.graph.set_submodule(node.target, Qdq(layer, again=moved))
    return twin


def without_rounding(data: bytes) -> bytes:
    """The bytes of the graph that computes the same as a QDQ graph, but rounds nothing."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = {node.input[0]: node for node in graph.node if node.input}
    stored = {one.name: one for one in graph.initializer}
    same = {}  # a tensor -> the one that takes its place
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            scale = node.input[1] if node.input[1] in stored else makers[node.input[1]].input[0]
            weights = dequantised(node, *(stored[name] for name in (node.input[0], scale)))
            graph.initializer.append(weights)
        elif node.op_type == "DequantizeLinear":
            same[node.output[0]] = makers[node.input[0]].input[0]
        elif node.op_type == "Round":  # between a division and a multiplication; see `on_grid`
            last = node
            while last.op_type != "Mul":
                last = readers[last.output[0]]
            same[last.output[0]] = makers[node.input[0]].input[0]

    def plain(name):
        return plain(same[name]) if name in same else name

    ends = [one.name for one in graph.output]
    nodes = [n for n in graph.node if n.op_type != "DequantizeLinear" and n.output[0] not in same]
    nodes += [onnx.helper.make_node("Identity", [name], [name]) for name in ends if name in same]
    needed, used = set(ends), []
    for node in reversed(nodes):
        node.input[:] = map(plain, node.input)
        if needed.intersection(node.output):
            used.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(used))
    return model.SerializeToString()


def dequantised(node: Any, codes: Any, scale: Any) -> Any:
    """What a DequantizeLinear makes of stored codes without a zero point, as a stored tensor."""
    from onnx.numpy_helper import from_array, to_array

    codes, axis = to_array(codes), next((a.i for a in node.attribute if a.name == "axis"), 0)
    shape = [1] * codes.ndim
    shape[axis] = -1
    return from_array(codes.astype(np.float32) * to_array(scale).reshape(shape), node.output[0])


def write(twin: Any, card: Any, path: Path) -> dict[str, Any]:
    """Write the QDQ graph of a twin to `path`; compare it with the twin, and time it.

    Returns what there is to say: `max_difference` to the twin on noise; for all of `SECONDS` at
    once and in chunks of 10 ms the milliseconds that the graph takes, and that of the same network
    in float32 does, batch norm folded there as well, each the least of some turns; `speedup`, which
    is below 1 where integers are slower. Without the packages that write ONNX, only says so.
    """
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        return {"skipped": f"needs {missing[0]}: pip install 'sepcli[export]'"}
    ending = f"{files.ENDING}.onnx"
    with files.replacing(path, ending=ending) as part, TemporaryDirectory() as folder:
        form, floating = as_qdq(twin), Path(folder, "float32.onnx")
        known = export.about(twin, form, card) | {"tolerance": TOLERANCE}
        part.write_bytes(export.encode(twin, form, known))
        floating.write_bytes(without_rounding(part.read_bytes()))
        ours, theirs = OnnxRunner(part), OnnxRunner(floating)
        noise = _noise(twin)
        exact = _run(TorchRunner(twin), noise, noise.shape[2])
        difference = np.abs(_run(ours, noise, noise.shape[2]) - exact).max()
        if not difference <= TOLERANCE:
            raise SepcliError(f"{path}: differs from the model by {difference:.2g}; not written")
        sizes = {"whole": noise.shape[2], "chunks": whole_hops(CHUNK_MS, twin)}
        times = {name: _times((ours, theirs), noise, size) for name, size in sizes.items()}
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "max_difference": float(difference),
        "seconds": SECONDS,
        **times,
    }


def _noise(twin):
    hops = int(SECONDS * twin.sample_rate / twin.hop)
    shape = (1, twin.channels, hops * twin.hop)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def _run(runner, audio, chunk):
    state, parts = runner.initial_state(1), []
    for at in range(0, audio.shape[2] - chunk + 1, chunk):
        y, state = runner.step(np.ascontiguousarray(audio[..., at : at + chunk]), state)
        parts.append(y)
    return np.concatenate(parts, -1)


def _times(runners, audio, chunk):
    """The shortest time that (integers, float32) take for the audio, in turns."""
    least = [np.inf, np.inf]
    for _ in range(TURNS):
        for i, runner in enumerate(runners):
            start = time.perf_counter()
            _run(runner, audio, chunk)
            least[i] = min(least[i], 1000 * (time.perf_counter() - start))
    return {"int8_ms": least[0], "float32_ms": least[1], "speedup": least[1] / least[0]}
