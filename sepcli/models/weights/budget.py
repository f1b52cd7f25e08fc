"""Settings in a model file cannot make a model of much more than the file holds."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST = 1 << 20  # whole number in the settings of a model
MOST_MODULES = 20  # for each tensor of a file; those without weights count, too
FEW_WEIGHTS, FEW_MODULES = 1 << 20, 1000  # that any model may have


def size_of(path: str | Path) -> tuple[int, int]:
    """(How many numbers, how many tensors) there are in a .safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        sizes = [1] * len(names)
        for place, name in enumerate(names):
            for length in file.get_slice(name).get_shape():
                sizes[place] *= length
    return sum(sizes), len(names)


def check_settings(settings: Any) -> None:
    """Raise ValueError for numbers that no setting of a model has."""
    if isinstance(settings, dict | list | tuple):
        for value in settings.values() if isinstance(settings, dict) else settings:
            check_settings(value)
    elif isinstance(settings, int) and abs(settings) > LARGEST:
        raise ValueError(f"{settings} in its settings is beyond {LARGEST}")


@contextlib.contextmanager
def at_most(numbers: int, tensors: int) -> Iterator[None]:
    """Raise ValueError once a model that is built has far more weights, or modules, than that.

    Twice as many are allowed, as what is quantised has fewer than what it is made of. A weight is
    counted before it gets its first values, and with them memory.
    """
    from torch.nn.modules import module

    thread = threading.get_ident()
    left = [2 * numbers + FEW_WEIGHTS, MOST_MODULES * tensors + FEW_MODULES]

    def count(which, size):
        if threading.get_ident() == thread:
            left[which] -= size
            if left[which] < 0:
                raise ValueError(
                    f"its settings need far more weights than the {numbers} in the file"
                )

    def weight(_owner, _name, tensor):
        count(0, 0 if tensor is None else tensor.numel())

    def part(_owner, _name, _module):
        count(1, 1)

    hooks = (
        module.register_module_parameter_registration_hook(weight),
        module.register_module_module_registration_hook(part),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
