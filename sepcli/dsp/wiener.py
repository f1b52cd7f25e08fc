"""Multichannel Wiener filters, refined by expectation-maximisation, for estimates of sources.

Every source is a Gaussian with a power that varies over time and frequency and a spatial
covariance for each frequency: Nugraha et al., "Multichannel audio source separation with deep
neural networks", TASLP 2016, in the simplified form of Open-Unmix, with its constants.
B batch, S sources, C channels, F frequencies, N frames.
"""

import torch

EPS = 1e-10  # beside sums of power; its root is added to the covariance of the mixture
HIGHEST = 10.0  # magnitude to which louder mixtures are scaled down meanwhile
WINDOW = 300  # frames that share spatial covariances


def wiener(
    spectra: torch.Tensor, mixture: torch.Tensor, iterations: int = 1, *, window: int = WINDOW
) -> torch.Tensor:
    """Filter a complex mixture (B, C, F, N) by what its sources (B, S, C, F, N) seem to be.

    Each iteration replaces the estimates by the mixture filtered with the powers and spatial
    covariances that they have over `window` frames; they then add up to the mixture but for
    the regularisation. Without iterations they are returned as they are. Two sources at least.
    """
    if iterations and spectra.shape[1] < 2:
        raise ValueError("a Wiener filter needs two sources; add the rest of the mixture")
    if not iterations:
        return spectra
    parts = zip(spectra.split(window, -1), mixture.split(window, -1), strict=True)
    return torch.cat([_refined(y, x, iterations) for y, x in parts], -1)


def _refined(y, x, iterations):
    """The estimates y (B, S, C, F, N) after so many iterations with the mixture x (B, C, F, N)."""
    scale = (x.abs().amax((1, 2, 3)) / HIGHEST).clamp(min=1).reshape(-1, 1, 1, 1)
    x, y = x / scale, y / scale[:, None]
    for _ in range(iterations):
        power = (y.real.square() + y.imag.square()).mean(2)  # (B, S, F, N)
        spatial = torch.einsum("bscfn,bsdfn->bscdf", y, y.conj())
        spatial = spatial / (EPS + power.sum(-1))[:, :, None, None]  # (B, S, C, C, F)
        covariance = torch.einsum("bsfn,bscdf->bcdfn", power.to(y.dtype), spatial)
        whitened = _solved(covariance, x)  # (B, C, F, N)
        y = power[:, :, None] * torch.einsum("bscdf,bdfn->bscfn", spatial, whitened)
    return y * scale[:, None]


def _solved(covariance, x):
    """(covariance + sqrt(EPS) I)^-1 x of (B, C, C, F, N) and (B, C, F, N)."""
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[..., None, None]
    matrix = covariance + EPS**0.5 * identity
    if x.shape[1] != 2:
        matrix = matrix.permute(0, 3, 4, 1, 2)  # (B, F, N, C, C)
        return torch.linalg.solve(matrix, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))  # 10 times as fast for stereo
    left, right = x.unbind(1)
    return torch.stack([d * left - b * right, a * right - c * left], 1) / (a * d - b * c)[:, None]
