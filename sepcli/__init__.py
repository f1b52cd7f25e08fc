"""Composable audio tools for source separation and speech enhancement."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers; at run time, see _API
    from sepcli.audio import read as read
    from sepcli.audio import write as write
    from sepcli.dsp.acoustics import measure_rir as measure_rir
    from sepcli.dsp.decay import decay_rir as decay_rir
    from sepcli.inference.loading import load as load
    from sepcli.inference.separate import Separator as Separator
    from sepcli.mixing.mixtures import Mixer as Mixer
    from sepcli.mixing.specs import MixtureSpec as MixtureSpec
    from sepcli.models import build as build
    from sepcli.models.describe import describe as describe
    from sepcli.samples.streams import read_samples as read_samples

__version__ = "0.1.0"

_API = {  # public name -> the module that has it, imported on first use
    "Mixer": "sepcli.mixing.mixtures",
    "MixtureSpec": "sepcli.mixing.specs",
    "Separator": "sepcli.inference.separate",
    "build": "sepcli.models",
    "decay_rir": "sepcli.dsp.decay",
    "describe": "sepcli.models.describe",
    "load": "sepcli.inference.loading",
    "measure_rir": "sepcli.dsp.acoustics",
    "read": "sepcli.audio",
    "read_samples": "sepcli.samples.streams",
    "write": "sepcli.audio",
}


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'sepcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_API]
