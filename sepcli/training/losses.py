"""Training losses: functions of (estimate, reference) to minimise.

LOSSES names them for configurations, and says of what they are functions: of waveforms
(B, S, C, T), or of complex spectra (B, S, C, F, N). `weighted` turns
`{"si_sdr": 1.0, "mr_stft": 0.2}` into the weighted sum. A new loss is a function and a line in the
table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

from sepcli import config
from sepcli.errors import SepcliError
from sepcli.training.energies import mean_square

WAVEFORM, SPECTRA = "waveform", "spectra"


@dataclass(frozen=True)
class Loss:
    """A line of the table: where the function is, and what it takes."""

    function: str  # "module:function"
    takes: tuple[str, ...] = (WAVEFORM,)
    mixture: bool = False  # whether it takes that, too


LOSSES = {
    "si_sdr": Loss("sepcli.training.losses:si_sdr_loss", mixture=True),
    "l1": Loss("sepcli.training.losses:l1_loss", (WAVEFORM, SPECTRA)),
    "mr_stft": Loss("sepcli.training.losses:mr_stft_loss"),
    "mr_stft_l1": Loss("sepcli.training.losses:mr_stft_l1_loss"),
    "spectral": Loss("sepcli.training.losses:spectral_parts"),
    "compressed": Loss("sepcli.training.losses:compressed_loss"),
    "magnitude": Loss("sepcli.training.losses:magnitude_loss", (WAVEFORM, SPECTRA)),
    "scene": Loss("sepcli.training.scene_losses:scene_loss", mixture=True),
    "energy": Loss("sepcli.training.scene_losses:energy_loss", mixture=True),
    "amplitude": Loss("sepcli.training.scene_losses:amplitude_loss", mixture=True),
    "phase": Loss("sepcli.training.losses:phase_loss"),
    "magnitude_l1": Loss("sepcli.training.losses:magnitude_l1_loss", (WAVEFORM, SPECTRA)),
    "features": Loss("sepcli.training.feature_loss:feature_loss"),
    "stft_si_sdr": Loss("sepcli.training.spectral_losses:si_sdr_loss", (SPECTRA,), mixture=True),
    "stft_snr": Loss("sepcli.training.spectral_losses:snr_loss", (SPECTRA,), mixture=True),
    "stft_compressed": Loss(
        "sepcli.training.spectral_losses:compressed_loss", (SPECTRA,), mixture=True
    ),
    "stft_perceptual": Loss("sepcli.training.perceptual:perceptual_loss", (SPECTRA,), mixture=True),
}

# (FFT, window, hop) in samples; Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, section 3.
RESOLUTIONS = ((1024, 600, 120), (2048, 1200, 240), (512, 240, 50))
MIN_POWER = 1e-7  # floor under a bin's power: keeps the root's and the logarithm's slope finite
MIN_MAGNITUDE = 1e-2  # RMS over bins, that of noise of -60 dB: what silence is measured against

# References that are silent have no SI-SDR; see `si_sdr_loss`.
SILENCE_DB = -60.0  # below the mixture
FLOOR_DB = -30.0  # re the mixture: below this, an estimate of silence is hardly improved
QUIETEST = 1e-4  # mean square of a mixture, -40 dB re full scale; quieter ones count as this


SIGNALS = ("estimate", "reference", "mixture")


def weighted(terms: dict[str, Any], shares: Sequence[float] | None = None) -> Any:
    """The weighted sum of losses as one function of (estimate, reference, mixture, step), tensors.

    It returns (total, {name: value}), with {name.part: value} of losses that have parts. The
    mixture, (B, C, T) or (B, C, F, N), is what silent references are measured against; by default
    it is the sum of the references. step: of the training, from 0; None means after all of them.
    terms: {name: weight}, or {name: {"weight": 1.0, "from_step": 0, "ramp_steps": 0, ...keywords of
        the loss}}: before step `from_step` a loss does not count, and is not computed; its weight
        then rises along a line for `ramp_steps` steps.
    shares: weights of the S sources, of which the losses are then the weighted mean; what weighs 0
        is not looked at. None: a loss is of all sources at once.
    Raises SepcliError for an unknown loss, a weight that is not a number, or an unknown keyword.
    """
    if not isinstance(terms, dict) or not terms:
        raise SepcliError(f"train.loss must be like {{si_sdr: 1.0, mr_stft: 0.2}}, not {terms!r}")
    made = {name: _term(name, value) for name, value in terms.items()}
    takes(terms)

    def loss(estimate, reference, mixture=None, step=None):
        weights = {name: weight * share(step) for name, (weight, share, _) in made.items()}
        values = {}
        for name, (_, share, fn) in made.items():
            if share(step):
                found = _of_sources(fn, shares, estimate, reference, mixture, LOSSES[name].mixture)
                values |= {f"{name}{part}": value for part, value in found.items()}
        total = sum(weight * values[name] for name, weight in weights.items() if name in values)
        return total, values

    return loss


def _of_sources(fn, shares, estimate, reference, mixture, wants_mixture):
    """{"": value of the loss `fn`, ".part": value of a part}, by the `shares` of the sources."""
    if shares is None:
        return _parts(fn(estimate, reference, *([mixture] if wants_mixture else [])))
    mixture = reference.sum(1) if mixture is None else mixture
    found = {}
    for source, share in enumerate(shares):
        if share:
            one = estimate[:, source : source + 1], reference[:, source : source + 1]
            for part, value in _parts(fn(*one, *([mixture] if wants_mixture else []))).items():
                found[part] = found.get(part, 0.0) + share / sum(shares) * value
    return found


def _parts(value):
    """A loss, or the pair of a loss and the dict of its parts, as one dict."""
    total, parts = value if isinstance(value, tuple) else (value, {})
    return {"": total, **{f".{name}": part for name, part in parts.items()}}


def takes(terms: Iterable[str]) -> list[str]:
    """What all of these losses take: WAVEFORM, SPECTRA or both; SepcliError if not the same."""
    common = [kind for kind in (WAVEFORM, SPECTRA) if all(kind in LOSSES[t].takes for t in terms)]
    if not common:
        needs = ", ".join(f"{name} needs {' or '.join(LOSSES[name].takes)}" for name in terms)
        raise SepcliError(f"train.loss: {needs}; choose losses of one kind")
    return common


def that_take(kind: str) -> list[str]:
    """The names of the losses that take WAVEFORM, or SPECTRA."""
    return [name for name, loss in LOSSES.items() if kind in loss.takes]


def _term(name, value):
    if name not in LOSSES:
        raise SepcliError(f"unknown loss {name!r}; choose from {', '.join(sorted(LOSSES))}")
    settings = dict(value) if isinstance(value, dict) else {"weight": value}
    weight = settings.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise SepcliError(f"train.loss.{name} must be a number, not {weight!r}")
    steps = [settings.pop(key, 0) for key in ("from_step", "ramp_steps")]
    if not all(isinstance(count, int) and count >= 0 for count in steps):
        raise SepcliError(f"train.loss.{name}: from_step and ramp_steps must be numbers of steps")
    module, function = LOSSES[name].function.split(":")
    fn = getattr(import_module(module), function)
    settings = config.check_keys(fn, settings, section=f"train.loss.{name}", reserved=SIGNALS)
    return weight, partial(ramp, *steps), partial(fn, **settings)


def ramp(start: int, steps: int, step: int | None) -> float:
    """0 before step `start`, then a line to 1 `steps` later; 1 when `step` is None."""
    if step is None or step >= start + steps:
        return 1.0
    return max(0.0, (step - start) / steps) if step > start else 0.0


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
        window = torch.hann_window(size, dtype=estimate.dtype, device=estimate.device)
        e, t = (_stft(x, n_fft, hop, window) for x in (estimate, reference))
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
    window = torch.hann_window(n_fft, dtype=estimate.dtype, device=estimate.device)
    e, t = _stft(estimate, n_fft, hop, window), _stft(reference, n_fft, hop, window)
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
    window = torch.hann_window(n_fft, dtype=estimate.dtype, device=estimate.device)
    e = _compress(_stft(estimate, n_fft, hop, window), power)
    t = _compress(_stft(reference, n_fft, hop, window), power)
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
    window = torch.hann_window(n_fft, dtype=estimate.dtype, device=estimate.device)
    return tuple(_norm(_stft(x, n_fft, hop, window)) for x in (estimate, reference))


def _magnitudes(estimate, reference):
    """Pairs of magnitude spectrograms (estimate, reference), one for each resolution."""
    for n_fft, size, hop in RESOLUTIONS:
        window = torch.hann_window(size, dtype=estimate.dtype, device=estimate.device)
        yield tuple(
            _stft(x, n_fft, hop, window).square().sum(-1).clamp(min=MIN_POWER).sqrt()
            for x in (estimate, reference)
        )


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
