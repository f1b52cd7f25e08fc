"""Scale-invariant signal-to-distortion ratio.

Le Roux et al., "SDR -- half-baked or well done?", ICASSP 2019, eq. 3-5, on zero-mean signals:
neither gain, polarity nor an offset of the estimate changes the number.
"""

import numpy as np

from sepcli.dsp.level import to_db
from sepcli.metrics.score import Score, over_channels, silent, undefined


def si_sdr(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
) -> Score:
    """SI-SDR in dB, mean over channels; (C, T), (C, T) -> Score.

    A scaled copy of the reference scores inf. NaN when estimate or reference is silent.
    """
    return over_channels(_si_sdr, estimate, reference)


def si_sdr_improvement(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
) -> Score:
    """SI-SDR of the estimate minus that of the mixture in dB, mean over channels -> Score.

    NaN also when the mixture is silent, or is the reference itself: then nothing can improve.
    """
    return over_channels(_improvement, estimate, reference, mixture)


def _si_sdr(estimate, reference):
    estimate = estimate - estimate.mean()
    reference = reference - reference.mean()
    # Sums rather than BLAS dot products, whose last bit depends on the number of threads.
    scale = np.sum(estimate * reference) / np.sum(reference**2)
    target = scale * reference
    with np.errstate(divide="ignore"):
        return Score(to_db(np.sum(target**2) / np.sum((estimate - target) ** 2)))


def _improvement(estimate, reference, mixture):
    if silent(mixture):
        return undefined("silent mixture")
    before = _si_sdr(mixture, reference)
    if np.isinf(before):
        return undefined("the mixture contains only the reference, or nothing of it")
    return Score(_si_sdr(estimate, reference) - before)
