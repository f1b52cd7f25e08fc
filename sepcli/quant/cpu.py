"""The target `cpu`: any causal model in 8 bits, as processors and ONNX Runtime compute.

The twin is the model's own program, traced, with batch norm folded and every layer replaced by one
of `quant/layers.py`. Tensors between layers have 8 bits and a zero point. 16 bits have what comes
in (recorded sound has as many), and what masks are multiplied with and give where sound comes out
of it. What is neither a layer nor moves numbers about stays in floating point: the Fourier
transform, the compression of magnitudes before the first layer, masking a spectrum after the last.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from sepcli.errors import SepcliError
from sepcli.nn.causal import CausalModel, SpectralModel, flat, nested
from sepcli.nn.model import State
from sepcli.nn.runner import RUNNER
from sepcli.quant.convolution import Conv
from sepcli.quant.integers import shift_half_even
from sepcli.quant.layers import Enter, Layer, Leave
from sepcli.quant.rewriting import Rewriting, rebuild
from sepcli.quant.targets import LayerCost
from sepcli.quant.tracing import symbolic

NAME = "cpu"
QDQ = True
BUDGET = None


class Twin(CausalModel):
    """The fake-quantised twin of a model of waveforms."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        rewriting = Rewriting(symbolic(model), model.front_end == "waveform")
        self.graph, self.grids = rebuild(rewriting), nn.ModuleList(rewriting.grids)
        for name in (*RUNNER, "front_end", "receptive_field"):
            setattr(self, name, getattr(model, name))
        self.like = model.core_state(1)
        states = [node for node in rewriting.nodes if node.op == "placeholder"][1:]
        self.states_on = [rewriting.grid(node) for node in states]
        self.integers = False  # whether states on grids are codes, as between `Integer` layers

    def states(self, batch: int = 1, *_: Any) -> State:
        """Zeros as the state of the core."""
        zeros = []
        for one, grid in zip(flat(self.like), self.states_on, strict=True):
            kind = torch.int32 if self.integers and grid is not None else torch.float32
            zeros.append(torch.zeros(batch * len(one), *one.shape[1:], dtype=kind))
        return nested(self.like, iter(zeros))

    def run_graph(self, x: torch.Tensor, state: Any, *_: Any) -> tuple[torch.Tensor, State]:
        """The output of the core, and its next state."""
        y, *following = self.graph(x, *flat(state))
        return y, nested(self.like, iter(following))

    initial_state, step = states, run_graph


class SpectralTwin(Twin, SpectralModel):
    """The fake-quantised twin of a model between an STFT and its inverse."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.stft = copy.deepcopy(model.stft)

    def core_state(self, batch: int = 1, *_: Any) -> State:
        return self.states(batch)

    def core(self, x: torch.Tensor, state: Any, *_: Any) -> tuple[torch.Tensor, State]:
        return self.run_graph(x, state)

    initial_state, step = SpectralModel.initial_state, SpectralModel.step


def prepare(model: Any) -> Twin:
    """The fake-quantised twin of a causal model; see `quant/targets.py`."""
    if not model.causal:
        raise SepcliError("the model is not causal; only causal models can be quantised")
    model = copy.deepcopy(model).cpu().eval()
    return (SpectralTwin if model.front_end == "stft" else Twin)(model).eval()


def layers(twin: Twin) -> list[LayerCost]:
    """What the report says of each layer; see `quant/targets.py`."""
    kept: dict[Any, int] = {}  # the bytes of the past on each grid
    for state, wire in zip(flat(twin.like), twin.states_on, strict=True):
        kept[wire] = kept.get(wire, 0) + state.numel() * (4 if wire is None else _bytes(wire))
    rows = []
    for node in twin.graph.graph.nodes:
        if node.op != "call_module":
            continue
        layer: Any = twin.graph.get_submodule(node.target)
        if isinstance(layer, Leave):
            continue
        out = layer.grids[-1]
        shape = _shape(node)
        rows.append(
            LayerCost(
                name=node.target,
                op=layer.kind if isinstance(layer, Conv) else type(layer).__name__,
                inputs=tuple(_shape(source) for source in node.args),
                outputs=shape,
                weight_bytes=layer.bytes,
                activation_bytes=math.prod(shape) * _bytes(out) + kept.pop(out, 0),
            )
        )
    return rows


def _shape(node):
    """The shape of one item at a node, for one hop."""
    return tuple(node.meta["tensor_meta"].shape[1:])


def _bytes(grid):
    """Bytes of a number on a grid, or of a float32."""
    return 4 if grid is None else grid.bits // 8


class Integer(nn.Module):
    """A layer of a twin in numpy's integers: codes in, codes out, int32."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.grids = layer, layer.grids
        if isinstance(layer, Enter | Leave):
            return
        constants, self.shift = layer.constants()
        self.constants = [_as_integers(constant.detach().numpy()) for constant in constants]
        out = self.grids[-1]
        self.bounds = None if out is None else [int(bound) for bound in out.bounds]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, Enter):
            return self.grids[0].codes(inputs[0]).to(torch.int32)
        if isinstance(self.layer, Leave):
            return inputs[0].float() * self.grids[0].scale
        codes = [x.numpy().astype(np.int64) for x in inputs]
        total = self.layer.total(np, *codes, *self.constants)
        if self.bounds is None:
            return torch.from_numpy(total.astype(np.float32))
        whole = total.dtype.kind == "i"
        total = shift_half_even(total, self.shift) if whole else np.rint(total)
        return torch.from_numpy(total.clip(*self.bounds).astype(np.int32))


def _as_integers(numbers):
    return numbers.astype(np.int64) if (numbers == np.rint(numbers)).all() else numbers


class IntegerRunner:
    """The twin computed in integers, as a runner; what floating point does, torch does."""

    engine = "integer"

    def __init__(self, twin: Twin) -> None:
        self.model = copy.deepcopy(twin).eval()
        self.model.integers = True
        for name, layer in list(self.model.graph.named_modules()):
            if isinstance(layer, Layer):
                self.model.graph.set_submodule(name, Integer(layer))
        for name in RUNNER:
            setattr(self, name, getattr(twin, name))

    def initial_state(self, batch: int = 1) -> Any:
        return self.model.initial_state(batch)

    @torch.inference_mode()
    def step(self, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        y, state = self.model.step(torch.from_numpy(x), state)
        return y.numpy(), state


def integer(twin: Twin) -> IntegerRunner:
    """The twin in numpy integers; see `quant/targets.py`."""
    return IntegerRunner(twin)
