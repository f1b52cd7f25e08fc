"""Octave and third-octave bands after IEC 61260-1, filtered backwards in time for measuring decays.

A filter's own ringing must not be taken for a room's. Run backwards in time, an exponential
ringing stands before the sound that causes it, and behind it the filter is silent within a few
periods: decays are true down to B·T = 4 (B the bandwidth in Hz, T the decay time in s) instead of
16 (Jacobsen & Rindel, "Time reversed decay measurements", J. Sound Vib. 117(1), 1987).
"""

from dataclasses import dataclass

import numpy as np

OCTAVE = 10**0.3  # IEC 61260-1, 5.2: the base-ten octave
LEAST_BT = 4
NOMINAL = {  # Hz; preferred numbers of ISO 266
    1: (63, 125, 250, 500, 1000, 2000, 4000, 8000),
    3: (
        *(50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800),
        *(1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000, 6300, 8000, 10000),
    ),
}


@dataclass(frozen=True)
class Band:
    """A band from `low` to `high` around `centre`, all in Hz; `nominal` Hz is what it is called."""

    nominal: int
    low: float
    centre: float
    high: float

    @property
    def width(self) -> float:
        """Hz."""
        return self.high - self.low

    @property
    def delay_s(self) -> float:
        """How long the filter, run forwards, delays the middle of the band."""
        return 2 / (np.pi * self.width)

    def response(self, frequencies: np.ndarray) -> np.ndarray:
        """Complex response at `frequencies` (Hz, above 0) of a Butterworth band-pass of order 3.

        Its attenuation keeps to class 1 of IEC 61260-1; it is 3 dB at the edges.
        """
        p = 1j * (frequencies / self.centre - self.centre / frequencies) * self.centre / self.width
        return 1 / ((p + 1) * (p * p + p + 1))


def bands(sample_rate: int, per_octave: int) -> list[Band]:
    """The bands, 1 or 3 per octave, that end below half of `sample_rate` (Hz)."""
    half = OCTAVE ** (1 / (2 * per_octave))
    found = []
    for nominal in NOMINAL[per_octave]:
        step = round(per_octave * np.log(nominal / 1000) / np.log(OCTAVE))
        centre = 1000 * OCTAVE ** (step / per_octave)
        found.append(Band(nominal, centre / half, centre, centre * half))
    return [band for band in found if band.high < sample_rate / 2]


def filter_backwards(signal: np.ndarray, sample_rate: int, band: Band) -> tuple[np.ndarray, int]:
    """`signal` (T,) in `band`, filtered backwards in time; returns (float64 (L + T,), L).

    The L samples in front hold what the filter rings before the signal starts.
    """
    lead = int(np.ceil(8 / band.width * sample_rate))  # until the ringing is 100 dB down
    n = _fast_length(signal.size + 2 * lead)
    spectrum = np.fft.rfft(signal, n)
    spectrum[0] = 0
    frequencies = np.fft.rfftfreq(n, 1 / sample_rate)
    spectrum[1:] *= np.conj(band.response(frequencies[1:]))
    filtered = np.fft.irfft(spectrum, n)
    return np.concatenate([filtered[n - lead :], filtered[: signal.size]]), lead


def _fast_length(n):
    """A length of at least `n` that is 2^k or 3 · 2^k, for quick transforms."""
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= n else power
