"""Run a model's streaming graph with ONNX Runtime: no torch, one thread.

A graph has the inputs `x, state0, state1, ...` and the outputs `y, next0, next1, ...`. Its metadata
`sepcli` is the JSON object {"format", "model", "sha256" (of the weights' file), "sample_rate" (Hz),
"sources", "channels", "hop", "delay" (samples), "consistent", "front_end", "states" (shapes of one
item, zeros at first; the batch multiplies the first dimension), "stft"}. x and y are waveforms
(B, C, k*hop) and (B, S, C, k*hop), or, for the front end "stft", the spectra (B, 2, F, N) of the
mixture and of the first source, and "stft" is {"window", "synthesis_window", "stride"}.
"""

import json

import numpy as np

from sepcli.dsp.stft import ChunkedStft
from sepcli.errors import SepcliError

FORMAT = 1


class OnnxRunner:
    """The graph `path` as a runner (see `engine/stream.py`); raises SepcliError."""

    engine = "onnx"

    def __init__(self, path):
        self._session, about = _open(path)
        try:
            self.sample_rate, self.sources = about["sample_rate"], tuple(about["sources"])
            self.channels, self.hop, self.delay = about["channels"], about["hop"], about["delay"]
            self.consistent, self.sha256 = about["consistent"], about["sha256"]
            self._shapes = about["states"]
            self._stft = ChunkedStft(**about["stft"]) if about["front_end"] == "stft" else None
        except (KeyError, TypeError) as error:
            raise _foreign(path, error) from None
        self._names = [node.name for node in self._session.get_inputs()]

    def initial_state(self, batch=1):
        core = [np.zeros((batch * first, *rest), np.float32) for first, *rest in self._shapes]
        if self._stft is None:
            return core
        tail = self._stft.initial_state(batch)
        return tail, core, tail

    def step(self, x, state):
        return self._run(x, state) if self._stft is None else self._between(x, state)

    def _between(self, x, state):
        """Run the graph between the transforms; a second source is the rest of the mixture."""
        past, core, tail = state
        x = x[:, 0]  # (B, T)
        spectrum, following = self._stft.analyse(x, past)
        spectrum, core = self._run(spectrum, core)
        estimate, tail = self._stft.synthesise(spectrum, tail)
        estimates = [estimate]
        if len(self.sources) == 2:
            estimates.append(np.concatenate([past, x], 1)[:, : x.shape[1]] - estimate)
        return np.stack(estimates, 1)[:, :, None], (following, core, tail)  # (B, S, 1, T)

    def _run(self, x, state):
        y, *state = self._session.run(None, dict(zip(self._names, [x, *state], strict=True)))
        return y, state


def _open(path):
    """The session of the graph `path`, and what its metadata say."""
    import onnxruntime

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
