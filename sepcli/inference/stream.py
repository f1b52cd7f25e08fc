"""Live separation: chunks in, chunks out, the state carried from one to the next.

Nothing here needs torch. What runs the model is a `Runner` (`nn/runner.py`). What hop and delay
mean to who brings audio in any pieces is known here alone.
B batch, S sources, C channels, T samples.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sepcli.dsp.consistency import add_up
from sepcli.dsp.frames import flush
from sepcli.dsp.level import multiplier
from sepcli.errors import SepcliError
from sepcli.nn.runner import CHUNK_MS, Runner, whole_hops


class Sources:
    """Push audio (C, n), any n >= 0, of the runner's sample rate; get its sources (S, C, m).

    chunk: samples that the model runs on at a time, whole hops; the same audio then gives the same
        bits whatever the sizes pushed. 0: all whole hops that are there.
    kept: the indices of the sources to give, all if None.
    compensate_delay: leave out the first `delay` samples, which hold nothing yet, and give as many
        more at the end, so that output and input are aligned. Otherwise output sample n belongs to
        input sample n - delay, and the last `delay` samples never come out. Either way there are
        as many samples out as in.
    """

    def __init__(
        self,
        runner: Runner,
        channels: int = 1,
        *,
        chunk: int = 0,
        kept: Sequence[int] | None = None,
        compensate_delay: bool = True,
    ) -> None:
        check_channels(runner.channels, channels)
        self.runner, self.channels, self.chunk = runner, channels, chunk
        self._kept = list(range(len(runner.sources)) if kept is None else kept)
        self._lead = runner.delay if compensate_delay else 0  # samples given later than at once
        self._drop = self._lead
        self._owed = 0  # samples that came in and whose output did not go out
        self._pending = np.zeros((channels, 0), np.float32)
        silence = np.zeros((len(runner.sources), channels, 0), np.float32)
        self._nothing = self._output(silence, self._pending)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next chunk is heard as the first one would be.

        What the model holds back at that moment, its last `delay` samples, comes out as silence.
        """
        batch = -(-self.channels // self.runner.channels)
        self._state = self.runner.initial_state(batch)
        self._past = np.zeros((self.channels, self.runner.delay), np.float32)

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Take audio (C, n) and return what is ready."""
        self._take(audio)
        parts = [self._nothing]
        while size := self._ready():
            chunk, self._pending = _cut(self._pending, size)
            parts.append(self._give(self._step(chunk)))
        return np.concatenate(parts, -1)

    def finish(self) -> np.ndarray:
        """Return the rest after the last push: as many samples came out as went in."""
        if not self._owed:
            return self._nothing
        missing = flush(self._pending.shape[1], self.runner.hop, self._lead)
        chunk = np.pad(self._pending, ((0, 0), (0, missing)))
        self._pending = chunk[:, :0]
        return self._give(self._step(chunk))

    def all_of(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Push all audio there is, in blocks (C, n), and finish; yield what is ready.

        The last block runs at once with the silence behind it: a step of a few samples takes
        almost as long as one of a second.
        """
        held = None
        for block in blocks:
            if held is not None:
                yield self.push(held)
            held = block
        if held is not None and self.chunk:
            yield self.push(held)
        elif held is not None:
            self._take(held)
        yield self.finish()

    def _take(self, audio: np.ndarray) -> None:
        """Have audio (C, n) wait for the model."""
        self._owed += audio.shape[1]
        self._pending = np.concatenate([self._pending, audio], 1)

    def _ready(self) -> int:
        """How many samples to run the model on now."""
        there = self._pending.shape[1]
        size = self.chunk or there // self.runner.hop * self.runner.hop
        return size if size <= there else 0

    def _step(self, chunk: np.ndarray) -> np.ndarray:
        """Run the model on one chunk (C, T) of the mixture."""
        heard = np.concatenate([self._past, chunk], 1)
        mixture, self._past = _cut(heard, chunk.shape[1])  # as late as the estimates
        with np.errstate(over="ignore", invalid="ignore"):  # NaN from absurd levels: refused later
            y, self._state = self.runner.step(batched(chunk, self.runner.channels), self._state)
            y = unbatched(y, self.channels)
            if self.runner.consistent:
                y = add_up(y[None], mixture[None])[0]
            return self._output(y, mixture)

    def _output(self, y: np.ndarray, mixture: np.ndarray) -> np.ndarray:
        """What to give of sources (S, C, T) and the mixture (C, T)."""
        return y[self._kept]

    def _give(self, y: np.ndarray) -> np.ndarray:
        """Cut off what comes before the first sample or after the last."""
        drop = min(self._drop, y.shape[-1])
        self._drop -= drop
        y = y[..., drop:][..., : self._owed]
        self._owed -= y.shape[-1]
        return y


class Stream(Sources):
    """Push audio (C, n), any n >= 0, of the runner's sample rate; get the target (C, m).

    The model runs on chunks of `chunk` samples, `chunk_ms` rounded down to whole hops.

    target: the source to give, the runner's first if None.
    atten_lim_db: let at least the mixture less so many decibels through. With x the mixture and y
        the estimate the output is a*x + (1 - a)*y, a = 10^(-atten_lim_db / 20).
    compensate_delay: see `Sources`.
    """

    def __init__(
        self,
        runner: Runner,
        channels: int = 1,
        *,
        target: str | None = None,
        chunk_ms: float = CHUNK_MS,
        atten_lim_db: float | None = None,
        compensate_delay: bool = True,
    ) -> None:
        if atten_lim_db is not None and atten_lim_db < 0:
            raise ValueError(f"expected a limit of 0 dB or more, got {atten_lim_db}")
        if target is not None and target not in runner.sources:
            known = ", ".join(runner.sources)
            raise SepcliError(f"no source {target!r} in the model; choose --target from {known}")
        self._dry = 0.0 if atten_lim_db is None else float(multiplier(-atten_lim_db))
        super().__init__(
            runner,
            channels,
            chunk=whole_hops(chunk_ms, runner),
            kept=[runner.sources.index(target) if target else 0],
            compensate_delay=compensate_delay,
        )

    def _output(self, y: np.ndarray, mixture: np.ndarray) -> np.ndarray:
        estimate = y[self._kept[0]]  # (C, T)
        if self._dry:
            estimate = self._dry * mixture + (1 - self._dry) * estimate
        return estimate.astype(np.float32, copy=False)


def separate(runner: Runner, audio: np.ndarray) -> np.ndarray:
    """All sources (S, C, T) of audio (C, T) at the runner's sample rate, streamed."""
    return np.concatenate(list(Sources(runner, len(audio)).all_of([audio])), -1)


def check_channels(taken: int, channels: int) -> None:
    """Raise SepcliError unless a model that takes so many channels can run on audio of `channels`.

    A mono model takes every channel by itself, a stereo model every two of them, and a channel that
    is left over as both of its channels.
    """
    if taken not in (1, 2, channels):
        raise SepcliError(
            f"the model takes {taken} channels but the audio has {channels}; convert it first"
        )


def batched(audio: np.ndarray, channels: int) -> np.ndarray:
    """Audio (C, T) as a batch (B, C', T) for a model of C' channels; see `check_channels`."""
    if missing := -len(audio) % channels:
        audio = np.concatenate([audio, *[audio[-1:]] * missing])
    return np.ascontiguousarray(audio.reshape(-1, channels, audio.shape[1]))


def unbatched(y: np.ndarray, channels: int) -> np.ndarray:
    """The model's output (B, S, C', T) as (S, C, T); that of a repeated channel is averaged."""
    B, S, M, T = y.shape
    y = y.swapaxes(0, 1).reshape(S, B * M, T)
    if channels < B * M:
        y = np.concatenate([y[:, : channels - 1], y[:, channels - 1 :].mean(1, keepdims=True)], 1)
    return y


def _cut(audio: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The first frames of (C, T), and the rest; `np.split` takes ten times as long."""
    return audio[:, :frames], audio[:, frames:]
