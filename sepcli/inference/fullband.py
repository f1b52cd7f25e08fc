"""Give the estimates of a model of a lower rate the band above it back.

What the model does in the upper half of its band says what to do above: there the estimate is the
mixture times a gain, which follows every few milliseconds how much of the mixture's energy the
estimate kept at the top of the model's band. A model that passes all gives the mixture itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import Any

import numpy as np

from sepcli.inference.blockwise import Separates, at_rate

FRAME_S = 0.032  # of the gains
TOP = (0.5, 0.85)  # of the model's band: where the gain is measured, below the resamplers' slope
SHARE = 1e-4  # of the whole band's energy that counts, too, where there is nothing at the top


class FullBand(Separates):
    """A separator whose estimates of audio of a higher rate than its own have the whole band."""

    def __init__(self, separator: Any) -> None:
        self.separator, self.sources = separator, separator.sources

    def only(self, sources: Sequence[str]) -> "FullBand":
        """The same with no other `sources` than these."""
        return FullBand(self.separator.only(sources))

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`."""
        rate = self.separator.sample_rate
        if sample_rate <= rate:
            yield from self.separator.blocks(blocks, sample_rate, channels)
            return
        whole, fed, feed = tee(blocks, 3)
        lows = at_rate(rate, _unchanged, fed, sample_rate, channels)
        tracks = [
            _Track((1, channels), (x[None] for x in whole)),
            _Track((1, channels), lows),
            _Track(
                (len(self.sources), channels), self.separator.blocks(feed, sample_rate, channels)
            ),
        ]
        gains = _Gains(sample_rate, rate)
        while True:
            there = tracks[2].more()  # the slowest
            n = gains.whole(tracks[2].frames) if there else tracks[2].frames
            if n or not there:
                mixture, low, y = (track.take(n, gains.ahead if there else 0) for track in tracks)
                yield y[..., :n] + gains.of(low, y, n) * (mixture - low)[..., :n]
            if not there:
                return


class _Track:
    """Blocks (S, C, m) of one signal, waiting for the others."""

    def __init__(self, shape, flow):
        self._flow, self._waiting = flow, np.zeros((*shape, 0), np.float32)

    @property
    def frames(self):
        return self._waiting.shape[-1]

    def more(self):
        """Wait for another block; whether there is one."""
        block = next(self._flow, None)
        if block is not None:
            self._waiting = np.concatenate([self._waiting, block], -1)
        return block is not None

    def take(self, n, ahead):
        """The next n samples, and those `ahead` of them, which stay."""
        while self.frames < n + ahead and self.more():
            pass
        taken, self._waiting = self._waiting[..., : n + ahead], self._waiting[..., n:]
        return taken


class _Gains:
    """How much of the mixture the estimates keep, frame by frame, which overlap by half."""

    def __init__(self, sample_rate, rate):
        self.hop = self.ahead = max(1, round(FRAME_S * sample_rate / 2))
        low, high = (round(part * rate / sample_rate * self.hop) for part in TOP)
        self._top, self._band = slice(low, max(high, low + 1)), slice(0, max(high, low + 1))
        self._window = np.sin(np.pi * (np.arange(2 * self.hop) + 0.5) / (2 * self.hop)) ** 2
        self._last = None  # gain (S, C) of the frame before

    def whole(self, frames):
        """As many of the samples as can be done before more of them come."""
        return max(0, frames - self.ahead) // self.hop * self.hop

    def of(self, low, y, n):
        """Gains (S, C, n) from the low bands of mixture and estimates, (., C, n) and a hop more."""
        count = -(-n // self.hop)
        if not count:
            return np.zeros((*y.shape[:-1], 0), np.float32)
        kept, there = (self._energies(x, count) for x in (y, low))  # (S, C, count)
        now = np.sqrt(np.clip(kept / np.maximum(there, 1e-20), 0, 1))
        before = now[..., 0] if self._last is None else self._last
        before = np.concatenate([before[..., None], now[..., :-1]], -1)
        self._last = now[..., -1]
        rising, falling = self._window[: self.hop], self._window[self.hop :]
        gains = now[..., None] * rising + before[..., None] * falling  # (S, C, count, hop)
        return gains.reshape(*y.shape[:-1], -1)[..., :n].astype(np.float32)

    def _energies(self, x, count):
        """Energies (S, C, count) of the frames of (S, C, n)."""
        missing = (count + 1) * self.hop - x.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), (0, max(0, missing))))
        frames = np.lib.stride_tricks.sliding_window_view(x, 2 * self.hop, -1)
        frames = frames[..., : count * self.hop : self.hop, :] * self._window
        power = np.abs(np.fft.rfft(frames)) ** 2
        return power[..., self._top].sum(-1) + SHARE * power[..., self._band].sum(-1)


def _unchanged(blocks, _channels):
    return (block[None] for block in blocks)
