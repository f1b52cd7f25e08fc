"""Losses on the spectra of a model that works between an STFT and its inverse.

Estimate and reference are complex, (B, S, C, F, N): what the model made of the mixture's spectrum,
and the reference's spectrum by the same transform. No step of the training needs the inverse.
"""

import math

import torch

from sepcli.losses import waveforms
from sepcli.losses.energies import dot, mean_square

MIN_POWER = 1e-7  # added to a bin's power: keeps the slope of a root of it finite
Products = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # see `products`
SMALLEST = 1e-4  # share of a mixture's mean power below which errors hardly matter


def si_sdr(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    limit_db: float = math.inf,
    eps: float = 1e-8,
) -> torch.Tensor:
    """SI-SDR in dB, (..., F, N) -> (...): that of the signals, without their means removed.

    Where the estimate is no signal's spectrum, as behind a mask, what its frames do not agree on
    counts as an error, and the value is below that of the signal that is made of it. It comes
    close to `limit_db`, but not beyond.
    """
    return si_sdr_of(products(estimate, reference), limit_db=limit_db, eps=eps)


def snr(estimate: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """SNR in dB, (..., F, N) -> (...): that of the signals, the error being noise."""
    return snr_of(products(estimate, reference), eps=eps)


def level_ratio(
    estimate: torch.Tensor, reference: torch.Tensor, *, eps: float = 1e-8
) -> torch.Tensor:
    """Level of the estimate re the reference in dB, (..., F, N) -> (...)."""
    return level_ratio_of(products(estimate, reference), eps=eps)


def products(e: torch.Tensor, t: torch.Tensor) -> Products:
    """<e, e>, <e, t> and <t, t> of estimates and references, (...) each."""
    return dot(e, e), dot(e, t), dot(t, t)


def si_sdr_of(products: Products, *, limit_db: float = math.inf, eps: float = 1e-8) -> torch.Tensor:
    """`si_sdr` by the `products`."""
    ee, et, tt = products
    target = et.square() / (tt + eps)
    error = (ee - target).clamp(min=0) + 10 ** (-limit_db / 10) * target
    return 10 * torch.log10((target + eps) / (error + eps))


def snr_of(products: Products, *, limit_db: float = math.inf, eps: float = 1e-8) -> torch.Tensor:
    """`snr` by the `products`; it comes close to `limit_db`, but not beyond."""
    ee, et, tt = products
    error = (ee - 2 * et + tt).clamp(min=0) + 10 ** (-limit_db / 10) * tt
    return 10 * torch.log10((tt + eps) / (error + eps))


def level_ratio_of(products: Products, *, eps: float = 1e-8) -> torch.Tensor:
    """`level_ratio` by the `products`."""
    ee, _, tt = products
    return 10 * torch.log10((ee + eps) / (tt + eps))


def si_sdr_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    silence_db: float = waveforms.SILENCE_DB,
    limit_db: float = math.inf,
) -> torch.Tensor:
    """Negative SI-SDR in dB, averaged over batch, sources and channels; `limit_db` as above.

    Silent references, `silence_db` below the mixture (B, C, F, N), are as in
    `waveforms.si_sdr_loss`.
    Alone with such references it teaches no level: estimates that are all too soft cost nothing.
    """
    return _ratio_loss(si_sdr_of, estimate, reference, mixture, silence_db, limit_db)


def snr_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    silence_db: float = waveforms.SILENCE_DB,
    limit_db: float = math.inf,
) -> torch.Tensor:
    """Negative SNR in dB, otherwise as `si_sdr_loss`: a wrong level is an error, too."""
    return _ratio_loss(snr_of, estimate, reference, mixture, silence_db, limit_db)


def _ratio_loss(ratio_of, estimate, reference, mixture, silence_db, limit_db):
    loudness = waveforms.loudness_of(reference.sum(1) if mixture is None else mixture)
    found = products(estimate, reference)
    ee, _, tt = found
    powers = mean_square(estimate, square=ee), mean_square(reference, square=tt)
    values = -ratio_of(found, limit_db=limit_db)
    return waveforms.where_silent(*powers, loudness, silence_db, values)


def stretches_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    frames: int = 43,
    share: float = 0.02,
) -> torch.Tensor:
    """Error in dB re the reference, the mean over stretches of so many frames.

    10 log10(|T - E|^2 / (|T|^2 + share |X|^2)) with X the mixture (B, C, F, N), all channels at
    once: the SDR of songs is a median over seconds, so every second counts alike. share: of the
    mixture's power, which bounds what softer references can cost, silent ones too.
    """
    mixture = reference.sum(1) if mixture is None else mixture
    error, wanted = (_in_stretches(x, frames) for x in (estimate - reference, reference))
    around = _in_stretches(mixture, frames)[:, None]
    floor = SMALLEST * around.mean(-1, keepdim=True) + MIN_POWER
    return 10 * torch.log10((error + floor) / (wanted + share * around + floor)).mean()


def _in_stretches(x, frames):
    """Energies (..., M) of M stretches of spectra (..., C, F, N); the last may be shorter."""
    energy = torch.view_as_real(x).square().sum((-4, -3, -1))  # (..., N)
    energy = torch.nn.functional.pad(energy, (0, -energy.shape[-1] % frames))
    return energy.unflatten(-1, (-1, frames)).sum(-1)


def compressed_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    mixture: torch.Tensor | None = None,
    *,
    power: float = 0.3,
    complex_weight: float = 0.3,
    normalise: bool = False,
) -> torch.Tensor:
    """Mean squared difference of power-compressed spectra, complex and magnitude.

    `stfts.compressed_loss` with the model's own transform. normalise: divide the spectra by the
    RMS of the mixture's, (B, C, F, N), so that soft items count as much as loud ones.
    """
    if normalise:
        mixture = reference.sum(1) if mixture is None else mixture
        level = torch.view_as_real(mixture).square().mean((1, 2, 3, 4)) + 1e-12
        scale = level.rsqrt()[:, None, None, None, None]
        estimate, reference = estimate * scale, reference * scale
    return _Compressed.apply(estimate, reference, power, complex_weight)


class _Compressed(torch.autograd.Function):
    """mean((1 - w) (m - n)^2 + w |d|^2) of spectra e and t, whose gradient takes few passes.

    p = |e|^2 + MIN_POWER, g = p^((c - 1) / 2), m = p^(c / 2), likewise n of t; d = g e - g_t t.
    The gradient by the parts of e: 2 w g d + 2 ((1 - w) c (m - n) m + w (c - 1) g <e, d>) e / p.
    """

    @staticmethod
    def forward(ctx, estimate, reference, c, w):
        e, t = torch.view_as_real(estimate), torch.view_as_real(reference)
        (p, g, m), (_, g_t, n) = (_compressions(x, c) for x in (e, t))
        d, difference = e * g[..., None] - t * g_t[..., None], m - n
        count = difference.numel()
        if ctx.needs_input_grad[0]:
            along = _inner(e, d).mul_(g).mul_(w * (c - 1))
            along.addcmul_(difference, m, value=(1 - w) * c).div_(p)
            gradient = torch.addcmul(d * (w * g)[..., None], e, along[..., None])
            ctx.save_for_backward(torch.view_as_complex(gradient.mul_(2 / count)))
        return (difference.square().sum() * (1 - w) + d.square().sum() * w) / count

    @staticmethod
    def backward(ctx, gradient):
        return ctx.saved_tensors[0] * gradient, None, None, None


def _compressions(x, c):
    """p, p^((c - 1) / 2) and p^(c / 2) of the powers p of (..., 2)."""
    p = _inner(x, x) + MIN_POWER
    factor = p ** ((c - 1) / 2)
    return p, factor, factor * p.sqrt()


def _inner(a, b):
    """Products of complex numbers as vectors, (..., 2) -> (...); faster than a sum over two."""
    return torch.addcmul(a[..., 0] * b[..., 0], a[..., 1], b[..., 1])
