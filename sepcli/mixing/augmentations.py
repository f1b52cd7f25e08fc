"""What may be changed in the stems of a song, and how much."""

import math
from typing import Any

from sepcli.errors import SepcliError

# name -> what is drawn, in which unit, and from which range unless told otherwise.
AUGMENTATIONS = {
    "swap": None,  # left and right, half of the time
    "polarity": None,  # half of the time
    "remix": None,  # every stem is from a song of its own
    "gain": (0.25, 1.25),  # factor; the range of Open-Unmix
    "pitch": (-2.0, 2.0),  # semitones
    "stretch": (0.9, 1.1),  # tempo
    "time-mask": (0.0, 0.5),  # s of silence
    "freq-mask": (0.0, 1.0),  # octaves taken out
    "gain-db": (-6.0, 6.0),
}
_LIMITS = {"pitch": (-24, 24), "stretch": (0.25, 4), "time-mask": (0, 60), "freq-mask": (0, 10)}
_LIMITS |= {"gain-db": (-200, 200)}


def augmentation(entry: str) -> tuple[str, Any]:
    """("gain", (0.5, 2.0)) of "gain=0.5:2"; SepcliError for what is none."""
    name, equals, text = entry.partition("=")
    if name not in AUGMENTATIONS:
        raise SepcliError(f"augment: unknown {name!r}; choose from {', '.join(AUGMENTATIONS)}")
    default = AUGMENTATIONS[name]
    if not equals:
        return name, default
    low, _, high = text.partition(":")
    try:
        pair = float(low) + 0, float(high or low) + 0  # -0 is 0
    except ValueError:
        pair = math.nan, math.nan
    if default is None or not -math.inf < pair[0] <= pair[1] < math.inf:
        raise SepcliError(f"augment: {entry} is not a range; write {name}, or as gain=0.25:1.25")
    low, high = _LIMITS.get(name, pair)
    if not low <= pair[0] <= pair[1] <= high:
        raise SepcliError(f"augment: {entry} exceeds the allowed range {low}:{high}")
    return name, pair
