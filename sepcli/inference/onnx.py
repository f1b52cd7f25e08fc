"""Run a model's streaming graph with ONNX Runtime: no torch, one thread.

A graph has the inputs `x, state0, state1, ...` and the outputs `y, next0, next1, ...`. Its metadata
`sepcli` is the JSON object {"format", "model", "sha256" (of the weights' file), "sample_rate" (Hz),
"sources", "channels", "hop", "delay" (samples), "consistent", "front_end", "hops" (that it takes at
a time; null: any number), "states" (shapes of one item, zeros at first; the batch multiplies the
first dimension), "stft"}, and of a quantised model "tolerance". x and y are waveforms
(B, C, k*hop) and (B, S, C, k*hop), or, for the front end "stft", the spectra (B, 2, F, N) of the
mixture and of the first source, and "stft" is {"window", "synthesis_window", "stride"}.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import files
from sepcli.dsp.stft import ChunkedStft
from sepcli.errors import SepcliError

FORMAT = 1
TOLERANCE = 1e-4  # largest difference to torch over a whole file


class OnnxRunner:
    """The graph `path` as a runner (see `inference/stream.py`); raises SepcliError."""

    engine = "onnx"

    def __init__(self, path: Path) -> None:
        self._session, about = _open(path)
        try:
            self.sample_rate, self.sources = about["sample_rate"], tuple(about["sources"])
            self.channels, self.hop, self.delay = about["channels"], about["hop"], about["delay"]
            self.consistent, self.sha256 = about["consistent"], about["sha256"]
            self._shapes, self._hops = about["states"], about.get("hops")
            self.tolerance = about.get("tolerance", TOLERANCE)
            self._stft = ChunkedStft(**about["stft"]) if about["front_end"] == "stft" else None
        except (KeyError, TypeError) as error:
            raise _foreign(path, error) from None

    def initial_state(self, batch: int = 1) -> Any:
        """The state before the first chunk. A step uses it up: it goes on in the one returned."""
        core = Loop(self._session, [(batch * first, *rest) for first, *rest in self._shapes])
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
        y = [core.run(x[..., at : at + size]) for at in range(0, total, size)]
        return y[0] if len(y) == 1 else np.concatenate(y, -1), core


class Loop:
    """A session whose state outputs are its next state inputs: two sets of buffers take turns.

    Everything is bound to buffers once, so that a step neither copies nor makes any states.
    """

    def __init__(self, session: Any, shapes: Sequence[Sequence[int]]) -> None:
        from onnxruntime import OrtValue

        def zeros():
            return [OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for shape in shapes]

        self._session, here, there = session, zeros(), zeros()
        self._inputs, self._outputs = (
            [node.name for node in nodes] for nodes in (session.get_inputs(), session.get_outputs())
        )
        self._turns = []
        for read, written in ((here, there), (there, here)):
            turn = session.io_binding()
            turn.bind_output(self._outputs[0])  # the first of `get_outputs`
            for name, value in zip(self._inputs[1:], read, strict=True):
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


def _open(path):
    """The session of the graph `path`, and what its metadata say."""
    import onnxruntime

    files.check_meant(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        data = path.read_bytes()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map["sepcli"])
    except OSError as error:
        raise SepcliError(f"{path}: {error.strerror}; check that it can be read") from None
    except Exception as error:  # the library has a type of its own for every kind of failure
        raise _foreign(path, error) from None
    if about.get("format") != FORMAT:
        raise SepcliError(
            f"{path}: graph format {about.get('format')}, but this version reads {FORMAT}; "
            "make it again with sepcli export"
        )
    return session, about


def _foreign(path, error):
    reason = " ".join(str(error).split())[:100]
    return SepcliError(f"{path}: not a graph that sepcli export made ({reason}); make it again")
