"""Scores of the extraction of one speaker: whether it was the right one, and silence if absent."""

from collections.abc import Sequence

import numpy as np

from sepcli.dsp import level
from sepcli.metrics.score import Score, check, silent, undefined
from sepcli.metrics.sisdr import si_sdr

LEAST = 1e-10  # of the mixture's energy: what a silent estimate is taken for, 100 dB


def suppression(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
) -> Score:
    """Energy of the mixture over energy of the estimate in dB, where the target is absent.

    (C, T) each -> Score, at most 100 dB; NaN where the reference is not silent, or the mixture is.
    """
    estimate, reference, mixed = check(estimate, reference, mixture)
    if not silent(reference):
        return undefined("the target is present")
    if silent(mixed):
        return undefined("silent mixture")
    ratio = level.mean_square(estimate) / level.mean_square(mixed)
    return Score(-level.to_db(ratio, least=LEAST))


def right_speaker(
    estimate: np.ndarray,
    reference: np.ndarray,
    sample_rate: int | None = None,
    mixture: np.ndarray | None = None,
    *,
    interferers: Sequence[np.ndarray] = (),
) -> Score:
    """1 where the estimate is nearer to the reference than to any of `interferers`, by SI-SDR.

    (C, T) each -> Score, 0 if it is not, or silent; NaN where the reference is silent. Without
    interferers that are not silent, 1 where the SI-SDR is higher than that of the mixture.
    """
    estimate, reference, *interferers = check(estimate, reference, *interferers)
    if silent(reference):
        return undefined("silent reference")
    if silent(estimate):
        return Score(0.0, "silent estimate")
    others = [signal for signal in interferers if not silent(signal)]
    ours = si_sdr(estimate, reference)
    if not others:
        return Score(ours > si_sdr(np.asarray(mixture), reference), "by SI-SDRi: no interferers")
    return Score(all(ours > si_sdr(estimate, other) for other in others))
