"""Levels: mean square, RMS, decibels, and mixing at a given signal-to-noise ratio.

Signals are arrays of any shape, usually (C, T), full scale 1.0; all arithmetic is float64. Channels
are never treated apart: a level is measured over all of them, and one gain is applied to all of
them, so that the balance between channels stays as it was.
"""

from typing import Any

import numpy as np

PIECE = 8192  # samples; OpenBLAS uses threads for dot products of more than 10,000
PIECES = 64  # taken at a time


def mean_square(signal: np.ndarray, *, dtype: Any = np.float64) -> float:
    """Mean of the squared samples over all channels, in float64.

    dtype: float32 is twice as fast, and right to some 1e-6 of the value.
    """
    samples = np.asarray(signal).ravel()
    if samples.size == 0:
        raise ValueError("the level of an empty signal is not defined")
    total = 0.0
    # In pieces that BLAS does not share out to threads: their number must not change the last bit.
    for start in range(0, samples.size, PIECES * PIECE):
        block = samples[start : start + PIECES * PIECE].astype(dtype, copy=False)
        whole = block.size - block.size % PIECE
        pieces, rest = block[:whole].reshape(-1, 1, PIECE), block[whole:]  # (N·PIECE,) -> (N, …)
        for dot in (pieces @ pieces.swapaxes(1, 2)).ravel().tolist():
            total += dot
        total += float(rest @ rest)
    return float(total / samples.size)


def rms(signal: np.ndarray) -> float:
    """Root of the mean square over all channels."""
    return mean_square(signal) ** 0.5


TINY = 1e-300  # a power so low that it stands for silence where -inf would spread


def to_db(power: Any, *, least: float = 0.0) -> Any:
    """Power ratio to decibels, 10·log10; 0 gives -inf.

    least: what lower powers, and 0, are taken for, such as `TINY`.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(np.maximum(power, least) if least else power)


def from_db(level_db: Any) -> Any:
    """Decibels to a power ratio; the inverse of `to_db`."""
    return 10 ** (np.asarray(level_db, dtype=np.float64) / 10)


def multiplier(gain_db: Any) -> Any:
    """Gain in dB to the factor of the amplitude: 6.02 dB doubles it."""
    return 10 ** (np.asarray(gain_db, dtype=np.float64) / 20)


def gain_db(factor: Any) -> Any:
    """Factor of the amplitude to a gain in dB, 20·log10; the sign is ignored, 0 gives -inf."""
    with np.errstate(divide="ignore"):
        return 20 * np.log10(np.abs(factor))


def rms_db(signal: np.ndarray, *, dtype: Any = np.float64) -> float:
    """RMS in dB re full scale (1.0): a sine that just fits has -3.01, silence -inf.

    dtype: see `mean_square`.
    """
    return float(to_db(mean_square(signal, dtype=dtype)))


def rms_multiplier(signal: np.ndarray, level_db: float) -> float:
    """The factor that brings `signal` to an RMS of `level_db` dB re full scale."""
    return float(multiplier(level_db)) / _loud(signal, "the signal") ** 0.5


def normalise_to_rms(signal: np.ndarray, level_db: float) -> np.ndarray:
    """`signal` with an RMS of `level_db` dB re full scale, in float64."""
    return np.multiply(signal, rms_multiplier(signal, level_db), dtype=np.float64)


def snr_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-noise ratio 10·log10(|reference|² / |estimate - reference|²) in dB.

    estimate, reference: same shape; inf when they are equal. Raises ValueError when the reference
    is silent.
    """
    reference = np.asarray(reference, dtype=np.float64)
    estimate = np.asarray(estimate, dtype=np.float64)
    if estimate.shape != reference.shape:
        raise ValueError(f"shapes differ: estimate {estimate.shape}, reference {reference.shape}")
    return -float(to_db(mean_square(estimate - reference) / _loud(reference, "the reference")))


def snr_multiplier(noise: np.ndarray, clean: np.ndarray, snr_db: float) -> float:
    """The factor for `noise` that makes `clean` `snr_db` decibels louder than it."""
    ratio = _loud(clean, "the clean signal") / _loud(noise, "the noise")
    return (ratio / float(from_db(snr_db))) ** 0.5


def scale_to_snr(noise: np.ndarray, clean: np.ndarray, snr_db: float) -> np.ndarray:
    """`noise` scaled so that `clean` is `snr_db` decibels louder, in float64."""
    return np.multiply(noise, snr_multiplier(noise, clean, snr_db), dtype=np.float64)


def mix_at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`clean` plus `noise` scaled to `snr_db` decibels below it, in float64; same shapes."""
    if np.shape(clean) != np.shape(noise):
        raise ValueError(f"shapes differ: clean {np.shape(clean)}, noise {np.shape(noise)}")
    return clean + scale_to_snr(noise, clean, snr_db)


def _loud(signal, name):
    """Mean square of `signal`, which must not be silent."""
    power = mean_square(signal)
    if power == 0:
        raise ValueError(f"{name} is silent, so it has no level to scale or compare by")
    return power
