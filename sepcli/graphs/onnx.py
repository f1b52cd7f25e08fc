"""Run a model's streaming graph with ONNX Runtime: no torch, one thread.

A graph has the inputs `x, state0, state1, ..., condition0, ...` and the outputs `y, next0, next1,
...`. Its metadata `sepcli` is the JSON object {"format", "kind": "streaming", "model", "sha256" (of
the weights' file), "sample_rate" (Hz), "sources", "channels", "hop", "delay" (samples),
"consistent", "front_end", "hops" (that it takes at a time; null: any number), "states" (shapes of
one item, zeros at first; the batch multiplies the first dimension), "conditions" (how many inputs
of these there are), "stft", "card" and "settings" (what the model file says)}, and of a quantised
model "tolerance". x and y are waveforms (B, C, k*hop) and (B, S, C, k*hop), or, for the front end
"stft", the spectra (B, 2, F, N) of the mixture and of the first source, and "stft" is {"window",
"synthesis_window", "stride"}.

A model that takes references has a second graph, NAME.condition.onnx of the kind "condition", from
`reference` (1, C, T) to `condition0, ...`, and to `state0, ...`, the states to begin with.
"""

import contextlib
import copy
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from sepcli import files
from sepcli.dsp.stft import ChunkedStft
from sepcli.errors import SepcliError
from sepcli.graphs import facts

FORMAT = 1
TOLERANCE = 1e-4  # largest difference to torch over a whole file
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


PROGRAM = ".pt2"  # ending of what torch.export writes; see `graphs/programs.py`
SUFFIXES = (".onnx", PROGRAM)

KINDS = {
    "streaming": "a streaming graph",
    "offline": "a graph for whole signals",
    "condition": "the graph of a condition alone",
    "resemblance": "the graph that compares voices alone",
}
REMEDIES = {
    "streaming": "name a streaming graph: sepcli export of a causal model, without --offline",
    "offline": "name a graph for whole signals",
    "condition": "name the graph of a condition",
    "resemblance": "name the graph that compares voices",
}


class Graph(NamedTuple):
    """A graph that was opened: its file, its session, and what its metadata say."""

    path: Path
    session: Any
    about: dict[str, Any]

    @property
    def kind(self) -> str:
        """streaming, offline or condition."""
        return self.about.get("kind", "streaming")

    def check(self, kind: str) -> None:
        """Raise SepcliError unless it is of that kind."""
        if self.kind != kind:
            raise SepcliError(f"{self.path}: {KINDS[self.kind]}; {REMEDIES[kind]}")


class OnnxRunner:
    """A streaming graph, a file or open, as a runner (see `nn/runner.py`); raises SepcliError.

    condition: the graph that makes conditions of references, the one beside it if None.
    """

    engine = "onnx"

    def __init__(self, graph: Path | Graph, condition: Path | None = None) -> None:
        path, self._session, about = opened(graph, "streaming")
        self._path, self._beside = path, condition or condition_of(path)
        try:
            self.sample_rate, self.sources = about["sample_rate"], tuple(about["sources"])
            self.channels, self.hop, self.delay = about["channels"], about["hop"], about["delay"]
            self.consistent, self.sha256 = about["consistent"], about["sha256"]
            self._shapes, self._hops = about["states"], about.get("hops")
            self.tolerance = about.get("tolerance", TOLERANCE)
            self._stft = ChunkedStft(**about["stft"]) if about["front_end"] == "stft" else None
        except (KeyError, TypeError) as error:
            raise foreign(path, error) from None
        self.conditioned = bool(about.get("conditions"))
        self.condition: list[np.ndarray] | None = None if self.conditioned else []
        self._start: list[np.ndarray] = []

    def given(self, references: Sequence[np.ndarray]) -> Self:
        """The same for what references, arrays (C, T) at the model's rate, are of."""
        if not self.conditioned:
            raise SepcliError("the model takes no reference; choose another model with -m")
        chosen = copy.copy(self)
        chosen.condition, chosen._start = conditions(self._beside, self.sha256, references)
        return chosen

    def initial_state(self, batch: int = 1) -> Any:
        """The state before the first chunk. A step uses it up: it goes on in the one returned."""
        if self.condition is None:
            raise lacking(self._path)
        states = self._start or [np.zeros(shape, np.float32) for shape in self._shapes]
        with running(self._path):
            core = Loop(
                self._session,
                [np.repeat(state, batch, 0) for state in states],
                [np.repeat(each, batch, 0) for each in self.condition],
            )
        if self._stft is None:
            return core
        tail = self._stft.initial_state(batch)
        return tail, core, tail

    def step(self, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        return self._run(x, state) if self._stft is None else self._between(x, state)

    def _between(self, x, state):
        """Run the graph between the transforms; a second source is the rest of the mixture."""
        assert self._stft is not None
        past, core, tail = state
        x = x[:, 0]  # (B, T)
        spectrum, following = self._stft.analyse(x, past)
        spectrum, core = self._run(spectrum, core)
        estimate, tail = self._stft.synthesise(spectrum, tail)
        estimates = [estimate]
        if len(self.sources) == 2:
            estimates.append(np.concatenate([past, x], 1)[:, : x.shape[1]] - estimate)
        return np.stack(estimates, 1)[:, :, None], (following, core, tail)  # (B, S, 1, T)

    def _run(self, x, core):
        """Run the graph on any number of hops."""
        size, total = x.shape[-1], x.shape[-1]
        if self._hops:
            size = self._hops * (self.hop if self._stft is None else 1)
        with running(self._path):
            y = [core.run(x[..., at : at + size]) for at in range(0, total, size)]
            joined = y[0] if len(y) == 1 else np.concatenate(y, -1)
            return fitting(joined, *self._output_of(x)), core

    def _output_of(self, x):
        """The shape of what the graph makes of `x`."""
        if self._stft is not None:
            return x.shape
        return len(x), len(self.sources), self.channels, x.shape[-1]


class Loop:
    """A session whose state outputs are its next state inputs: two sets of buffers take turns.

    Everything is bound to buffers once, so that a step neither copies nor makes any states.
    states: the first ones. conditions: what is the same in every step.
    """

    def __init__(
        self, session: Any, states: Sequence[np.ndarray], conditions: Sequence[np.ndarray] = ()
    ) -> None:
        from onnxruntime import OrtValue

        def values(arrays):
            return [OrtValue.ortvalue_from_numpy(np.ascontiguousarray(each)) for each in arrays]

        self._session, here, there = session, values(states), values(map(np.zeros_like, states))
        constant = values(conditions)
        self._inputs, self._outputs = (
            [node.name for node in nodes] for nodes in (session.get_inputs(), session.get_outputs())
        )
        self._turns = []
        for read, written in ((here, there), (there, here)):
            turn = session.io_binding()
            turn.bind_output(self._outputs[0])  # the first of `get_outputs`
            for name, value in zip(self._inputs[1:], [*read, *constant], strict=True):
                turn.bind_ortvalue_input(name, value)
            for name, value in zip(self._outputs[1:], written, strict=True):
                turn.bind_ortvalue_output(name, value)
            self._turns.append(turn)
        self._x = np.zeros(0, np.float32)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Map an input of the graph to its output, and go on to the next states."""
        if x.shape != self._x.shape:
            self._fit(x.shape)
        self._x[...] = x
        turn = self._turns[0]
        self._turns.reverse()
        self._session.run_with_iobinding(turn)
        return turn.get_outputs()[0].numpy().copy()  # the next run but one writes to the same place

    def _fit(self, shape):
        """Make room for inputs of that shape and their outputs."""
        from onnxruntime import OrtValue

        self._x = np.empty(shape, np.float32)
        for turn in self._turns:
            turn.bind_ortvalue_input(self._inputs[0], OrtValue.ortvalue_from_numpy(self._x))
            turn.bind_output(self._outputs[0])


def format_of(path: Path) -> str:
    """The ending of graphs that go with the graph `path`."""
    return PROGRAM if path.suffix == PROGRAM else ".onnx"


def condition_of(path: Path) -> Path:
    """Where the graph of the conditions of the graph `path` lies."""
    return files.companion(path, f".condition{format_of(path)}")


def resemblance_of(path: Path) -> Path:
    """Where the graph lies that compares signals with the conditions of the graph `path`."""
    return files.companion(path, f".resemblance{format_of(path)}")


def conditions(
    path: Path, sha256: str, references: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(The condition, the first states or none) of references (C, T), which are put together.

    path: the graph that makes them, of the weights `sha256`. Raises SepcliError.
    """
    if not os.path.isfile(path):
        raise SepcliError(
            f"{path}: missing; it encodes references for the graph beside it, and sepcli export "
            "writes both"
        )
    graph = companion(path, "condition", sha256)
    reference = np.concatenate(list(references), -1)[None].astype(np.float32)
    with running(path):
        outputs = graph.session.run(None, {"reference": reference})
    count = graph.about["conditions"]
    return outputs[:count], outputs[count:]


def companion(path: Path, kind: str, sha256: str) -> Graph:
    """The graph `path` of that kind, if it is of the weights `sha256`; SepcliError if not."""
    graph = opened(path, kind)
    if graph.about["sha256"] != sha256:
        raise SepcliError(
            f"{path}: made from another model than the graph beside it; export both again"
        )
    return graph


class Resemblance:
    """A graph that says how likely signals are of whom a condition is of; see `Model.resemblance`.

    Its inputs are `x` and a condition, its output is a probability. Raises SepcliError.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        self._path, self._session = path, companion(path, "resemblance", sha256).session
        self._names = [node.name for node in self._session.get_inputs()]

    def __call__(self, x: np.ndarray, condition: Sequence[np.ndarray]) -> float:
        """For a signal (1, C, T) at the model's rate."""
        with running(self._path):
            feed = dict(zip(self._names, [x, *condition], strict=True))
            return float(self._session.run(None, feed)[0][0])


def lacking(path: Path) -> SepcliError:
    """The SepcliError on a model that takes references and has none."""
    return SepcliError(
        f"{path}: needs a reference of what to find; give one with --ref to sepcli extract or "
        "stream"
    )


def open_graph(path: Path, *, threads: int = 1, device: str = "cpu", steady: bool = True) -> Graph:
    """Open the graph `path`; raises SepcliError.

    threads: 0 for all cores. device: cpu, cuda, or auto, which is cpu. A program is run by torch.
    steady: whether the next input has the size of the last one, as in a stream. Memory is then
    planned once, which is faster by some microseconds, and takes a quarter more for long signals.
    """
    files.check_meant(path)
    if path.suffix == PROGRAM:
        from sepcli.graphs.programs import open_program

        session = open_program(path, device="cpu" if device == "auto" else device)
        return _known(path, session, session.about)
    import onnxruntime

    provider = PROVIDERS.get(device.partition(":")[0].replace("auto", "cpu"))
    if provider not in onnxruntime.get_available_providers():
        raise SepcliError(
            f"device {device!r} is not available to ONNX Runtime here; use --device cpu, or "
            "install onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern = steady
    options.log_severity_level = 4  # errors are raised, too
    onnxruntime.set_default_logger_severity(4)
    try:
        data = path.read_bytes()
        session = onnxruntime.InferenceSession(
            data,
            options,
            providers=[provider],
            enable_fallback=0,  # which says on standard output what is raised
        )
        about = json.loads(session.get_modelmeta().custom_metadata_map["sepcli"])
    except OSError as error:
        raise SepcliError(f"{path}: {error.strerror}; check that it can be read") from None
    except Exception as error:  # the library has a type of its own for every kind of failure
        raise foreign(path, error) from None
    return _known(path, session, about)


def _known(path, session, about):
    if not isinstance(about, dict) or about.get("kind", "streaming") not in tuple(KINDS):
        raise foreign(path, TypeError("its metadata are not those of sepcli"))
    if about.get("format") != FORMAT:
        raise SepcliError(
            f"{path}: graph format {about.get('format')}, but this version reads {FORMAT}; "
            "make it again with sepcli export"
        )
    found = Graph(path, session, about)
    facts.check(path, found.kind, about)
    return found


@contextlib.contextmanager
def running(path: Path) -> Iterator[None]:
    """Turn what ONNX Runtime says of a graph that cannot be run into a SepcliError."""
    try:
        yield
    except (SepcliError, MemoryError):
        raise
    except Exception as error:  # of any type
        raise foreign(path, error) from None


def fitting(y: np.ndarray, *shape: int) -> np.ndarray:
    """An output of a graph, which has to be float32 of this shape; ValueError otherwise."""
    if y.shape != shape or y.dtype != np.float32:
        raise ValueError(f"it gives {y.dtype} {y.shape}, not float32 {shape}")
    return y


def opened(graph: Path | Graph, kind: str) -> Graph:
    """A graph, a file or open, of that kind; SepcliError if it is of another one."""
    found = graph if isinstance(graph, Graph) else open_graph(graph)
    found.check(kind)
    return found


def foreign(path: Path, error: Exception) -> SepcliError:
    """The SepcliError on a file that is no graph of ours."""
    reason = " ".join(str(error).split())[:100]
    return SepcliError(f"{path}: not a graph that sepcli export made ({reason}); make it again")
