"""Signals of a whole batch at once, in torch on any device; B items, T samples.

What is drawn comes as NumPy arrays of one number per item.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch

CURVE = 257  # points of a frequency response between 0 and half the sample rate
LOWEST_HZ = 60.0  # knot of a random equaliser
KNOTS = 8
SLOPE = 2.0  # points of a frequency response that a low-pass filter falls within
STOPPED = 1e-4  # what it leaves
FRAME = 512  # samples of the transform in which gains vary over time
MOMENTS, PLACES = 6, 8  # knots of such gains over time and over frequency
TINY = 1e-10  # power of what counts as silence, -100 dB


class Draws:
    """Random numbers of items, a function of (seed, item, part) and of nothing else.

    They come from a counter-based generator (Philox) whose key is the seed and the item, and whose
    counter begins with the part: how many items are drawn at once changes nothing.
    """

    COLUMNS = 128  # numbers per item; every method takes the next ones

    def __init__(self, seed: int, items: Sequence[int], part: int) -> None:
        self._numbers = np.stack([self._row(seed, item, part) for item in items])  # (B, COLUMNS)
        self._used = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, chosen: np.ndarray) -> Self:
        """The numbers that come next, of the chosen items alone; `chosen` is (B,)."""
        part = copy.copy(self)
        part._numbers = self._numbers[chosen]
        return part

    def _row(self, seed, item, part):
        bits = np.random.Philox(key=[seed, item], counter=[0, part, 0, 0])
        return np.random.Generator(bits).random(self.COLUMNS)

    def _next(self, count):
        columns = self._numbers[:, self._used : self._used + count]
        self._used += count
        return columns

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Numbers between `low` and `high`, (B,)."""
        return low + (high - low) * self._next(1)[:, 0]

    def happens(self, probability: float) -> np.ndarray:
        """Whether something of this probability happens, (B,)."""
        return self.uniform() < probability

    def whole(self, low: int, high: int) -> np.ndarray:
        """Whole numbers from `low` to `high`, both possible, (B,)."""
        return np.floor(self.uniform(low, high + 1)).astype(np.int64)

    def normal(self, count: int) -> np.ndarray:
        """Normal numbers (B, count), by the transform of Box and Muller."""
        radius, turn = np.sqrt(-2 * np.log1p(-self._next(count))), 2 * np.pi * self._next(count)
        return radius * np.cos(turn)

    def knots(self, high: float) -> np.ndarray:
        """Frequencies (B, KNOTS) of an equaliser in Hz, rising, the first 0 and the last `high`."""
        inner = LOWEST_HZ * (high / LOWEST_HZ) ** np.sort(self._next(KNOTS - 2), axis=1)
        edges = np.zeros((len(inner), 1))
        return np.concatenate([edges, inner, edges + high], axis=1)


@lru_cache
def fast_sizes(limit: int) -> np.ndarray:
    """All even numbers up to `limit` with no prime factors but 2, 3 and 5, rising."""
    sizes = {2}
    for prime in (2, 3, 5):
        for size in sorted(sizes):
            while (size := size * prime) <= limit:
                sizes.add(size)
    return np.array(sorted(sizes))


def fast_size(samples: int) -> int:
    """The next of `fast_sizes`."""
    sizes = fast_sizes(2 * samples + 2)
    return int(sizes[np.searchsorted(sizes, samples)])


def spectra(
    stored: torch.Tensor, rows: np.ndarray, starts: np.ndarray, samples: int, speeds: np.ndarray
) -> torch.Tensor:
    """Discrete Fourier transforms (B, F) of crops (B, T) of stored int16 (M, L), full scale 1.

    rows (B,): which. starts (B,): at 0 the first, at 1 the last place there is. speeds (B,): how
    much faster it is played, up to the next fast size of a transform; that is band-limited, and
    periodic: for some samples, the end of a crop is heard at its beginning.
    """
    F, sizes = samples // 2 + 1, fast_sizes(stored.shape[1])
    fast = sizes[np.maximum(0, np.searchsorted(sizes, samples * speeds, side="right") - 1)]
    taken = np.where(speeds == 1, samples, fast)  # (B,) samples of each crop
    first = np.rint(starts * (stored.shape[1] - taken)).astype(np.int64)
    out = torch.zeros(len(rows), F, dtype=torch.complex64, device=stored.device)
    for size in np.unique(taken).tolist():
        group = np.flatnonzero(taken == size)
        lines = [stored[rows[i], first[i] : first[i] + size] for i in group.tolist()]
        found = torch.fft.rfft(torch.stack(lines).float())[:, :F]
        found *= samples / size / 32768
        out[torch.from_numpy(group).to(stored.device), : found.shape[1]] = found
    return out


def mean_power(spectrum: torch.Tensor, samples: int) -> torch.Tensor:
    """Mean squares (B, 1) of the signals (B, T) with these transforms (B, F), not below TINY."""
    energy = torch.view_as_real(spectrum).square().sum(-1)  # (B, F)
    twice = energy[:, 1 : (samples + 1) // 2].sum(-1)  # frequencies that have a mirror image
    once = energy[:, 0] + (energy[:, -1] if samples % 2 == 0 else 0)
    return ((once + 2 * twice)[:, None] / samples**2).clamp(min=TINY)


def equaliser(knots: np.ndarray, gains_db: np.ndarray, sample_rate: int) -> np.ndarray:
    """Frequency responses (B, CURVE), factors: lines between knots over the logarithm of Hz."""
    axis = np.log(np.linspace(0, sample_rate / 2, CURVE) + LOWEST_HZ)
    lines = [
        np.interp(axis, np.log(k + LOWEST_HZ), g) for k, g in zip(knots, gains_db, strict=True)
    ]
    return 10 ** (np.stack(lines) / 20)


def low_pass(cutoffs_hz: np.ndarray, sample_rate: int) -> np.ndarray:
    """Frequency responses (B, CURVE) of filters that let through what is below `cutoffs_hz`."""
    points = 2 * (CURVE - 1) / sample_rate  # per Hz
    beyond = (np.arange(CURVE) - cutoffs_hz[:, None] * points) / SLOPE
    return 1 / (1 + np.exp(beyond.clip(-50, 50))) + STOPPED


def resized(curves: torch.Tensor, bins: int) -> torch.Tensor:
    """Frequency responses (B, CURVE) at `bins` frequencies from 0 to half the sample rate."""
    lines = torch.nn.functional.interpolate(
        curves[:, None], size=bins, mode="linear", align_corners=True
    )
    return lines[:, 0]


def varied(x: torch.Tensor, gains_db: Any) -> Any:
    """Signals (B, T) through gains (B, MOMENTS, PLACES) in dB, smooth over time and frequency."""
    window = torch.hann_window(FRAME, device=x.device).sqrt()
    given = {"n_fft": FRAME, "hop_length": FRAME // 2, "window": window}
    spectra = torch.stft(x, **given, pad_mode="constant", return_complex=True)  # (B, F, N)
    curves = torch.nn.functional.interpolate(
        gains_db.transpose(1, 2)[:, None],
        size=spectra.shape[1:],
        mode="bilinear",
        align_corners=True,
    )[:, 0]
    return torch.istft(spectra * 10 ** (curves / 20), **given, length=x.shape[-1])


def power(x: torch.Tensor) -> torch.Tensor:
    """Mean squares (B, 1) of signals (B, T), not below TINY."""
    return x.square().mean(-1, keepdim=True).clamp(min=TINY)


def soft_clipped(x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Signals (B, T) bent by a hyperbolic tangent that levels off at `share` (B, 1) of the peak."""
    limit = x.abs().amax(-1, keepdim=True).clamp(min=TINY) * share
    return torch.tanh(x / limit) * limit
