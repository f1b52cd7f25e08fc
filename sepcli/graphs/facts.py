"""What a graph says of itself, checked before anything is made of it: it may be another's."""

import math
from typing import Any

from sepcli.errors import SepcliError
from sepcli.signals.checks import HIGHEST_RATE, MOST_CHANNELS, are_names

LARGEST = 1 << 24  # samples of a hop, a delay, a window
MOST_AXES = 16  # of a state
MOST_STATES = 1 << 26  # numbers in all states together


def check(path: Any, kind: str, about: dict[str, Any]) -> None:
    """Raise SepcliError for metadata that no graph has; see `graphs/onnx.py`."""
    if kind != "condition":
        for name, will_do in FACTS.items():
            if name in about and not will_do(about[name]):
                raise _nonsense(path, name, about[name])
        if (about.get("length") or LARGEST) < about.get("hop", 1):
            raise _nonsense(path, "length", about["length"])
        if about.get("stft") is not None and not _is_transform(about["stft"]):
            raise _nonsense(path, "stft", "another transform")
        if kind == "streaming" and about.get("front_end") == "stft":
            if about.get("channels") != 1:
                raise _nonsense(path, "channels", about.get("channels"))
            if (about.get("stft") or {}).get("stride") != about.get("hop"):
                raise _nonsense(path, "hop", about.get("hop"))
        if sum(math.prod(shape) for shape in about.get("states") or ()) > MOST_STATES:
            raise _nonsense(path, "states", "more than memory holds")
    elif not _is_whole(about.get("conditions"), 1, 1000):
        raise _nonsense(path, "conditions", about.get("conditions"))


def _nonsense(path, name, value):
    return SepcliError(
        f"{path}: not a graph that sepcli export made ({name} is {value!r:.60}); make it again"
    )


def _is_whole(value, low, high):
    return type(value) is int and low <= value <= high


def _is_size(value):
    return _is_whole(value, 1, LARGEST)


def _are_shapes(value):
    if not isinstance(value, list) or not all(isinstance(shape, list) for shape in value):
        return False
    few = all(len(shape) <= MOST_AXES for shape in value)
    return few and all(_is_whole(size, 0, LARGEST) for shape in value for size in shape)


def _is_transform(about):
    """Whether it is what a class of `dsp/stft.py` takes, with windows that overlap."""
    if not isinstance(about, dict):
        return False
    window: Any = about.get("window")
    other: Any = about.get("synthesis_window", window)
    if not (_is_window(window) and _is_window(other)):
        return False
    if len(window) != len(other):
        return False
    return _is_whole(about.get("stride", about.get("hop")), 1, len(window))


def _is_window(value):
    numbers = isinstance(value, list) and 2 <= len(value) <= LARGEST
    return numbers and all(isinstance(x, int | float) and math.isfinite(x) for x in value)


FACTS = {  # what a value has to be, where there is one
    "sample_rate": lambda x: _is_whole(x, 1, HIGHEST_RATE),
    "sources": are_names,
    "channels": lambda x: _is_whole(x, 1, MOST_CHANNELS),
    "hop": _is_size,
    "delay": lambda x: _is_whole(x, 0, LARGEST),
    "length": lambda x: x is None or _is_size(x),
    "segment_s": lambda x: isinstance(x, int | float) and 0 < x < LARGEST,
    "hops": lambda x: x is None or _is_size(x),
    "states": _are_shapes,
    "conditions": lambda x: _is_whole(x, 0, 1000),
    "consistent": lambda x: isinstance(x, bool),
    "front_end": lambda x: isinstance(x, str),
    "sha256": lambda x: isinstance(x, str),
    "tolerance": lambda x: isinstance(x, int | float) and 0 < x < 1,
}
