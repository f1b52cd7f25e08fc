"""A loss on spectra that hears as PESQ does: loudness in Bark bands, more noise worse than less.

After ITU-T P.862 and Martín-Doñas et al., "A Deep Learning Loss Function Based on the Perceptual
Evaluation of the Speech Quality", IEEE SPL 2018, in a form that needs no tables of the standard:
the bands are equally wide on the Bark scale, the threshold of hearing is a formula. Time alignment
and the compensation of filters are left out.
"""

from functools import lru_cache

import torch

from sepcli.losses import waveforms

BANDS = 49  # as in the wide-band mode
LOWEST_HZ = 40.0
SPEECH_DB = 63.0  # mean level of the bands of the reference, re the threshold at 0 dB
POWER = 0.23  # of loudness over intensity (Zwicker)
DEADZONE = 0.25  # share of the softer loudness within which differences are not heard
LARGEST = 45.0  # disturbance of a frame
SYMMETRIC, ASYMMETRIC = 0.1, 0.0309  # what a disturbance takes from the score


def perceptual_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    sample_rate: int = 16000,
) -> torch.Tensor:
    """How much worse the estimate sounds, about in points of PESQ: (B, S, C, F, N), complex.

    The level of a reference does not matter; its estimate's, compared with that, does. Where the
    reference is silent, the mixture (B, C, F, N) says how loud one listens.
    """
    bands, threshold = _hearing(reference.shape[-2], sample_rate)
    bands, threshold = bands.to(reference.real), threshold.to(reference.real)
    mixture = reference.sum(1) if mixture is None else mixture
    heard, wanted, around = (
        bands @ torch.view_as_real(x).square().sum(-1) for x in (estimate, reference, mixture)
    )  # (B, S, C, BANDS, N), the last without S
    silent = waveforms.is_silent(reference, mixture)  # (B, S, C)
    level = torch.where(silent, around.mean((-2, -1))[:, None], wanted.mean((-2, -1)))
    gain = 10 ** (SPEECH_DB / 10) / (level[..., None, None] + 1e-9)
    heard, wanted = gain * heard, gain * wanted
    a, b = (_loudness(x, threshold) for x in (heard, wanted))
    difference = ((a - b).abs() - DEADZONE * torch.minimum(a, b)).clamp(min=0)
    added = ((heard + 50) / (wanted + 50)) ** 1.2  # noise is more annoying than what is missing
    added = torch.where(added < 3, 0, added.clamp(max=12)).detach()
    weight = ((wanted.sum(-2) + 1e5) / 1e7) ** -0.04  # (B, S, C, N) soft frames count for more
    symmetric = (difference.square().mean(-2) + 1e-6).sqrt()
    asymmetric = (difference * added).mean(-2)
    taken = SYMMETRIC * _over_time(symmetric * weight) + ASYMMETRIC * _over_time(
        asymmetric * weight
    )
    return taken.mean()


def _over_time(disturbance):
    """The root mean square over frames, (..., N) -> (...)."""
    return (disturbance.clamp(max=LARGEST).square().mean(-1) + 1e-6).sqrt()


def _loudness(power, threshold):
    """Zwicker's loudness, up to a factor, of powers (..., BANDS, N) of bands."""
    above = (0.5 + 0.5 * power / threshold).clamp(min=1e-3) ** POWER - 1
    return (2 * threshold) ** POWER * above.clamp(min=0)


@lru_cache
def _hearing(bins, sample_rate):
    """Shares of bins in Bark bands (BANDS, F), and the bands' threshold of hearing (BANDS, 1).

    Bark after Schroeder, 6 asinh(f / 600 Hz); the threshold after Terhardt.
    """
    frequency, half = torch.linspace(0, sample_rate / 2, bins), sample_rate / 4 / (bins - 1)
    low, high = (_bark((frequency + side).clamp(min=0)) for side in (-half, half))
    edges = torch.linspace(
        float(_bark(torch.tensor(LOWEST_HZ))), float(_bark(frequency[-1])) + 1e-3, BANDS + 1
    )
    shared = torch.minimum(edges[1:, None], high) - torch.maximum(edges[:-1, None], low)
    khz = 0.6 * torch.sinh((edges[:-1] + edges[1:]) / 12)
    db = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return shared.clamp(min=0) / (high - low), 10 ** (db.clamp(-8, 60) / 10)[:, None]


def _bark(hz):
    return 6 * torch.asinh(hz / 600)
