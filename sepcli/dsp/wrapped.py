"""Real transforms in which a product is a convolution, made of matrix products and short FFTs.

For real signals x, y of n samples, `inverse(forward(x) * forward(y))` is their convolution, in
which what would come after n samples is subtracted from the beginning. That is all that a fast
convolution needs, and takes half the time of a float32 FFT of n samples: scipy's is compiled for
registers of four floats, which only several short transforms side by side fill, and the matrix
products run on whatever the processor has.

In polynomials: that convolution is a product modulo z^n + 1 = (z^L - r_1)(z^L - r_1*)(z^L - r_2)…
with L = n / 2 PARTS and r_m^(2 PARTS) = -1, and one of each two conjugates is enough for real
numbers. The signal modulo z^L - r_m is the sum of its 2 PARTS stretches of L, each times one more
r_m than the one before it. Its sample k times r_m^(k/L) makes products modulo z^L - r_m circular,
and those an FFT of L can do. Nussbaumer, "Fast Fourier transform and convolution algorithms", 1982.
"""

from functools import lru_cache

import numpy as np
from scipy import fft

PARTS = 8  # transforms side by side: two registers of each of their samples
PIECE = 1024  # samples of a stretch at a time; OpenBLAS gives threads a share of larger products


def fast_size(samples: int) -> int:
    """The smallest n >= `samples` that has a fast transform."""
    return 2 * PARTS * fft.next_fast_len(-(-samples // (2 * PARTS)))


def forward(signal: np.ndarray) -> np.ndarray:
    """Transform (..., n), float32 or float64, to complex (..., L, PARTS); n from `fast_size`."""
    turns, weights, _ = _tables(signal.shape[-1], signal.dtype)
    stretches = signal.reshape(*signal.shape[:-1], 2 * PARTS, len(turns), len(weights))
    pieces = stretches.swapaxes(-3, -2).swapaxes(-2, -1)  # (..., pieces, PIECE, 2 PARTS)
    folded = (pieces @ turns).view(weights.dtype)  # (..., pieces, PIECE, PARTS)
    folded *= weights
    folded = folded.reshape(*signal.shape[:-1], -1, PARTS)  # (..., pieces, PIECE, PARTS)
    return fft.fft(folded, axis=-2, overwrite_x=True)


def inverse(spectrum: np.ndarray, start: int = 0) -> np.ndarray:
    """Samples (..., n - start) from `start` on of a transform; may overwrite `spectrum`."""
    folded = fft.ifft(spectrum, axis=-2, overwrite_x=True)
    leading, n = folded.shape[:-2], 2 * folded.shape[-2] * PARTS
    turns, _, weights = _tables(n, folded.real.dtype)
    folded = folded.reshape(*leading, len(turns), len(weights), PARTS)  # (..., L, PARTS)
    folded *= weights
    skipped, start = divmod(start, n // (2 * PARTS))
    stretches = np.empty((*leading, 2 * PARTS - skipped, len(turns), len(weights)), turns.dtype)
    pieces = folded.view(turns.dtype).swapaxes(-2, -1)  # (..., pieces, 2 PARTS, PIECE)
    np.matmul(turns[:, skipped:], pieces, out=stretches.swapaxes(-3, -2))
    return stretches.reshape(*leading, -1)[..., start:]


@lru_cache(maxsize=16)
def _tables(n, dtype):
    """Powers of r_m for each stretch and piece of it, and for each sample of a piece and back.

    Stretches of L are cut into pieces of `PIECE` or less, so that one short table does for all:
    (pieces j, 2 PARTS q, re and im of r_m^(q + j/pieces)), then (PIECE k, PARTS) r_m^(k/L).
    """
    length = n // (2 * PARTS)
    size = next(size for size in range(PIECE, 0, -1) if length % size == 0)
    angles = np.pi * (2 * np.arange(PARTS) + 1) / (2 * PARTS)  # of r_m
    piece, stretch = np.ogrid[: length // size, : 2 * PARTS]
    turns = np.exp(1j * (stretch + piece * size / length)[..., None] * angles)
    weights = np.exp(1j * np.arange(size)[:, None] / length * angles)
    kind = np.result_type(dtype, np.complex64)
    there, back = weights.astype(kind), (weights.conj() / PARTS).astype(kind)
    return turns.astype(kind).view(dtype), there, back
