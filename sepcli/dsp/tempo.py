"""Change the tempo of sound and not its pitch, fast enough to do while training.

WSOLA, as in SoundTouch: long stretches of the input as they are, each put where it continues the
one before best. Verhelst & Roelands, "An overlap-add technique based on waveform similarity (WSOLA)
for high quality time-scale modification of speech", ICASSP 1993.
"""

import numpy as np
from scipy import fft

STRETCH_S = 0.07  # from one splice to the next
FADE_S = 0.016  # how long a splice takes
SEEK_S = 0.0125  # how far before or after its place the input is taken; 25 ms is a period of 40 Hz


def change_tempo(signal: np.ndarray, length: int, sample_rate: int) -> np.ndarray:
    """All of `signal`, float32 (C, T), in `length` samples: (C, length), at the pitch it has.

    The channels are spliced at the same places, so that they stay in phase with each other.
    Raises ValueError for no samples at all.
    """
    T = signal.shape[1]
    if not T or not length:
        raise ValueError(f"expected sound, got {T} samples to fill {length}")
    step, fade, seek = _sizes(min(T, length), sample_rate)
    signal = np.pad(signal, ((0, 0), (0, max(fade, step + fade - T))))  # a splice may begin at T
    mono = signal.mean(axis=0)
    energy = np.concatenate([[0.0], np.cumsum(np.square(mono, dtype=np.float64))])
    rise = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
    out = np.empty((len(signal), length + fade), np.float32)
    out[:, : step + fade] = signal[:, : step + fade]
    place = 0  # in the input, of the stretch before
    for start in range(step, length, step):
        size = min(step, length - start) + fade
        last = mono.size - size
        wanted = min(round(start * T / length), last)
        low, high = max(0, wanted - seek), min(wanted + seek, last)
        tail = mono[place + step : place + step + fade]
        place = low + _best(mono[low : high + fade], tail, energy[low : high + fade + 1])
        piece = signal[:, place : place + size]
        out[:, start : start + fade] *= 1 - rise
        out[:, start : start + fade] += rise * piece[:, :fade]
        out[:, start + fade : start + size] = piece[:, fade:]
    return out[:, :length]


def _sizes(shortest, sample_rate):
    """Samples of `STRETCH_S`, `FADE_S` and `SEEK_S`, all shorter for short signals."""
    scale = min(sample_rate, shortest / 4 / (STRETCH_S + FADE_S))
    return (max(1, int(seconds * scale)) for seconds in (STRETCH_S, FADE_S, SEEK_S))


def _best(mono, tail, energy):
    """Where in `mono` (n,) something most like `tail` (fade,) begins, by normalised correlation.

    energy: (n + 1,), the energy of what comes before each sample.
    """
    n = fft.next_fast_len(mono.size, real=True)
    product = fft.rfft(mono, n) * np.conj(fft.rfft(tail, n))
    places = mono.size - tail.size + 1
    likeness = fft.irfft(product, n)[:places]
    power = energy[tail.size :] - energy[:places]
    return int(np.argmax(likeness / np.sqrt(power + 1e-9)))
