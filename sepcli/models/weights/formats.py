"""Whose format a file of weights has; needs no torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from sepcli.models.weights import bags, openunmix

OPEN_UNMIX, MSST, DEMUCS = "open_unmix", "msst", "demucs"
SUFFIXES = {".ckpt": MSST, ".chpt": MSST}
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format


def format_of(path: Path) -> str | None:
    """The format of other people's weights; None of a model file of ours, or of anything else."""
    if path.suffix in SUFFIXES and path.is_file():
        return SUFFIXES[path.suffix]
    if path.suffix == bags.SUFFIX and path.is_file():
        return MSST if _has_yaml(path) else DEMUCS
    if path.suffix in bags.YAML and path.is_file():
        return DEMUCS if bags.is_bag(path) else None
    if path.suffix == ".safetensors":
        return _of_tensors(path)
    return OPEN_UNMIX if openunmix.is_checkpoint(path) else None


def _of_tensors(path):
    about = _metadata(path)
    if about is None or "sepcli" in about:
        return None
    if "klass" in about:
        return DEMUCS
    return MSST if _has_yaml(path) else None


def _has_yaml(path):
    """Whether its settings lie beside it, under its name."""
    beside = [path.with_suffix(end) for end in bags.YAML]
    return any(each.is_file() and not bags.is_bag(each) for each in beside)


def _metadata(path: Path) -> dict[str, Any] | None:
    """What a file of safetensors says of itself; None where it is no such file."""
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > LONGEST_HEADER:
                return None
            return json.loads(file.read(size)).get("__metadata__", {})
    except (OSError, ValueError, struct.error, AttributeError):
        return None
