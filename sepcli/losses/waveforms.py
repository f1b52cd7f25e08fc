"""Losses of waveforms, sample by sample, and the ratios in dB that they are made of.

B batch, S sources, C channels, T samples.
"""

from typing import Any

import torch

from sepcli.losses.energies import mean_square

# References that are silent have no SI-SDR; see `si_sdr_loss`.
SILENCE_DB = -60.0  # below the mixture
FLOOR_DB = -30.0  # re the mixture: below this, an estimate of silence is hardly improved
QUIETEST = 1e-4  # mean square of a mixture, -40 dB re full scale; quieter ones count as this


def si_sdr(estimate: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB over the last axis; (..., T) -> (...).

    10 log10(|a t|^2 / |e - a t|^2) with a = <e, t> / <t, t>, of signals with their means removed.
    Le Roux et al., "SDR -- half-baked or well done?", ICASSP 2019. `eps` in both energies keeps
    the value and its gradient finite for a silent reference or a perfect estimate.
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    energy = reference.square().sum(-1, keepdim=True)
    target = (estimate * reference).sum(-1, keepdim=True) / (energy + eps) * reference
    error = (estimate - target).square().sum(-1)
    return 10 * torch.log10((target.square().sum(-1) + eps) / (error + eps))


def snr(estimate: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """Signal-to-noise ratio in dB over the last axis, the error being noise; (..., T) -> (...).

    10 log10(|t|^2 / |e - t|^2): a wrong level and a wrong sign are errors, too.
    """
    error = (estimate - reference).square().sum(-1)
    return 10 * torch.log10((reference.square().sum(-1) + eps) / (error + eps))


def level_ratio(
    estimate: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-8
) -> torch.Tensor:
    """Level of the estimate re the reference in dB over the last axis; (..., T) -> (...)."""
    energies = (x.square().sum(-1) + eps for x in (estimate, reference))
    return 10 * torch.log10(next(energies) / next(energies))


def si_sdr_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    silence_db: float = SILENCE_DB,
) -> torch.Tensor:
    """Negative SI-SDR in dB, averaged over batch, sources and channels.

    Where the reference is silent, which is more than `silence_db` below the mixture (B, C, T), by
    default the sum of the references, the energy of the estimate counts, softly thresholded:

        10 log10(|e|^2 / |x|^2 + 10^(FLOOR_DB / 10))

    from -30 dB for silence to 0 for the mixture itself, as in Wisdom et al., "What's all the FUSS
    about free universal sound separation data?", ICASSP 2021. Its gradient vanishes as the estimate
    gets quieter, where that of the SI-SDR grows without bound.
    """
    loudness = loudness_of(reference.sum(1) if mixture is None else mixture)
    values = -si_sdr(estimate, reference)
    powers = mean_square(estimate), mean_square(reference)
    return where_silent(*powers, loudness, silence_db, values)


def where_silent(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    loudness: torch.Tensor,
    silence_db: float,
    otherwise: Any,
) -> torch.Tensor:
    """The mean of `otherwise` (B, S, C), but for silent references; see `si_sdr_loss`.

    estimate, reference: mean squares (B, S, C). loudness: of the mixture, see `loudness_of`.
    """
    energy = 10 * torch.log10(estimate / loudness + 10 ** (FLOOR_DB / 10))
    return torch.where(_below(reference, loudness, silence_db), energy, otherwise).mean()


def is_silent(
    reference: torch.Tensor, mixture: torch.Tensor, silence_db: float = SILENCE_DB
) -> torch.Tensor:
    """Which channels of references, (B, S, C), are more than `silence_db` below the mixture."""
    return _below(mean_square(reference), loudness_of(mixture), silence_db)


def _below(power, loudness, silence_db):
    return power < loudness * 10 ** (silence_db / 10)


def loudness_of(mixture: torch.Tensor) -> torch.Tensor:
    """The mean square (B, 1, 1) of a mixture, all channels together, or QUIETEST."""
    return mean_square(mixture).mean(-1).clamp(min=QUIETEST)[:, None, None]


def l1_loss(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the samples."""
    return (estimate - reference).abs().mean()
