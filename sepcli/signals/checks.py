"""What every sound is checked for on its way in and out, and how complaints are worded."""

import os
from typing import Any

import numpy as np

from sepcli.errors import SepcliError

HIGHEST_RATE = 768_000  # Hz; the fastest converters on sale
MOST_CHANNELS = 64


def check_layout(name: str, sample_rate: Any, channels: Any, *, remedy: str) -> None:
    """Refuse sample rates and channel counts that are nothing but a damaged header or a slip."""
    if not 1 <= sample_rate <= HIGHEST_RATE:
        raise SepcliError(
            f"{name}: a sample rate of {sample_rate} Hz, not 1 to {HIGHEST_RATE}; {remedy}"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise SepcliError(f"{name}: {channels} channels, not 1 to {MOST_CHANNELS}; {remedy}")


def check_finite(name: str, audio: np.ndarray, sample_rate: int, *, start: int = 0) -> None:
    """Refuse NaN and infinity in (C, T), saying where the first is; `start` is T's first frame."""
    finite = np.isfinite(audio)
    if not finite.all():
        frame = int(np.argmin(finite.all(axis=0)))
        value = audio[int(np.argmin(finite[:, frame])), frame]
        raise SepcliError(
            f"{name}: {'NaN' if np.isnan(value) else 'infinity'} at "
            f"{(start + frame) / sample_rate:.3f} s (sample {start + frame}); "
            "repair or remove what made it"
        )


def check_shape(audio: np.ndarray, channels: int | None = None) -> None:
    """Refuse, as a caller's mistake, what is not a float array (channels, samples)."""
    if audio.ndim != 2 or channels not in (None, len(audio)):
        raise ValueError(f"expected ({channels or 'channels'}, samples), got shape {audio.shape}")
    if audio.dtype.kind != "f":
        raise ValueError(f"expected floats within [-1, 1], got {audio.dtype}")


def damaged(name: str, what: str) -> SepcliError:
    """The error for a file that its writer or its journey spoiled."""
    return SepcliError(f"{name}: damaged ({what}); copy or record it again")


def cut_off(name: str, what: str) -> SepcliError:
    """The error for a file that stops before the end its header promises."""
    return SepcliError(f"{name}: cut off ({what}); copy or record it again")


def told_too_little(name: str, told: Any) -> SepcliError:
    """The error for a file that goes on behind the `told` bytes that its header declares."""
    return SepcliError(
        f"{name}: data follow the {told} bytes that its header declares, with neither padding "
        "nor a tag; its sizes are wrong (those of 32 bits wrap around at 4 GiB), write it again"
    )


def too_short(name: str, present: int, promised: int | None, unit: str = "samples") -> SepcliError:
    """`cut_off` where the header tells how many `unit` there should be."""
    return cut_off(name, f"{present} of {promised} {unit} are there")


def are_names(value: Any) -> bool:
    """Whether it is a list of different names of sources, none of which leads a file elsewhere."""
    named = isinstance(value, tuple | list) and all(is_name(name) for name in value)
    return named and 0 < len(value) == len(set(value))


def is_name(value: Any) -> bool:
    """Whether it is text that names a file in a folder, and no other place."""
    if not isinstance(value, str) or value in ("", ".", "..") or set(value) & set("/\\\0"):
        return False
    try:
        return bool(os.fsencode(value))
    except UnicodeEncodeError:  # half a character, as JSON can have it
        return False


def is_path(value: object) -> bool:
    """Whether it is text that may name a file: not empty, without a NUL or half a character."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        return bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False
