"""What all metrics share: the number they return, and how they treat channels and silence."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

SILENCE = 1e-15  # peak to peak; below, squares get lost in the single precision of PESQ


class Score(float):
    """A float that knows in words how it came about: why it is NaN, or what was measured."""

    note: str

    def __new__(cls, value: float, note: str = "") -> Self:
        score = super().__new__(cls, value)
        score.note = note
        return score


def undefined(reason: str) -> Score:
    """The score of signals for which the metric has none: NaN with a reason."""
    return Score(np.nan, reason)


def check(estimate: np.ndarray, *others: Any) -> list[np.ndarray]:
    """Return all signals as float64 (C, T); ValueError unless they have one shape and numbers."""
    signals = [np.asarray(signal, dtype=np.float64) for signal in (estimate, *others)]
    for signal in signals:
        if signal.ndim != 2 or signal.size == 0:
            raise ValueError(f"expected (channels, samples), got shape {signal.shape}")
        if signal.shape != signals[0].shape:
            raise ValueError(f"shapes differ: {signals[0].shape} and {signal.shape}")
        if not np.isfinite(signal).all():
            raise ValueError("a signal has samples that are NaN or infinite")
    return signals


def silent(signal: np.ndarray) -> bool:
    """Whether the signal is a constant, or as good as one."""
    return bool(np.ptp(signal) < SILENCE)


def over_channels(
    score: Callable[..., Score],
    estimate: np.ndarray,
    reference: np.ndarray,
    *others: Any,
) -> Score:
    """Mean of score(estimate, reference, *others) over channels; (C, T) each -> Score.

    Channels whose reference is silent have no score and are left out; with no channel left, or
    when the estimate is silent where the reference is not, the result is NaN with the reason.
    """
    channels = zip(*check(estimate, reference, *others), strict=True)
    scores = [
        undefined("silent estimate") if silent(signals[0]) else score(*signals)
        for signals in channels
        if not silent(signals[1])
    ]
    if not scores:
        return undefined("silent reference")
    for each in scores:
        if np.isnan(each):
            return each
    return Score(sum(scores) / len(scores), scores[0].note)
