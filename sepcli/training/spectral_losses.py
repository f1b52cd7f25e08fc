"""Losses on the spectra of a model that works between an STFT and its inverse.

Estimate and reference are complex, (B, S, C, F, N): what the model made of the mixture's spectrum,
and the reference's spectrum by the same transform. No step of the training needs the inverse.
"""

import torch

from sepcli.training import losses


def as_samples(spectra):
    """(..., F, N), complex, to real (..., F*N*2) whose products are those of the signals.

    <x, y> = c Re <X, Y> with every frequency between zero and half the sample rate counted twice:
    Parseval's theorem, where the window's overlapping squares add up to a constant (which c has in
    it) and frames cover every sample.
    """
    F = spectra.shape[-2]
    scale = torch.full((F, 1, 1), 2**0.5, device=spectra.device, dtype=spectra.real.dtype)
    scale[0] = scale[-1] = 1
    return (torch.view_as_real(spectra) * scale).flatten(-3)


def si_sdr(estimate, reference):
    """SI-SDR in dB, (..., F, N) -> (...): that of the signals, without their means removed.

    Where the estimate is no signal's spectrum, as behind a mask, what its frames do not agree on
    counts as an error, and the value is below that of the signal that is made of it.
    """
    return losses.si_sdr(as_samples(estimate), as_samples(reference), zero_mean=False)


def si_sdr_loss(estimate, reference, mixture=None, *, silence_db=losses.SILENCE_DB):
    """Negative SI-SDR in dB, averaged over batch, sources and channels.

    Silent references, `silence_db` below the mixture (B, C, F, N), are as in `losses.si_sdr_loss`.
    """
    mixture = reference.sum(1) if mixture is None else mixture
    estimate, reference, mixture = map(as_samples, (estimate, reference, mixture))
    values = -losses.si_sdr(estimate, reference, zero_mean=False)
    return losses.where_silent(estimate, reference, mixture, silence_db, values)


def compressed_loss(estimate, reference, *, power=0.3, complex_weight=0.3):
    """Mean squared difference of power-compressed spectra, complex and magnitude.

    `losses.compressed_loss` with the model's own transform.
    """
    e, t = map(torch.view_as_real, (estimate, reference))
    return losses.compressed_distance(e, t, power, complex_weight)
