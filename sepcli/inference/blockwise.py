"""What separates audio block by block, several of them as one, and with the residual.

Nothing here needs torch.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli.audio import Resampler

BLOCK_SECONDS = 8.0  # fed to the model at a time: enough to be fast, little enough for RAM


@dataclass(frozen=True)
class Method:
    """How models are run.

    segment_s, overlap: models that need what comes later are run on segments of so many seconds,
        None for as many as the model says, which share that part with the one before; see
        `inference.segments`. Longer ones take more memory.
    wiener: iterations of the Wiener filter, in which the estimates share out the mixture.
    vocoder: what makes sound of the mel bands of the estimates (`inference.vocoder`): "mel" makes
        magnitudes of them, which keep the phase that the estimates had; else a callable or the
        file of a model, which has phases of its own.
    griffin_lim: iterations for a phase that fits the magnitudes that the model estimates; 0 leaves
        it as the model gives it, which is the mixture's for most.
    gl_init: where these begin, at the phase of the estimates (`mix`) or a `random` one, which
        depends on the frame alone.
    full_band: whether estimates of audio of a higher rate than the model's get the band above it,
        see `inference.fullband`.
    """

    segment_s: float | None = None
    overlap: float = 0.15
    wiener: int = 0
    vocoder: object = None
    griffin_lim: int = 0
    gl_init: str = "mix"
    full_band: bool = False


class Separates:
    """What separates audio block by block: with `sources` and `blocks`, as `Separator`."""

    sources: tuple[str, ...]

    def only(self, sources: Sequence[str]) -> "Separates":
        """The same with no other `sources` than these, which saves work."""
        raise NotImplementedError

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """Separate an iterable of blocks (C, n) into blocks (S, C, m)."""
        raise NotImplementedError

    def separate(self, audio: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Separate audio (C, T) float32 at any rate; return {source: (C, T)} at the same rate."""
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2:
            raise ValueError(f"expected (channels, samples), got shape {audio.shape}")
        step = block_frames(sample_rate)
        blocks = (audio[:, at : at + step] for at in range(0, audio.shape[1], step))
        nothing = np.zeros((len(self.sources), *audio[:, :0].shape), np.float32)
        parts = [nothing, *self.blocks(blocks, sample_rate, audio.shape[0])]
        return dict(zip(self.sources, np.concatenate(parts, -1), strict=True))


def at_rate(
    rate: int,
    run: Callable[[Iterator[np.ndarray], int], Iterator[np.ndarray]],
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
) -> Iterator[np.ndarray]:
    """Blocks (C, n) at `sample_rate` through `run` at `rate`; blocks (S, C, m), in all as long.

    run: maps (blocks, channels) at `rate` to blocks (S, C, m).
    """
    fed = given = 0  # samples that came in, and that went out
    outward: Any = None

    def inward():
        nonlocal fed
        resampler, held = Resampler(sample_rate, rate, channels), None
        for block in blocks:
            fed += block.shape[1]
            if held is not None:
                yield resampler.process(held)
            held = block
        nothing = np.zeros((channels, 0), np.float32)
        yield resampler.process(nothing if held is None else held, last=True)

    S = 0
    for block in run(inward(), channels):
        S = len(block)
        outward = outward or Resampler(rate, sample_rate, S * channels)
        block = outward.process(block.reshape(S * channels, -1))  # (S*C, m)
        given += block.shape[1]
        yield block.reshape(S, channels, -1)  # (S, C, m)
    if outward is None:
        return
    rest = outward.process(np.zeros((S * channels, 0), np.float32), last=True)
    missing = fed - given  # both resamplers round: pad or cut the end by a sample or two
    rest = np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, :missing]
    yield rest.reshape(S, channels, -1)


class Average(Separates):
    """Several separators as one: a source is the mean of those that find it, all weighing the same.

    `sources` are those of all models, in the order in which they first appear.
    """

    def __init__(self, separators: Iterable[Separates]) -> None:
        self.separators = list(separators)
        self.sources = tuple(dict.fromkeys(s for each in separators for s in each.sources))

    def only(self, sources: Sequence[str]) -> "Average":
        chosen = [
            each.only(found)
            for each in self.separators
            if (found := [source for source in sources if source in each.sources])
        ]
        average = Average(chosen)
        average.sources = tuple(sources)
        return average

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`: models whose blocks end elsewhere wait for each other."""
        feeds = itertools.tee(blocks, len(self.separators))
        flows = [
            each.blocks(feed, sample_rate, channels)
            for each, feed in zip(self.separators, feeds, strict=True)
        ]
        waiting = [  # what came out of each model and not yet of all
            np.zeros((len(each.sources), channels, 0), np.float32) for each in self.separators
        ]
        for block in flows[0]:
            waiting[0] = np.concatenate([waiting[0], block], -1)
            for i, flow in enumerate(flows[1:], 1):
                while waiting[i].shape[-1] < waiting[0].shape[-1]:
                    waiting[i] = np.concatenate([waiting[i], next(flow)], -1)
            ready = waiting[0].shape[-1]
            yield self._mean([each[..., :ready] for each in waiting])
            waiting = [each[..., ready:] for each in waiting]

    def _mean(self, estimates):
        """The sources (S, C, n) of each model's (S', C, n)."""
        mean = []
        for source in self.sources:
            found = [
                y[each.sources.index(source)]
                for each, y in zip(self.separators, estimates, strict=True)
                if source in each.sources
            ]
            mean.append(sum(found) / len(found))
        return np.stack(mean)


def with_mixture(
    separator: Separates, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separate as `Separator.blocks`; yields blocks of the mixture (C, n) and sources (S, C, n)."""
    heard = np.zeros((channels, 0), np.float32)  # and not yet separated

    def listen():
        nonlocal heard
        for block in blocks:
            heard = np.concatenate([heard, block], 1)
            yield block

    for y in separator.blocks(listen(), sample_rate, channels):
        n = y.shape[-1]
        mixture, heard = heard[:, :n], heard[:, n:]
        yield mixture, y


class WithResidual(Separates):
    """A separator with one more source, `name`: the mixture without all the others."""

    def __init__(self, separator: Separates, name: str = "residual") -> None:
        self.separator = separator
        self.sources = (*separator.sources, name)

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`."""
        for mixture, y in with_mixture(self.separator, blocks, sample_rate, channels):
            yield np.concatenate([y, (mixture - y.sum(0))[None]])


def block_frames(sample_rate: int) -> int:
    """Frames of audio to read at a time."""
    return max(1, int(BLOCK_SECONDS * sample_rate))
