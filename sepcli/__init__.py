"""Composable audio tools for source separation and speech enhancement."""

from importlib import import_module

__version__ = "0.1.0"

_API = {  # public name -> the module that has it, imported on first use
    "Mixer": "sepcli.mixing.mixtures",
    "MixtureSpec": "sepcli.mixing.specs",
    "Separator": "sepcli.inference.separate",
    "build": "sepcli.models",
    "decay_rir": "sepcli.dsp.decay",
    "describe": "sepcli.models.describe",
    "load": "sepcli.inference.separate",
    "measure_rir": "sepcli.dsp.acoustics",
    "read": "sepcli.audio",
    "read_samples": "sepcli.samples.streams",
    "write": "sepcli.audio",
}
__all__ = sorted(_API)


def __getattr__(name):
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'sepcli' has no attribute {name!r}")


def __dir__():
    return [*globals(), *_API]
