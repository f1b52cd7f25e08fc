"""What is found out before the first step, and not after an hour."""

from sepcli import losses
from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.nn.model import Model
from sepcli.training.ranks import Ranks
from sepcli.training.settings import Settings


def check_fit(model: Model, train_data: Items, valid_data: Items, settings: Settings) -> None:
    """Find out now, not after an hour, what does not go together."""
    if valid_data.items == 0:
        raise SepcliError("data.valid.items must be at least 1, not 0")
    if settings.progressive and model.resolution is None:
        raise SepcliError("train.progressive: the model has one resolution only; leave it out")
    if settings.mixture_consistency and len(model.sources) == 1:
        raise SepcliError(
            "train.mixture_consistency makes the sources add up to the mixture, but model.sources "
            f"is only {model.sources[0]}; name all sources, or leave it out"
        )
    _check_sources(model, "best", filter(None, [settings.best.partition(".")[2]]))
    _check_sources(model, "source_weights", settings.source_weights)
    if losses.WAVEFORM not in losses.takes(settings.loss) and not model.spectral:
        raise SepcliError(
            f"train.loss {', '.join(settings.loss)} needs a model between a Fourier transform and "
            "its inverse, such as spectral_tasnet"
        )
    for section, data in (("data.train", train_data), ("data.valid", valid_data)):
        data.check(section)
        item = data[0]
        if (channels := item[0].shape[0]) != model.channels:
            raise SepcliError(
                f"{section}: has {channels} channels but the model takes {model.channels}"
            )
        of_spectra = losses.that_take(losses.SPECTRA)
        for_sound = set(settings.loss) - set(of_spectra)
        if item[0].is_complex() and for_sound:
            raise SepcliError(
                f"train.loss {', '.join(sorted(for_sound))} needs sound; for spectrograms choose "
                f"from {', '.join(of_spectra)}"
            )


def check_ranks(model: Model, settings: Settings, ranks: Ranks) -> None:
    """Find out now what several processes cannot do."""
    if settings.batch % ranks.size:
        raise SepcliError(
            f"train.batch {settings.batch} cannot be split evenly among {ranks.size} processes; "
            f"set a multiple of {ranks.size}"
        )
    if ranks.size > 1 and settings.parallel == "fsdp" and model.measures:
        raise SepcliError(
            "train.parallel fsdp: not with a model that starts with statistics of its data; set ddp"
        )


def _check_sources(model, setting, names):
    for name in names:
        if name not in model.sources:
            known = ", ".join(model.sources)
            raise SepcliError(f"train.{setting}: the model has no {name}; choose from {known}")
