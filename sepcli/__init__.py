"""Composable audio tools for source separation and speech enhancement."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sepcli.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers; at run time, see _API
    from sepcli.about import describe as describe
    from sepcli.audio import read as read
    from sepcli.audio import write as write
    from sepcli.data.datasets import Dataset as Dataset
    from sepcli.dsp.acoustics import measure_rir as measure_rir
    from sepcli.dsp.decay import decay_rir as decay_rir
    from sepcli.dsp.frames import FrameCutter as FrameCutter
    from sepcli.dsp.frames import OverlapAdd as OverlapAdd
    from sepcli.dsp.level import from_db as db_to_power
    from sepcli.dsp.level import gain_db as amplitude_to_db
    from sepcli.dsp.level import mean_square as mean_square
    from sepcli.dsp.level import mix_at_snr as mix_at_snr
    from sepcli.dsp.level import multiplier as db_to_amplitude
    from sepcli.dsp.level import normalise_to_rms as normalize_to_rms
    from sepcli.dsp.level import rms as rms
    from sepcli.dsp.level import rms_db as rms_db
    from sepcli.dsp.level import scale_to_snr as scale_to_snr
    from sepcli.dsp.level import snr_db as snr_db
    from sepcli.dsp.level import to_db as power_to_db
    from sepcli.dsp.room import convolve as apply_rir
    from sepcli.inference.loading import load as load
    from sepcli.inference.separate import Separator as Separator
    from sepcli.mixing.mixtures import Mixer as Mixer
    from sepcli.mixing.specs import MixtureSpec as MixtureSpec
    from sepcli.models import build as build
    from sepcli.recordings.samplers import RirSampler as RirSampler
    from sepcli.recordings.samplers import SignalSampler as SignalSampler
    from sepcli.samples.streams import read_samples as read_samples

_API = {  # public name -> "module:name", imported on first use
    "Dataset": "sepcli.data.datasets:Dataset",
    "FrameCutter": "sepcli.dsp.frames:FrameCutter",
    "Mixer": "sepcli.mixing.mixtures:Mixer",
    "MixtureSpec": "sepcli.mixing.specs:MixtureSpec",
    "OverlapAdd": "sepcli.dsp.frames:OverlapAdd",
    "RirSampler": "sepcli.recordings.samplers:RirSampler",
    "Separator": "sepcli.inference.separate:Separator",
    "SignalSampler": "sepcli.recordings.samplers:SignalSampler",
    "amplitude_to_db": "sepcli.dsp.level:gain_db",
    "apply_rir": "sepcli.dsp.room:convolve",
    "build": "sepcli.models:build",
    "db_to_amplitude": "sepcli.dsp.level:multiplier",
    "db_to_power": "sepcli.dsp.level:from_db",
    "decay_rir": "sepcli.dsp.decay:decay_rir",
    "describe": "sepcli.about:describe",
    "load": "sepcli.inference.loading:load",
    "mean_square": "sepcli.dsp.level:mean_square",
    "measure_rir": "sepcli.dsp.acoustics:measure_rir",
    "mix_at_snr": "sepcli.dsp.level:mix_at_snr",
    "normalize_to_rms": "sepcli.dsp.level:normalise_to_rms",
    "power_to_db": "sepcli.dsp.level:to_db",
    "read": "sepcli.audio:read",
    "read_samples": "sepcli.samples.streams:read_samples",
    "rms": "sepcli.dsp.level:rms",
    "rms_db": "sepcli.dsp.level:rms_db",
    "scale_to_snr": "sepcli.dsp.level:scale_to_snr",
    "snr_db": "sepcli.dsp.level:snr_db",
    "write": "sepcli.audio:write",
}
__all__ = [
    "Dataset",
    "FrameCutter",
    "Mixer",
    "MixtureSpec",
    "OverlapAdd",
    "RirSampler",
    "Separator",
    "SignalSampler",
    "amplitude_to_db",
    "apply_rir",
    "build",
    "db_to_amplitude",
    "db_to_power",
    "decay_rir",
    "describe",
    "load",
    "mean_square",
    "measure_rir",
    "mix_at_snr",
    "normalize_to_rms",
    "power_to_db",
    "read",
    "read_samples",
    "rms",
    "rms_db",
    "scale_to_snr",
    "snr_db",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _API:
        module, _, own = _API[name].partition(":")
        return getattr(import_module(module), own)
    raise AttributeError(f"module 'sepcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_API]
