"""Live separation of one source: chunks in, chunks out, the state carried from one to the next.

Nothing here needs torch. What runs the model is a runner: `TorchRunner` here, or `OnnxRunner` in
`inference/onnx.py`. Both have the attributes of RUNNER and two methods on float32 numpy arrays:
`initial_state(batch)`, and `step(x (B, C, k*hop), state)` -> (y (B, S, C, k*hop), state), which
lags by `delay` samples; a state may be used up by its step.
"""

import numpy as np

from sepcli.dsp.level import multiplier
from sepcli.errors import SepcliError

RUNNER = ("sample_rate", "sources", "channels", "hop", "delay")
CHUNK_MS = 10.0  # what live audio programs hand over at a time


class TorchRunner:
    """A causal model run by torch; `torch.set_num_threads(1)` is the caller's to decide.

    consistent: share out what the estimates lack of the mixture, if the model was trained so.
    """

    engine = "torch"

    def __init__(self, model, *, consistent=False):
        if not getattr(model, "causal", True):
            raise SepcliError("the model is not causal: it needs the whole signal; use separate")
        self.model, self.consistent = model.eval(), consistent
        for name in RUNNER:
            setattr(self, name, getattr(model, name))

    def initial_state(self, batch=1):
        return self.model.initial_state(batch)

    def step(self, x, state):
        import torch

        with torch.inference_mode():
            y, state = self.model.step(torch.from_numpy(x), state)
        return y.numpy(), state


class Stream:
    """Push audio (C, n), any n >= 0, of the runner's sample rate; get the target (C, m).

    The model runs on chunks of `chunk` samples, `chunk_ms` rounded down to whole hops, whatever
    the sizes pushed, so the same audio always gives the same bits.

    target: the source to give, the runner's first if None.
    atten_lim_db: let at least the mixture less so many decibels through. With x the mixture and y
        the estimate the output is a*x + (1 - a)*y, a = 10^(-atten_lim_db / 20).
    compensate_delay: leave out the first `delay` samples, which hold nothing yet, and give as many
        more at the end, so that output and input are aligned. Otherwise output sample n belongs to
        input sample n - delay, and the last `delay` samples never come out. Either way there are
        as many samples out as in.
    """

    def __init__(
        self,
        runner,
        channels=1,
        *,
        target=None,
        chunk_ms=CHUNK_MS,
        atten_lim_db=None,
        compensate_delay=True,
    ):
        if atten_lim_db is not None and atten_lim_db < 0:
            raise ValueError(f"expected a limit of 0 dB or more, got {atten_lim_db}")
        if target is not None and target not in runner.sources:
            known = ", ".join(runner.sources)
            raise SepcliError(f"no source {target!r} in the model; choose --target from {known}")
        if runner.channels not in (1, channels):
            raise SepcliError(
                f"the model takes {runner.channels} channels but the audio has {channels}; "
                "convert it first"
            )
        hops = int(chunk_ms * runner.sample_rate / 1000 // runner.hop)
        self.runner, self.channels = runner, channels
        self.chunk = max(1, hops) * runner.hop  # samples
        self._index = runner.sources.index(target) if target else 0
        self._dry = 0.0 if atten_lim_db is None else float(multiplier(-atten_lim_db))
        self._lead = runner.delay if compensate_delay else 0  # samples given later than at once
        self._drop = self._lead
        self._owed = 0  # samples that came in and whose output did not go out
        self._pending = self._nothing = np.zeros((channels, 0), np.float32)
        self.reset()

    def reset(self):
        """Forget the past: the next chunk is heard as the first one would be.

        What the model holds back at that moment, its last `delay` samples, comes out as silence.
        """
        batch = self.channels if self.runner.channels == 1 else 1
        self._state = self.runner.initial_state(batch)
        self._past = np.zeros((self.channels, self.runner.delay), np.float32)

    def push(self, audio):
        """Take audio (C, n) and return what is ready, (C, m)."""
        self._owed += audio.shape[1]
        self._pending = np.concatenate([self._pending, audio], 1)
        parts = [self._nothing]
        while self._pending.shape[1] >= self.chunk:
            chunk, self._pending = _cut(self._pending, self.chunk)
            parts.append(self._give(self._step(chunk)))
        return np.concatenate(parts, 1)

    def finish(self):
        """Return the rest after the last push: as many samples came out as went in."""
        parts = [self._nothing]
        while self._owed:
            missing = self.chunk - self._pending.shape[1]
            chunk = np.pad(self._pending, ((0, 0), (0, missing)))
            self._pending = self._nothing
            parts.append(self._give(self._step(chunk)))
        return np.concatenate(parts, 1)

    def _step(self, chunk):
        """Run the model on one chunk (C, chunk) of the mixture."""
        x = chunk.reshape(-1, self.runner.channels, chunk.shape[1])  # (C, 1, T) or (1, C, T)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # NaN from absurd levels is refused later
            y, self._state = self.runner.step(np.ascontiguousarray(x), self._state)
        estimate = y[:, self._index].reshape(chunk.shape)  # (C, T)
        heard = np.concatenate([self._past, chunk], 1)
        mixture, self._past = _cut(heard, chunk.shape[1])  # as late as the estimate
        if self.runner.consistent:
            estimate = estimate + (mixture - y.sum(1).reshape(chunk.shape)) / y.shape[1]
        if self._dry:
            estimate = self._dry * mixture + (1 - self._dry) * estimate
        return estimate.astype(np.float32, copy=False)

    def _give(self, estimate):
        """Cut off what comes before the first sample or after the last."""
        drop = min(self._drop, estimate.shape[1])
        self._drop -= drop
        estimate = estimate[:, drop:][:, : self._owed]
        self._owed -= estimate.shape[1]
        return estimate


def _cut(audio, frames):
    """The first frames of (C, T), and the rest; `np.split` takes ten times as long."""
    return audio[:, :frames], audio[:, frames:]


def open_runner(name, engine="auto"):
    """Load the model `name` (see `modelfile.locate`), or a graph NAME.onnx, to be run live.

    engine: `torch`; `onnx`, the graph that lies beside the weights under the same name; `auto`,
    that graph if it is there and was made from these very weights, torch otherwise. Raises
    SepcliError.
    """
    from sepcli.models.modelfile import digest, load_model, locate

    path = locate(name)
    graph = path.with_suffix(".onnx")
    if engine != "torch" and graph.is_file():
        from sepcli.inference.onnx import OnnxRunner

        runner = OnnxRunner(graph)
        if path == graph or runner.sha256 == digest(path):
            return runner
        if engine == "onnx":
            raise SepcliError(
                f"{graph}: made from other weights than {path.name}; make it again: "
                f"sepcli export {path} -o {graph} --overwrite"
            )
    elif engine == "onnx":
        raise SepcliError(f"{graph}: no such graph; make it: sepcli export {path} -o {graph}")
    model, card = load_model(path)
    return TorchRunner(model, consistent=card.consistent)
