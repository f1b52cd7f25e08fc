"""Write a causal model's streaming graph as ONNX, and check that it computes the same."""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.inference.onnx import FORMAT, OnnxRunner
from sepcli.inference.stream import TorchRunner
from sepcli.models.modelfile import Card, digest, load_model
from sepcli.nn.causal import flat, nested
from sepcli.nn.runner import Runner

TOLERANCE = 1e-4  # largest difference to torch
SMALLEST_HALVED = 1024  # values of a weight; what a cast takes is not worth it for fewer
CHUNKS = ((1, 1), (1, 7), (3, 2))  # (batch, hops) to check
LOUD = 0.1  # RMS of the noise to check with
LEVELS = (0.0, 1e-7, 1e-4, LOUD, LOUD, LOUD)  # rising: what is in the window is never louder


class StreamingGraph(nn.Module):
    """The exported form of a model as a function of tensors: (x, *states) to (y, *next states)."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form, self.like = form, form.core_state(1)

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, following = self.form.core(x, nested(self.like, iter(states)))
        return (y, *flat(following))


def export(name: str | Path, path: str | Path) -> dict[str, Any]:
    """Write the streaming graph of the model `name` (see `modelfile.locate`) to `path`.

    Returns a dict with `max_difference`, the largest one to torch on noise. Raises SepcliError
    when the model is not causal, cannot be exported, or the graph computes something else.
    """
    model: Any
    model, card = load_model(name)
    if card.quantized and card.quantized["target"] == "cpu":
        raise SepcliError(f"{name}: quantised; sepcli quantize wrote its graph beside it")
    runner = TorchRunner(model)
    form, path = model.exported(), Path(path)
    with files.replacing(path, ending=f"{files.ENDING}.onnx") as part:
        part.write_bytes(encode(model, form, about(model, form, card)))
        difference = largest_difference(runner, OnnxRunner(part), LEVELS)
        if not difference <= TOLERANCE:
            raise SepcliError(
                f"{name}: the exported graph differs from the model by {difference:.2g}, over "
                f"{TOLERANCE:g}; it was not written"
            )
    return {
        "file": str(path),
        "model": card.model,
        "bytes": path.stat().st_size,
        "states": len(flat(form.core_state(1))),
        "max_difference": difference,
    }


def about(model: Any, form: Any, card: Card) -> dict[str, Any]:
    """What a runner has to know of a graph; see `inference/onnx.py`."""
    states = flat(form.core_state(1))
    if any(state.any() for state in states):
        raise SepcliError(f"{card.path}: its states do not start at zero; it cannot be exported")
    known = {
        "format": FORMAT,
        "model": card.model,
        "sha256": digest(card.path),
        "sample_rate": model.sample_rate,
        "sources": list(model.sources),
        "channels": model.channels,
        "hop": model.hop,
        "delay": model.delay,
        "consistent": model.consistent,
        "front_end": model.front_end,
        "hops": form.hops,
        "states": [list(state.shape) for state in states],
    }
    if model.front_end == "stft":
        windows = {key: getattr(model.stft, key).tolist() for key in ("window", "synthesis_window")}
        known["stft"] = {**windows, "stride": model.stft.stride}
    return known


def encode(model: Any, form: Any, known: dict[str, Any]) -> bytes:
    """The bytes of the ONNX graph of the model's exported form, with `known` as its metadata."""
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter asks for it much later
    except ImportError as error:
        raise SepcliError(
            f"exporting needs {error.name}, which is not installed: pip install 'sepcli[export]'"
        ) from None
    graph = to_onnx(model, form)
    for function in (graph.graph, *graph.functions):  # where each line of the model's code lies
        for node in function.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
        for value in function.value_info:
            del value.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    store_in_halves(graph.graph)
    onnx.helper.set_model_props(graph, {"sepcli": json.dumps(known, sort_keys=True)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def store_in_halves(graph: Any) -> None:
    """Keep large weights that 16-bit floats hold exactly as such, and cast them to 32 bits.

    A session does that once, when it starts: it computes the same, and the file is smaller.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        name, values = weight.name, numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves, values):
            weight.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def to_onnx(model: Any, form: Any) -> Any:
    """The form as an onnx.ModelProto, for any batch and any number of hops, or the form's own."""
    from onnxscript import optimizer

    batch, hops = 3, form.hops or 5  # unlike each other and 1, which would be taken for constants
    states = flat(form.core_state(batch))
    if model.front_end == "stft":
        x, time = torch.randn(batch, 2, model.stft.kernel // 2 + 1, hops), 3
    else:
        x, time = torch.randn(batch, model.channels, hops * model.hop), 2
    auto = torch.export.Dim.AUTO
    with quiet():
        program = torch.onnx.export(
            fusible(StreamingGraph(copy.deepcopy(form))).eval(),
            (x, *states),
            input_names=["x", *(f"state{i}" for i in range(len(states)))],
            output_names=["y", *(f"next{i}" for i in range(len(states)))],
            dynamic_shapes=(
                {0: auto} if form.hops else {0: auto, time: auto},
                tuple({0: auto} for _ in states),
            ),
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,  # it takes an addition of 1e-10 for one of nothing, and drops it
        )
        assert program is not None  # with dynamo
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    return program.model_proto


def fusible(module: nn.Module) -> Any:
    """Turn PReLUs of one slope into LeakyReLUs, which ONNX Runtime joins to convolutions."""
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU) and child.num_parameters == 1:
            setattr(module, name, nn.LeakyReLU(float(child.weight.detach())))
        else:
            fusible(child)
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings about itself and packages that it does not need from view."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def largest_difference(
    runner: Runner, other: Runner, levels: Sequence[float] = (LOUD, LOUD, LOUD)
) -> float:
    """The largest difference between two runners' outputs on the same noise, state and all.

    levels: RMS of the noise, one after the other. That of soft output counts as if it were loud:
    what is added to a power shows there alone.
    """
    rng, largest = np.random.default_rng(0), 0.0
    for batch, hops in CHUNKS:
        states = [one.initial_state(batch) for one in (runner, other)]
        for level in levels:
            shape = (batch, runner.channels, hops * runner.hop)
            x = np.float32(level) * rng.standard_normal(shape, np.float32)
            outputs = []
            for i, one in enumerate((runner, other)):
                y, states[i] = one.step(x, states[i])
                outputs.append(y)
            difference, peak = (
                float(np.abs(y).max()) for y in (outputs[0] - outputs[1], outputs[0])
            )
            largest = max(largest, difference * max(1.0, LOUD / peak if peak else 0.0))
    return largest
