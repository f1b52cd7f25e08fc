"""The models by name. A new one is a file beside this and a line in MODELS."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sepcli.errors import SepcliError

if TYPE_CHECKING:
    from sepcli.nn.model import Model

MODELS = {
    "band_lstm": "sepcli.models.band_lstm:BandLstmNet",
    "conv_tasnet": "sepcli.models.conv_tasnet:ConvTasNet",
    "deep_unet": "sepcli.models.deep_unet:DeepUnet",
    "dmgtcm_unet": "sepcli.models.dmgtcm_unet:DmgtcmUnet",
    "mask_unet": "sepcli.models.mask_unet:MaskUnet",
    "open_unmix": "sepcli.models.open_unmix:OpenUnmix",
    "speaker_lstm": "sepcli.models.speaker_lstm:SpeakerLstm",
    "spectral_tasnet": "sepcli.models.spectral_tasnet:SpectralTasNet",
    "tcn_max78000": "sepcli.models.tcn_max78000:TcnMax78000",
    "tfswa_resunet": "sepcli.models.tfswa_resunet:TfswaResunet",
    "tfswa_unet": "sepcli.models.tfswa_unet:TfswaUnet",
    "ul_unas": "sepcli.models.ul_unas:UlUnas",
    "unas_lstm": "sepcli.models.ul_unas:UnasLstm",
    "usef_gridnet": "sepcli.models.usef_gridnet:UsefGridNet",
}


# What constructors raise for settings that make no sense.
NONSENSE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError,
    TypeError, UserWarning, ValueError,
)  # fmt: skip

# The environment variable with models of one's own that model files may name, too: entries
# `package.module:Class` or `name=package.module:Class`, with commas between them.
OWN = "SEPCLI_MODELS"


def known() -> dict[str, str]:
    """The table and what SEPCLI_MODELS adds to it: {name: "package.module:Class"}."""
    own = filter(None, os.environ.get(OWN, "").split(","))
    pairs = (entry.strip().rpartition("=") for entry in own)
    return MODELS | {name.strip() or path.strip(): path.strip() for name, _, path in pairs}


def model_class(name: str, *, own: bool = False) -> type[Model]:
    """The class of the model called `name`; raises SepcliError naming the known ones.

    own: whether `name` is the user's and may also be the `package.module:Class` of a model that is
    in no table. What a model file says is not: it must not get any code imported.
    """
    if not isinstance(name, str):  # as what a file says may be
        raise SepcliError(_unknown(name))
    path = known().get(name) or (name if own and ":" in name else None)
    if path is None:
        raise SepcliError(_unknown(name))
    module, _, cls = path.partition(":")
    try:
        found = getattr(import_module(module), cls)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SepcliError(f"model {name}: {error}; check {path} and PYTHONPATH") from None
    from sepcli.nn.causal import conform

    return conform(found)


def resolve(section: Any) -> dict[str, Any]:
    """The section `model` of a configuration, {"name": ..., settings}, checked, with every default.

    Its model may be one's own. Raises SepcliError.
    """
    from sepcli import config

    if not isinstance(section, dict) or "name" not in section:
        raise SepcliError(f"model.name is missing; choose from {', '.join(sorted(known()))}")
    settings = {key: value for key, value in section.items() if key != "name"}
    cls = model_class(section["name"], own=True)
    checked = config.check_keys(cls, settings, section="model")
    return {"name": section["name"], **config.defaults(cls), **checked}


def build(name: str, *, own: bool = False, **settings: Any) -> Model:
    """Build the model called `name`; `settings` are its constructor's keywords, `own` as above.

    Raises SepcliError, and whatever the constructor raises.
    """
    with warnings.catch_warnings():  # of layers without a number, which is nobody's model
        warnings.filterwarnings("error", "Initializing zero-element", UserWarning)
        model = model_class(name, own=own)(**settings)
    from sepcli.nn.model import checked

    return checked(model)


def _unknown(name):
    if ":" in str(name):
        return (
            f"model {name!r} is not a model of sepcli; if you trust its code, set it in the "
            f"environment: {OWN}={name}"
        )
    return f"unknown model {name!r}; choose from {', '.join(sorted(known()))}"
