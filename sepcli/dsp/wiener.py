"""Multichannel Wiener filters, refined by expectation-maximisation, for estimates of sources.

Every source is a Gaussian with a power that varies over time and frequency and a spatial
covariance for each frequency: Nugraha et al., "Multichannel audio source separation with deep
neural networks", TASLP 2016, in the simplified form of Open-Unmix, with its constants.

Arrays of numpy, or tensors of torch, which is imported for these alone.
B batch, S sources, C channels, F frequencies, N frames.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

EPS = 1e-10  # beside sums of power; its root is added to the covariance of the mixture
HIGHEST = 10.0  # magnitude to which louder mixtures are scaled down meanwhile
WINDOW = 300  # frames that share spatial covariances
ROWS = 64  # frequencies at a time: what is computed of them stays in a processor's cache


def wiener(spectra: Any, mixture: Any, iterations: int = 1, *, window: int = WINDOW) -> Any:
    """Filter a complex mixture (B, C, F, N) by what its sources (B, S, C, F, N) seem to be.

    Each iteration replaces the estimates by the mixture filtered with the powers and spatial
    covariances that they have over `window` frames; they then add up to the mixture but for
    the regularisation. Without iterations they are returned as they are. Two sources at least.
    """
    if not iterations:
        return spectra
    if not isinstance(spectra, np.ndarray) and spectra.device.type == "cpu":
        import torch

        y, x = (each.resolve_conj().numpy() for each in (spectra, mixture))  # 4 times as fast
        return torch.from_numpy(wiener(y, x, iterations, window=window))
    library = _library(spectra)
    parts, x = (library.stack([each.real, each.imag], -3) for each in (spectra, mixture))
    filter_parts(parts, x, iterations, window=window)
    return parts[..., 0, :, :] + 1j * parts[..., 1, :, :]


def filter_parts(y: Any, x: Any, iterations: int = 1, *, window: int = WINDOW) -> None:
    """The same in place, of real and imaginary parts: y (B, S, C, 2, F, N) and x (B, C, 2, F, N).

    Raises ValueError for a single source.
    """
    if iterations and y.shape[1] < 2:
        raise ValueError("a Wiener filter needs two sources; add the rest of the mixture")
    for n in range(0, x.shape[-1], window):
        ours, mixture = y[..., n : n + window], x[..., n : n + window]
        scale = _scale(mixture)
        for rows in _rows(x):
            estimates, heard = ours[..., rows, :] / scale[:, None], mixture[..., rows, :] / scale
            for _ in range(iterations):
                _refine(estimates, heard)
            ours[..., rows, :] = estimates * scale[:, None]


def _library(x: Any) -> Any:
    """The module whose functions take what `x` is."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def _rows(x: Any) -> Iterator[slice]:
    """The frequencies in pieces; on a GPU, where each call costs the same, in one."""
    F = x.shape[-2]
    size = ROWS if isinstance(x, np.ndarray) else F
    return (slice(f, f + size) for f in range(0, F, size))


def _scale(x):
    """What the mixture (B, C, 2, F, N) is divided by, (B, 1, 1, 1, 1)."""
    power = (x * x).sum(2).reshape(len(x), -1)  # (B, C*F*N)
    loudest = _library(x).amax(power, 1) ** 0.5
    return (loudest / HIGHEST).clip(1).reshape(-1, 1, 1, 1, 1)


def _refine(y, x):
    """One iteration on estimates (B, S, C, 2, F, N), in place, with the mixture (B, C, 2, F, N)."""
    C = x.shape[1]
    power = (y * y).sum((2, 3)) / C  # (B, S, F, N)
    spatial = _spatial(y, EPS + power.sum(-1))
    whitened = _solved(_covariance(spatial, power), x)
    for c in range(C):
        real = imag = 0.0
        for d in range(C):
            (a, b), (u, v) = spatial[c, d], whitened[d]
            real, imag = real + a * u, imag + a * v
            if c != d:
                real, imag = real - b * v, imag + b * u
        y[:, :, c, 0], y[:, :, c, 1] = power * real, power * imag


def _spatial(y, total):
    """Spatial covariances {(c, d): (real, imaginary)}, each (B, S, F, 1), of (B, S, C, 2, F, N)."""
    einsum, found = _library(y).einsum, {}
    for c in range(y.shape[2]):
        for d in range(c + 1):
            one, other = y[:, :, c], y[:, :, d]
            real = einsum("bspfn,bspfn->bsf", one, other) / total
            imag = einsum("bsfn,bsfn->bsf", one[:, :, 1], other[:, :, 0])
            imag = (imag - einsum("bsfn,bsfn->bsf", one[:, :, 0], other[:, :, 1])) / total
            real, imag = real[..., None], imag[..., None]
            found[c, d], found[d, c] = (real, imag), (real, -imag)
    return found


def _covariance(spatial, power):
    """The covariances of the mixture, {(c, d): (real, imaginary)}, each (B, 1, F, N)."""
    found = {}
    for (c, d), parts in spatial.items():
        if d <= c:
            real, imag = ((power * part).sum(1)[:, None] for part in parts)
            found[c, d], found[d, c] = (real, imag), (real, -imag)
    for c, d in spatial:
        if c == d:
            found[c, c] = found[c, c][0] + EPS**0.5, found[c, c][1]
    return found


def _solved(covariance, x):
    """covariance^-1 x, [(real, imaginary) (B, 1, F, N)] of the channels, x (B, C, 2, F, N)."""
    x = [(x[:, c, None, 0], x[:, c, None, 1]) for c in range(x.shape[1])]
    if len(x) == 1:
        return [tuple(part / covariance[0, 0][0] for part in x[0])]
    if len(x) > 2:
        return _solved_by_lapack(covariance, x)
    (left, right), (re, im) = x, covariance[0, 1]  # the lower one is its conjugate
    a, d = covariance[0, 0][0], covariance[1, 1][0]
    scale = 1 / (a * d - re * re - im * im)
    return [
        (
            (d * left[0] - re * right[0] + im * right[1]) * scale,
            (d * left[1] - re * right[1] - im * right[0]) * scale,
        ),
        (
            (a * right[0] - re * left[0] - im * left[1]) * scale,
            (a * right[1] - re * left[1] + im * left[0]) * scale,
        ),
    ]


def _solved_by_lapack(covariance, x):
    library, C = _library(x[0][0]), len(x)

    def matrix(part):
        rows = [library.stack([covariance[c, d][part] for d in range(C)], -1) for c in range(C)]
        return library.stack(rows, -2)  # (B, 1, F, N, C, C)

    right = [library.stack([each[part] for each in x], -1) for part in (0, 1)]
    right = (right[0] + 1j * right[1])[..., None]
    y = library.linalg.solve(matrix(0) + 1j * matrix(1), right)
    return [(y[..., c, 0].real, y[..., c, 0].imag) for c in range(C)]
