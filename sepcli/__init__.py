"""Composable audio tools for source separation, speech enhancement and target-speaker extraction."""

from importlib import import_module

__version__ = "0.1.0"

_API = {  # public name -> the module that has it, imported on first use
}
__all__ = sorted(_API)


def __getattr__(name):
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'sepcli' has no attribute {name!r}")


def __dir__():
    return [*globals(), *_API]
