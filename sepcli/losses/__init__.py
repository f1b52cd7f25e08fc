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

from sepcli import config
from sepcli.errors import SepcliError

WAVEFORM, SPECTRA = "waveform", "spectra"


@dataclass(frozen=True)
class Loss:
    """A line of the table: where the function is, and what it takes."""

    function: str  # "module:function"
    takes: tuple[str, ...] = (WAVEFORM,)
    mixture: bool = False  # whether it takes that, too


LOSSES = {
    "si_sdr": Loss("sepcli.losses.waveforms:si_sdr_loss", mixture=True),
    "l1": Loss("sepcli.losses.waveforms:l1_loss", (WAVEFORM, SPECTRA)),
    "mr_stft": Loss("sepcli.losses.stfts:mr_stft_loss"),
    "mr_stft_l1": Loss("sepcli.losses.stfts:mr_stft_l1_loss"),
    "spectral": Loss("sepcli.losses.stfts:spectral_parts"),
    "compressed": Loss("sepcli.losses.stfts:compressed_loss"),
    "magnitude": Loss("sepcli.losses.stfts:magnitude_loss", (WAVEFORM, SPECTRA)),
    "scene": Loss("sepcli.losses.scene:scene_loss", mixture=True),
    "energy": Loss("sepcli.losses.scene:energy_loss", mixture=True),
    "amplitude": Loss("sepcli.losses.scene:amplitude_loss", mixture=True),
    "phase": Loss("sepcli.losses.stfts:phase_loss"),
    "magnitude_l1": Loss("sepcli.losses.stfts:magnitude_l1_loss", (WAVEFORM, SPECTRA)),
    "features": Loss("sepcli.losses.features:feature_loss"),
    "stft_si_sdr": Loss("sepcli.losses.spectral:si_sdr_loss", (SPECTRA,), mixture=True),
    "stft_snr": Loss("sepcli.losses.spectral:snr_loss", (SPECTRA,), mixture=True),
    "stft_stretches": Loss("sepcli.losses.spectral:stretches_loss", (SPECTRA,), mixture=True),
    "stft_compressed": Loss("sepcli.losses.spectral:compressed_loss", (SPECTRA,), mixture=True),
    "stft_perceptual": Loss("sepcli.losses.perceptual:perceptual_loss", (SPECTRA,), mixture=True),
}


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
    if name not in tuple(LOSSES):
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
