"""Rooms: convolution with impulse responses (RIRs), and responses with a known decay."""

import numpy as np
from scipy import fft

MIXING_S = 0.04  # when reflections are too many to be told apart, in a room of everyday size
STRONGEST = 0.7  # amplitude of an early reflection re the direct sound


def convolve(signal, rirs, *, full=False):
    """`signal` heard through `rirs`: (..., T) and (..., R) -> (..., T), or T + R - 1 when `full`.

    Leading axes broadcast and the signal is transformed once, so (C, T) with (K, 1, R) gives the
    same sound in K rooms, (K, C, T), for little more than the price of one. float32 in gives
    float32 out (128 dB and better against float64), float64 stays float64.
    """
    samples = signal.shape[-1]
    if not full:
        rirs = rirs[..., :samples]  # what comes later falls behind the cropped end
    length = samples + rirs.shape[-1] - 1
    n = fft.next_fast_len(length, real=True)
    wet = fft.irfft(fft.rfft(signal, n) * fft.rfft(rirs, n), n)
    return wet[..., : length if full else samples]


def main_tap(rir):
    """Index of the largest |sample| of one RIR (R,): where the direct sound arrives."""
    return int(np.argmax(np.abs(rir)))


def synthetic_rir(rt60_s, sample_rate, rng, *, direct_to_reverberant_db=0.0, predelay_ms=2.0):
    """A RIR (R,) float32 whose tail falls by exactly 60 dB per `rt60_s` seconds, until -70 dB.

    The direct sound is 1.0 at sample 0. From `predelay_ms` on, sparse and strong reflections
    thicken within `MIXING_S` into noise of random signs, not random sizes: its decay is the
    exponential itself, not an estimate of it. rng: np.random.Generator.
    """
    if not rt60_s > 0:
        raise ValueError(f"rt60_s must be above 0 s, got {rt60_s}")
    start = max(1, round(predelay_ms / 1000 * sample_rate))
    t = np.arange(int(rt60_s * sample_rate * 70 / 60) + 1) / sample_rate
    decay = 10 ** (-3 * t / rt60_s)
    decay *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(decay**2))
    # One tap in 1/density, louder by its root: the power stays the exponential on average.
    density = np.clip(np.maximum((t / MIXING_S) ** 2, (decay / STRONGEST) ** 2), 0.01, 1)
    signs = np.where(rng.random(t.size) < 0.5, -1.0, 1.0)
    tail = signs * decay * (rng.random(t.size) < density) / np.sqrt(density)
    return np.concatenate([[1.0], np.zeros(start - 1), tail]).astype(np.float32)
