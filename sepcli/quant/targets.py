"""Targets of quantisation: what each knows of one kind of hardware, and what it offers.

A target is a module; TARGETS names it. It offers

NAME                    as in TARGETS.
prepare(model)          the fake-quantised twin of a causal model, in eval mode: a module with the
                        same attributes (`sample_rate`, `sources`, `channels`, `hop`, `delay`,
                        `front_end`, ...), `forward`, `initial_state` and `step`, with batch norm
                        folded. Its structure, and so the names of its `state_dict`, depends on the
                        architecture alone: `prepare(build(name, **settings))` can load what an
                        earlier twin saved. All that it computes with, scales too, is in parameters
                        and buffers. `model` is not changed. Raises SepcliError, naming the layer,
                        when the target cannot run the model.
                        Ranges are `grids.TensorRange`s, so `grids.set_phase` steers the twin:
                        "observe" (calibration: floating point, ranges move while training),
                        "adapt" (fake-quantised, ranges move while training), "frozen" (as saved;
                        what a new twin is in). In eval mode nothing ever moves.
integer(twin)           an `nn.runner.Runner` that computes in numpy integers, and gives what the
                        frozen twin gives in eval mode, bit for bit.
layers(twin)            a list of `LayerCost`, in the order in which they run.
BUDGET                  how many bytes of weights the hardware holds, None where any number does.
QDQ                     whether `graphs/qdq.py` can write the twin as a graph for ONNX Runtime.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sepcli.errors import SepcliError

TARGETS = {
    "cpu": "sepcli.quant.cpu",
    "max78000": "sepcli.quant.max78000",
}


@dataclass(frozen=True)
class LayerCost:
    """A layer of a twin: what it is and what it keeps in memory.

    inputs: the shape of each tensor it reads, and outputs: of what it makes, of one item and for
    one hop. weight_bytes: of weights, biases and multipliers. activation_bytes: of its output for
    one hop, and of the past that is kept of it.
    """

    name: str
    op: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    weight_bytes: int
    activation_bytes: int


def target_module(name: str) -> Any:
    """The module of the target called `name`; raises SepcliError naming the known ones."""
    if name not in TARGETS:
        raise SepcliError(f"unknown target {name!r}; choose from {', '.join(TARGETS)}")
    return import_module(TARGETS[name])
