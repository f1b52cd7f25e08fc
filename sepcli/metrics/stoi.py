"""Short-time objective intelligibility of speech, by the `pystoi` package, which resamples to
10 kHz: 0 is unintelligible, 1 like the reference.

Taal et al., "An algorithm for intelligibility prediction of time-frequency weighted noisy speech",
TASLP 2011; Jensen and Taal, "An algorithm for predicting the intelligibility of speech masked by
modulated noise maskers", TASLP 2016.
"""

import warnings
from contextlib import contextmanager

import numpy as np
import pystoi

from sepcli.metrics.score import Score, over_channels, undefined

# 30 frames of 256 samples at 10 kHz, half overlapping, are what one value is computed from.
SHORTEST_S = 0.4
TOO_SHORT = f"less than {SHORTEST_S} s of sound in the reference"


def stoi(
    estimate: np.ndarray, reference: np.ndarray, sample_rate: int, mixture: np.ndarray | None = None
) -> Score:
    """STOI, mean over channels; (C, T), (C, T) -> Score.

    NaN when a signal is silent, or the reference has less than 0.4 s within 40 dB of its peak.
    """
    return _stoi(estimate, reference, sample_rate, extended=False)


def extended_stoi(
    estimate: np.ndarray, reference: np.ndarray, sample_rate: int, mixture: np.ndarray | None = None
) -> Score:
    """Extended STOI, which also predicts maskers that come and go; otherwise like `stoi`."""
    return _stoi(estimate, reference, sample_rate, extended=True)


def _stoi(estimate, reference, sample_rate, *, extended):
    def score(estimate, reference):
        if len(reference) < SHORTEST_S * sample_rate:
            return undefined(TOO_SHORT)
        with warnings.catch_warnings(), _same_random_numbers():
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return Score(pystoi.stoi(reference, estimate, sample_rate, extended))
            except RuntimeWarning:
                return undefined(TOO_SHORT)

    return over_channels(score, estimate, reference)


@contextmanager
def _same_random_numbers():
    """pystoi adds noise of 1e-16 from numpy's global generator: make it the same every time."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
