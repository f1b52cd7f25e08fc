"""Weights to begin a training with: those of another model."""

from typing import Any

from sepcli.errors import SepcliError
from sepcli.models import modelfile
from sepcli.training import sharding

NAMED = 3  # tensors in a message


def take_over(name: str, models: Any) -> tuple[int, list[Any]]:
    """Give each of `models`, which are alike, what the model `name` has under the same names.

    name: see `modelfile.locate`. Returns (how many tensors there were, the names of the others).
    Raises SepcliError where shapes differ, and where nothing is called the same.
    """
    other, card = modelfile.load_model(name)
    if card.quantized:
        raise SepcliError(f"{name}: quantised; start from the model that it was made from")
    theirs, ours = other.state_dict(), models[0].state_dict()
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise SepcliError(
            f"{name}: a {card.model}, whose weights have other names than those of this model"
        )
    unlike = [key for key in shared if theirs[key].shape != ours[key].shape]
    if unlike:
        shapes = (f"{key} {_shape(theirs[key])}, here {_shape(ours[key])}" for key in unlike)
        raise SepcliError(
            f"{name}: {len(unlike)} tensors differ in shape ({_some(list(shapes), '; ')}); give "
            "model the settings that sepcli info shows of it"
        )
    for model in models:
        sharding.load(model, {**ours, **{key: theirs[key] for key in shared}})
    return len(shared), [key for key in ours if key not in theirs]


def told(name: str, count: int, new: Any) -> str:
    """What was taken over, as a line."""
    if not new:
        return f"Initialised all {count} tensors from {name}"
    return f"Initialised {count} tensors from {name}; new: {_some(new)}"


def _some(entries, between=", "):
    more = len(entries) - NAMED
    return between.join(entries[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _shape(tensor):
    return "x".join(map(str, tensor.shape)) or "()"
