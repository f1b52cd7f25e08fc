"""The models by name. A new one is a file beside this and a line in MODELS."""

from importlib import import_module

from sepcli.errors import SepcliError

MODELS = {
    "conv_tasnet": "sepcli.models.conv_tasnet:ConvTasNet",
    "dmgtcm_unet": "sepcli.models.dmgtcm_unet:DmgtcmUnet",
    "mask_unet": "sepcli.models.mask_unet:MaskUnet",
    "open_unmix": "sepcli.models.open_unmix:OpenUnmix",
    "spectral_tasnet": "sepcli.models.spectral_tasnet:SpectralTasNet",
    "tcn_max78000": "sepcli.models.tcn_max78000:TcnMax78000",
}


def model_class(name):
    """The class of the model called `name`; raises SepcliError naming the known ones."""
    if name not in MODELS:
        raise SepcliError(f"unknown model {name!r}; choose from {', '.join(sorted(MODELS))}")
    module, cls = MODELS[name].split(":")
    return getattr(import_module(module), cls)


def build(name, **settings):
    """Build the model called `name`; `settings` are its constructor's keywords."""
    return model_class(name)(**settings)
