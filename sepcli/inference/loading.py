"""A model by its name, ready to separate audio."""

from collections.abc import Sequence
from pathlib import Path

from sepcli.inference.blockwise import Average, Method, Separates
from sepcli.inference.fullband import FullBand


def load(
    name: str | Path | Sequence[str | Path], device: str = "cpu", method: Method | None = None
) -> Separates:
    """Load the model `name` (shipped, a model file, or a run folder), ready to separate audio.

    A list of names gives the `Average` of the models.
    """
    if not isinstance(name, str | Path):
        loaded = [load(each, device, method) for each in name]
        return loaded[0] if len(loaded) == 1 else Average(loaded)
    from sepcli.inference.separate import Separator, pick_device
    from sepcli.models.modelfile import load_model

    model, card = load_model(name, pick_device(device))
    found = Separator(model, card, method)
    return FullBand(found) if found.method.full_band else found
