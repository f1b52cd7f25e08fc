"""Losses of extracting one speaker, who is present in some mixtures and absent in others.

Absent is a target whose reference is silent, more than 60 dB below the mixture. All are functions
of (estimate, reference, mixture): (B, S, C, T), (B, S, C, T), (B, C, T).
"""

import torch

from sepcli.losses import waveforms

QUIET_DB = -30.0  # mean square of an estimate of an absent target that is good enough
LEAST_RATIO = 0.05  # of levels; a softer estimate counts as this


def scene_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    absent_weight: float = 0.1,
) -> torch.Tensor:
    """Negative SI-SDR in dB of present targets, and `energy_loss` of absent ones.

    (1 - w) mean(-SI-SDR) + w mean(energy), each mean over the items of its kind, 0 where there are
    none; w = `absent_weight`.
    """
    present = ~_absent(reference, mixture)
    similarity = _mean(-waveforms.si_sdr(estimate, reference), present)
    energy = energy_loss(estimate, reference, mixture)
    return (1 - absent_weight) * similarity + absent_weight * energy


def energy_loss(
    estimate: torch.Tensor, reference: torch.Tensor, mixture: torch.Tensor | None = None
) -> torch.Tensor:
    """By how many dB the estimates of absent targets are above -30 dB re full scale, on average.

    max(0, 10 log10(mean(e^2) + 1e-8) + 30): what is quiet enough wins nothing by being quieter,
    which would teach the model to give nothing of present targets either.
    """
    level_db = 10 * torch.log10(estimate.square().mean(-1) + 1e-8)
    return _mean(torch.relu(level_db - QUIET_DB), _absent(reference, mixture))


def amplitude_loss(
    estimate: torch.Tensor, reference: torch.Tensor, mixture: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared logarithm of the ratio of the estimate's RMS to the reference's, of present targets.

    mean(ln(max(rms(e) / rms(t), 0.05))^2): SI-SDR leaves the level open, this does not.
    """
    mean_squares = (x.square().mean(-1) + 1e-12 for x in (estimate, reference))
    ratio = next(mean_squares).sqrt() / next(mean_squares).sqrt()
    values = ratio.clamp(min=LEAST_RATIO).log().square()
    return _mean(values, ~_absent(reference, mixture))


def _absent(reference, mixture):
    """Which channels (B, S, C) are absent; without a mixture, re the sum of the references."""
    return waveforms.is_silent(reference, reference.sum(1) if mixture is None else mixture)


def _mean(values, where):
    """The mean of (B, S, C) where that is so, 0 where it never is."""
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)
