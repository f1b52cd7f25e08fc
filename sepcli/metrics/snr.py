"""Signal-to-noise ratio: every difference from the reference counts, also a wrong level.

Over all channels together, as the SDR of BSS Eval v4 (museval) measures a frame.
"""

import numpy as np

from sepcli.dsp import level
from sepcli.metrics.score import Score, check, silent, undefined


def snr(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
) -> Score:
    """10·log10(|reference|² / |estimate - reference|²) in dB; (C, T), (C, T) -> Score.

    Equal signals score inf, a silent estimate 0. NaN when the reference is silent.
    """
    estimate, reference = check(estimate, reference)
    if silent(reference):
        return undefined("silent reference")
    return Score(level.snr_db(estimate, reference))


def snr_improvement(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
) -> Score:
    """SNR of the estimate minus that of the mixture in dB; (C, T) each -> Score.

    NaN also when the mixture is the reference itself: then nothing can improve.
    """
    before = snr(np.asarray(mixture), reference)
    if np.isposinf(before):
        return undefined("the mixture contains only the reference")
    after = snr(estimate, reference)
    return after if np.isnan(after) else Score(after - before)
