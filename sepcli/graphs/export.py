"""Write a model as a graph for other programs, and check that it computes the same."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.graphs.forms import (
    LOUD,
    ConditionGraph,
    ResemblanceGraph,
    StreamingGraph,
    WholeGraph,
    example,
    given,
    growing,
    noise,
    repeated,
    whole_inputs,
)
from sepcli.graphs.onnx import (
    FORMAT,
    PROGRAM,
    OnnxRunner,
    Resemblance,
    condition_of,
    format_of,
    resemblance_of,
)
from sepcli.graphs.onnxfile import finished
from sepcli.graphs.tracing import FixedSizeError, check_packages, to_onnx, to_program
from sepcli.graphs.whole import OnnxWhole
from sepcli.models.modelfile import Card, load_model
from sepcli.nn.causal import flat
from sepcli.nn.model import expanded
from sepcli.nn.runner import Runner, TorchRunner

TOLERANCE = 1e-4  # largest difference to torch
CHUNKS = ((1, 1), (1, 7), (3, 2))  # (batch, hops) to check
LEVELS = (0.0, 1e-7, 1e-4, LOUD, LOUD, LOUD)  # rising: what is in the window is never louder
TRACED = 150  # frames of a signal to trace; fewer would be one of what a deep U-Net makes of 64
FIXED_S = 10.0  # length of offline graphs where the model does not allow any


def export(
    name: str | Path,
    path: str | Path,
    *,
    offline: bool = False,
    length_s: float | None = None,
    any_length: bool = False,
) -> dict[str, Any]:
    """Write the model `name` (see `modelfile.locate`) to `path` as ONNX, or as a program NAME.pt2.

    It is the streaming graph of a causal model, or, if `offline` or the model is not causal or it
    is a program, a graph for whole signals. length_s: seconds that this takes; None lets it take
    any length if the model does. any_length: whether it is an error if not. A model that takes
    references gets a second graph, of the condition, beside it, and one that tells voices apart a
    third one.

    Returns a dict with `max_difference`, the largest one to torch on noise. Raises SepcliError
    when the model cannot be exported, or the graph computes something else.
    """
    model: Any
    model, card = load_model(name)
    if card.quantized and card.quantized["target"] == "cpu":
        raise SepcliError(f"{name}: quantised; sepcli quantize wrote its graph beside it")
    path = Path(path)
    as_program = path.suffix == PROGRAM
    if not as_program:
        check_packages()
    reference, condition = example(model.requires_grad_(False))
    streaming = model.causal and not offline and not as_program
    with contextlib.ExitStack() as stack:
        ending = f"{files.ENDING}{format_of(path)}"
        part = stack.enter_context(files.replacing(path, ending=ending))
        beside = None
        if reference is not None:
            beside = stack.enter_context(files.replacing(condition_of(path), ending=ending))
            _condition(beside, model, model.exported() if streaming else None, card)
        if model.compares:
            third = stack.enter_context(files.replacing(resemblance_of(path), ending=ending))
            _resemblance(third, model, card, condition)
        write = _streaming if streaming else _offline
        found = write(model, card, part, beside, reference, condition, length_s)
        if any_length and found.get("length_s"):
            raise SepcliError(f"{name}: its graph is for signals of one length alone")
        if not found["max_difference"] <= TOLERANCE:
            raise SepcliError(
                f"{name}: the exported graph differs from the model by "
                f"{found['max_difference']:.2g}, over {TOLERANCE:g}; it was not written"
            )
    return {"file": str(path), "model": card.model, "bytes": path.stat().st_size, **found}


def _streaming(model, card, part, beside, reference, condition, _length_s):
    """Write the streaming graph to `part`; what there is to say of it."""
    form = model.exported()
    part.write_bytes(encode(model, form, about(model, form, card, condition), condition))
    ours, theirs = OnnxRunner(part, beside), model
    if beside:
        ours, theirs = ours.given([reference]), model.given(condition)
    return {
        "kind": "streaming",
        "states": len(flat(form.core_state(1, *given(condition)))),
        "max_difference": largest_difference(TorchRunner(theirs), ours, LEVELS),
    }


def _offline(model, card, part, beside, reference, condition, length_s):
    """Write the graph for whole signals to `part`; what there is to say of it."""
    length = length_s and max(1, round(length_s * model.sample_rate / model.hop)) * model.hop
    if length is None:
        with contextlib.suppress(FixedSizeError):
            difference = _whole(model, card, part, beside, reference, condition, None)
            if difference <= TOLERANCE:
                return {"kind": "offline", "length_s": None, "max_difference": difference}
        length = round(FIXED_S * model.sample_rate / model.hop) * model.hop
    difference = _whole(model, card, part, beside, reference, condition, length)
    length_s = length / model.sample_rate
    return {"kind": "offline", "length_s": length_s, "max_difference": difference}


def _whole(model, card, part, beside, reference, condition, length):
    """Write the graph for signals of so many samples, None for any; the difference to torch."""
    grown, hop, trials = growing(model, condition), model.hop, []
    if length is None:
        inputs = whole_inputs(model, condition, 3, TRACED * hop + 1)
        dynamic = [(0, inputs[0].ndim - 1), *((0, *dims) for dims in grown)]
        if part.suffix == PROGRAM:  # it keeps to what tracing assumed; a graph knows nothing of it
            sizes = ((2, 29), (4, 200))
            trials = [whole_inputs(model, condition, b, n * hop + 1) for b, n in sizes]
    else:
        inputs = whole_inputs(model, condition, 1, length)
        dynamic = [(), *grown]
    names = ["x", *(f"condition{i}" for i in range(len(grown)))]
    graph = WholeGraph(model, condition)
    known = facts(model, card) | {"kind": "offline", "length": length, "conditions": len(grown)}
    known["front_end"] = "waveform"
    if model.spectral:
        known |= {"front_end": "stft", "stft": transform(model)}
    _write(part, graph, inputs, dynamic, (names, ["y"]), known, trials)
    ours = OnnxWhole(part, beside)
    return whole_difference(model, ours.given([reference]) if beside else ours, condition)


def _condition(part, model, form, card):
    """Write the graph that makes a condition, and the first state of `form`."""
    graph = ConditionGraph(model, form)
    reference, *others = _signals(model)
    with torch.no_grad():
        outputs, count = graph(reference), len(flat(model.condition([reference])))
    names = [f"condition{i}" for i in range(count)]
    names += [f"state{i}" for i in range(len(outputs) - count)]
    known = facts(model, card) | {"kind": "condition", "conditions": count}
    trials = [[other] for other in others]
    _write(part, graph, [reference], [(2,)], (["reference"], names), known, trials)


def _resemblance(part, model, card, condition):
    """Write the graph that compares signals with a condition, and check it; raises SepcliError."""
    x, *others = _signals(model)
    graph, conditions = ResemblanceGraph(model, condition), repeated(condition, 1)
    dynamic = [(2,), *growing(model, condition)]
    names = ["x", *(f"condition{i}" for i in range(len(conditions)))]
    known = facts(model, card) | {"kind": "resemblance"}
    trials = [[other, *conditions] for other in others]
    _write(part, graph, [x, *conditions], dynamic, (names, ["y"]), known, trials)
    ours = Resemblance(part, card.sha256)
    for signal in (x, *others):
        with torch.no_grad():
            wanted = float(model.resemblance(signal, condition)[0])
        if (
            not abs(ours(signal.numpy(), [each.numpy() for each in conditions]) - wanted)
            < TOLERANCE
        ):
            raise SepcliError(f"{card.path}: its graph compares voices differently from the model")


def _signals(model):
    """Noise (1, C, T) of three lengths."""
    return [
        torch.from_numpy(noise(1, model.channels, round(seconds * model.sample_rate)))
        for seconds in (1.0, 0.6, 3.1)
    ]


def _write(part, graph, inputs, dynamic, names, known, trials):
    """Write a module that is traced with inputs to `part`, in the format of its name."""
    if part.suffix == PROGRAM:
        from sepcli.graphs.programs import write_program

        write_program(part, to_program(graph, inputs, dynamic, trials), known)
        return
    made = to_onnx(graph, inputs, dynamic, names, complexes=True, trials=trials)
    part.write_bytes(finished(made, known))


def facts(model: Any, card: Card) -> dict[str, Any]:
    """What a runner of any graph of a model has to know of it; see `graphs/onnx.py`."""
    return {
        "format": FORMAT,
        "model": card.model,
        "sha256": card.sha256,
        "sample_rate": model.sample_rate,
        "sources": list(model.sources),
        "channels": model.channels,
        "hop": model.hop,
        "segment_s": min(model.segment_s, model.longest_s or model.segment_s),
        "card": card.card,
        "settings": card.settings,
    }


def about(model: Any, form: Any, card: Card, condition: Any = None) -> dict[str, Any]:
    """What a runner has to know of a streaming graph; see `graphs/onnx.py`."""
    states = flat(form.core_state(1, *given(condition)))
    if condition is None and any(state.any() for state in states):
        raise SepcliError(f"{card.path}: its states do not start at zero; it cannot be exported")
    known = facts(model, card) | {
        "kind": "streaming",
        "delay": model.delay,
        "consistent": model.consistent,
        "front_end": model.front_end,
        "hops": form.hops,
        "states": [list(state.shape) for state in states],
        "conditions": len(flat(condition)) if condition is not None else 0,
    }
    if model.front_end == "stft":
        known["stft"] = transform(model)
    return known


def transform(model: Any) -> dict[str, Any]:
    """The transform of a spectral model, as the classes of `dsp/stft.py` take it."""
    stft = model.stft
    if not model.causal:
        return {"window": stft.window.tolist(), "hop": stft.hop}
    windows = {key: getattr(stft, key).tolist() for key in ("window", "synthesis_window")}
    return {**windows, "stride": stft.stride}


def encode(model: Any, form: Any, known: dict[str, Any], condition: Any = None) -> bytes:
    """The bytes of the streaming graph of the model's exported form, with `known` in it.

    It is for any batch and any number of hops, or the form's own.
    """
    check_packages()
    batch, hops = 3, form.hops or 5  # unlike each other and 1, which would be taken for constants
    states = flat(form.core_state(batch, *_expanded(condition, batch)))
    conditions = repeated(condition, batch)
    if model.front_end == "stft":
        x = torch.randn(batch, 2, model.stft.kernel // 2 + 1, hops)
    else:
        x = torch.randn(batch, model.channels, hops * model.hop)
    dynamic = [
        (0,) if form.hops else (0, x.ndim - 1),
        *[(0,)] * len(states),
        *((0, *dims) for dims in growing(model, condition)),
    ]
    inputs = ["x", *(f"state{i}" for i in range(len(states)))]
    inputs += [f"condition{i}" for i in range(len(conditions))]
    outputs = ["y", *(f"next{i}" for i in range(len(states)))]
    graph = StreamingGraph(form, condition)
    return finished(to_onnx(graph, (x, *states, *conditions), dynamic, (inputs, outputs)), known)


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


def whole_difference(model: Any, whole: OnnxWhole, condition: Any) -> float:
    """The largest difference of a graph for whole signals to the model, on noise."""
    largest, hop = 0.0, model.hop
    sizes = [(1, 1), (1, 40 * hop), (2, 7 * hop + 3), (2, 29 * hop + 1), (3, 200 * hop + 1)]
    for batch, length in sizes if whole.length is None else [(1, whole.length)]:
        x = noise(batch, model.channels, length)
        with torch.inference_mode():
            y = model.estimates(torch.from_numpy(x), *_expanded(condition, batch)).numpy()
        try:
            difference = np.abs(whole.run(x) - y).max()
        except SepcliError as error:
            raise FixedSizeError(str(error)) if whole.length is None else error from None
        largest = max(largest, float(difference) if np.isfinite(difference) else np.inf)
    return largest


def _expanded(condition: Any, batch: int) -> tuple[Any, ...]:
    return () if condition is None else (expanded(condition, batch),)
