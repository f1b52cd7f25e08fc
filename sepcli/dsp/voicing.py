"""How much of a recording is voiced speech: what hums at the pitch of a voice."""

import numpy as np

from sepcli.signals.resampling import resample

RATE = 8000
FRAME_S, HOP_S = 0.040, 0.010
PITCH_HZ = (70.0, 400.0)
PERIODIC = 0.6  # autocorrelation at the period, re that at 0
RANGE_DB = 30.0  # below the loudest frame: softer ones do not count as voiced


def voiced_share(signal: np.ndarray, sample_rate: float) -> float:
    """The share of the frames of a signal (T,) that are periodic at the pitch of a voice, 0 to 1.

    The autocorrelation is divided by that of the window, as in Boersma, "Accurate short-term
    analysis of the fundamental frequency", IFA Proceedings 17, 1993.
    """
    x = resample(np.asarray(signal, np.float32)[None], sample_rate, RATE)[0].astype(float)
    size, hop = round(FRAME_S * RATE), round(HOP_S * RATE)
    x = np.pad(x, (0, max(0, size - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    frames = np.diff(frames)  # without the hum and rumble that are alike at any short lag
    window = np.hanning(size - 1)
    correlation = _autocorrelation(frames * window) / _autocorrelation(window)
    energy = correlation[:, 0]
    if not energy.max() > 0:
        return 0.0
    lags = slice(round(RATE / PITCH_HZ[1]), round(RATE / PITCH_HZ[0]) + 1)
    before, here, after = (correlation[:, lags.start + k : lags.stop + k] for k in (-1, 0, 1))
    peaks = np.where((here >= before) & (here >= after), here, 0.0)
    peak = peaks.max(-1) / np.maximum(energy, 1e-20)
    loud = energy > energy.max() * 10 ** (-RANGE_DB / 10)
    return float(np.mean(loud & (peak > PERIODIC)))


def _autocorrelation(frames):
    """Of (..., n): lags 0 to n - 1."""
    size = frames.shape[-1]
    power = np.abs(np.fft.rfft(frames, 2 * size)) ** 2
    return np.fft.irfft(power)[..., :size]
