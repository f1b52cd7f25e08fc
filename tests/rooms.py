"""Impulse responses whose decay is known because they were made with it."""

import numpy as np


def exponential(rt60_s, sample_rate, *, seconds=None, seed=0, noise_db=None):
    """A white response (R,) with a power of exactly 10^(-6 t / rt60_s), and a noise floor.

    seconds: its length, until -78 dB unless told otherwise. noise_db: RMS of Gaussian noise re the
    first sample, which then goes on alone for half as long again.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(round((seconds or 1.3 * rt60_s) * sample_rate)) / sample_rate
    rir = 10 ** (-3 * t / rt60_s) * np.where(rng.random(t.size) < 0.5, -1, 1)
    if noise_db is not None:
        rir = np.pad(rir, (0, rir.size // 2))
        rir += 10 ** (noise_db / 20) * rng.standard_normal(rir.size)
    return rir


def rumbling(rt60_s, sample_rate, *, rumble_db, rumble_rt60_s=6.0, seed=0):
    """1 s of a decay under noise of 10 to 40 Hz that itself falls by 60 dB in `rumble_rt60_s`."""
    rng = np.random.default_rng(seed)
    rir = exponential(rt60_s, sample_rate, seconds=1.0, seed=seed)
    spectrum = np.zeros(rir.size // 2 + 1, complex)
    spectrum[10:41] = np.exp(2j * np.pi * rng.random(31))  # 1 Hz apart
    rumble = np.fft.irfft(spectrum, rir.size)
    rumble *= 10 ** (-3 * np.arange(rir.size) / sample_rate / rumble_rt60_s) / rumble.std()
    return rir + 10 ** (rumble_db / 20) * rumble
