"""Turn a model into one that computes with whole numbers of 8 bits, and say what that costs.

A target is a module that knows one kind of hardware; TARGETS names it. It offers

NAME                    as in TARGETS.
prepare(model)          the fake-quantised twin of a causal model, in eval mode: a module with the
                        same attributes (`sample_rate`, `sources`, `channels`, `hop`, `delay`,
                        `front_end`, ...), `forward`, `initial_state` and `step`, with batch norm
                        folded. Its structure, and so the names of its `state_dict`, depends on the
                        architecture alone: `prepare(build(name, **settings))` can load what an
                        earlier twin saved. All that it computes with, scales too, is in parameters
                        and buffers. `model` is not changed. Raises SepcliError, naming the layer,
                        when the target cannot run the model.
                        Ranges are `nn.quant.Range`s, so `nn.quant.set_phase` steers the twin:
                        "observe" (calibration: floating point, ranges move while training),
                        "adapt" (fake-quantised, ranges move while training), "frozen" (as saved;
                        what a new twin is in). In eval mode nothing ever moves.
integer(twin)           a runner (see `engine/stream.py`: RUNNER, `initial_state(batch)` and
                        `step(x, state)` on float32 numpy arrays) that computes in numpy integers,
                        and gives what the frozen twin gives in eval mode, bit for bit.
layers(twin)            a list of `Layer`, in the order in which they run.
write_more(twin, card, path)
                        write what belongs beside the model file `path`, which exists already, and
                        return a dict of what there is to say about it, {} if nothing.
"""

from dataclasses import dataclass
from importlib import import_module

from sepcli.errors import SepcliError

TARGETS = {
    "cpu": "sepcli.engine.quantize_cpu",
    "max78000": "sepcli.engine.quantize_max78000",
}


@dataclass(frozen=True)
class Layer:
    """A layer for the report: what it is and what it keeps in memory.

    inputs, outputs: shapes of one item without time, such as (64,) channels. weight_bytes: of
    weights and biases. activation_bytes: of its output for one frame, and of the past it keeps.
    """

    name: str
    op: str
    inputs: tuple
    outputs: tuple
    weight_bytes: int
    activation_bytes: int


def target_module(name):
    """The module of the target called `name`; raises SepcliError naming the known ones."""
    if name not in TARGETS:
        raise SepcliError(f"unknown target {name!r}; choose from {', '.join(TARGETS)}")
    return import_module(TARGETS[name])
