"""Losses of waveforms (B, S, C, T) by their short-time Fourier transforms."""

import torch

# (FFT, window, hop) in samples; Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, section 3.
RESOLUTIONS = ((1024, 600, 120), (2048, 1200, 240), (512, 240, 50))
MIN_POWER = 1e-7  # floor under a bin's power: keeps the root's and the logarithm's slope finite
MIN_MAGNITUDE = 1e-2  # RMS over bins, that of noise of -60 dB: what silence is measured against


def mr_stft_loss(estimate: torch.Tensor, reference: torch.Tensor) -> float:
    """Spectral convergence plus log-magnitude distance, averaged over three resolutions.

    | |T| - |E| |_F / | |T| |_F  +  mean | ln|T| - ln|E| |
    Yamamoto et al., "Parallel WaveGAN", ICASSP 2020. T must exceed 1,024 samples.
    """
    total = 0.0
    for mag, target in _magnitudes(estimate, reference):
        floor = MIN_MAGNITUDE * target.numel() ** 0.5  # a batch may be silent as a whole
        norm = torch.linalg.norm(target).clamp(min=floor)
        convergence = torch.linalg.norm(target - mag) / norm
        total = total + convergence + (target.log() - mag.log()).abs().mean()
    return total / len(RESOLUTIONS)


def mr_stft_l1_loss(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor | float:
    """Mean absolute difference of STFT magnitudes, averaged over three resolutions."""
    differences = [(target - mag).abs().mean() for mag, target in _magnitudes(estimate, reference)]
    return sum(differences) / len(RESOLUTIONS)


def phase_loss(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of real and imaginary parts, averaged over three resolutions."""
    total = estimate.new_zeros(())
    for n_fft, size, hop in RESOLUTIONS:
        e, t = _stfts(estimate, reference, n_fft, hop, size)
        total = total + (e - t).abs().mean()
    return total / len(RESOLUTIONS)


def spectral_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    n_fft: int = 1024,
    hop: int = 512,
    complex_weight: float = 0.3,
) -> torch.Tensor:
    """Mean squared difference of spectra, of their real and imaginary parts and of the magnitudes.

    (1 - w) mean((|T| - |E|)^2) + w mean((T - E)^2) with w = `complex_weight`; the second mean is
    over real and imaginary parts as numbers of their own. The window is a Hann window of `n_fft`.
    """
    settings = {"n_fft": n_fft, "hop": hop, "complex_weight": complex_weight}
    return spectral_parts(estimate, reference, **settings)[0]


def spectral_parts(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    n_fft: int = 1024,
    hop: int = 512,
    complex_weight: float = 0.3,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`spectral_loss`, and its two means before they are weighted: "complex" and "magnitude"."""
    e, t = _stfts(estimate, reference, n_fft, hop)
    parts = {
        "complex": (e - t).square().mean(),
        "magnitude": (_norm(e) - _norm(t)).square().mean(),
    }
    total = (1 - complex_weight) * parts["magnitude"] + complex_weight * parts["complex"]
    return total, parts


def compressed_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    n_fft: int = 512,
    hop: int = 128,
    power: float = 0.3,
    complex_weight: float = 0.3,
) -> torch.Tensor:
    """Mean squared difference of power-compressed spectra, complex and magnitude.

    (1 - w) mean(| |T|^c - |E|^c |^2) + w mean(| |T|^c exp(i arg T) - |E|^c exp(i arg E) |^2) with
    c = `power`, w = `complex_weight`: Braun & Tashev, "Data augmentation and loss normalization
    for deep noise suppression", SPECOM 2020.
    """
    e, t = (_compress(x, power) for x in _stfts(estimate, reference, n_fft, hop))
    phase_aware = (e - t).square().sum(-1).mean()
    magnitude = (_norm(e) - _norm(t)).square().mean()
    return (1 - complex_weight) * magnitude + complex_weight * phase_aware


def magnitude_loss(
    estimate: torch.Tensor, reference: torch.Tensor, *, n_fft: int = 4096, hop: int = 1024
) -> torch.Tensor:
    """Mean squared difference of magnitude spectrograms, what Open-Unmix learns by.

    Stöter et al., "Open-Unmix - A Reference Implementation for Music Source Separation", 2019.
    n_fft, hop: of the spectrograms that signals are turned into, with a Hann window.
    """
    e, t = _magnitude_pair(estimate, reference, n_fft, hop)
    return (e - t).square().mean()


def magnitude_l1_loss(
    estimate: torch.Tensor, reference: torch.Tensor, *, n_fft: int = 4096, hop: int = 1024
) -> torch.Tensor:
    """Mean absolute difference of magnitude spectrograms, as in `magnitude_loss`."""
    e, t = _magnitude_pair(estimate, reference, n_fft, hop)
    return (e - t).abs().mean()


def _magnitude_pair(estimate, reference, n_fft, hop):
    """The magnitudes of spectra, or of signals under a Hann window of `n_fft`."""
    if estimate.is_complex():
        return estimate.abs(), reference.abs()
    return map(_norm, _stfts(estimate, reference, n_fft, hop))


def _magnitudes(estimate, reference):
    """Pairs of magnitude spectrograms (estimate, reference), one for each resolution."""
    for n_fft, size, hop in RESOLUTIONS:
        spectra = _stfts(estimate, reference, n_fft, hop, size)
        yield tuple(x.square().sum(-1).clamp(min=MIN_POWER).sqrt() for x in spectra)


def _stfts(estimate, reference, n_fft, hop, size=None):
    """The spectra of both, see `_stft`, under a Hann window of `size`, or else of `n_fft`."""
    window = torch.hann_window(size or n_fft, dtype=estimate.dtype, device=estimate.device)
    return [_stft(x, n_fft, hop, window) for x in (estimate, reference)]


def _stft(x, n_fft, hop, window):
    """(B, S, C, T) to real and imaginary parts (B*S*C, F, N, 2)."""
    if x.shape[-1] <= n_fft // 2:
        raise ValueError(f"expected more than {n_fft // 2} samples, got {x.shape[-1]}")
    flat = x.reshape(-1, x.shape[-1])  # (B*S*C, T)
    spectrum = torch.stft(flat, n_fft, hop, len(window), window, return_complex=True)
    return torch.view_as_real(spectrum)


def _compress(spectrum, power):
    """Raise the magnitude of (..., 2) to `power` and keep the phase."""
    energy = spectrum.square().sum(-1, keepdim=True)
    return spectrum * (energy + MIN_POWER) ** ((power - 1) / 2)


def _norm(spectrum):
    return (spectrum.square().sum(-1) + MIN_POWER**2).sqrt()
