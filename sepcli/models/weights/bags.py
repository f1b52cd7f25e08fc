"""Files of Demucs: NAME.th, NAME-DIGITS.th, NAME.safetensors, and bags of them, BAG.yaml.

A bag names its `models`, which lie beside it, their `weights` for each source (all 1 if missing),
and the `segment` in seconds that they run on. DIGITS are the first 8 of a file's SHA-256.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights.cache import digest

YAML = (".yaml", ".yml")
SUFFIX = ".th"


@dataclass(frozen=True)
class Bag:
    """Files of models, whose estimates are averaged. weights: of each for each source."""

    files: tuple[Path, ...]
    weights: tuple[tuple[float, ...], ...] | None = None
    segment_s: float | None = None


def is_bag(path: Path) -> bool:
    """Whether `path` is a YAML file with a list of `models`."""
    return path.suffix in YAML and isinstance(_content(path).get("models"), list)


def in_folder(folder: Path) -> Path | None:
    """The only bag in a folder, or else the only file NAME.th; None where there is neither."""
    bags = [path for end in YAML for path in sorted(folder.glob(f"*{end}")) if is_bag(path)]
    for found in (bags, sorted(folder.glob(f"*{SUFFIX}"))):
        if len(found) == 1:
            return found[0]
    return None


def read_bag(path: Path) -> Bag:
    """What a bag says, or a bag of a single file; raises SepcliError where files are missing."""
    if path.suffix not in YAML:
        check_digits(path)
        return Bag((path,))
    about = _content(path)
    found = tuple(_member(path, str(name)) for name in about["models"])
    try:
        weights, segment = about.get("weights"), about.get("segment")
        if weights is not None:
            weights = tuple(tuple(float(one) for one in each) for each in weights)
            if len(weights) != len(found) or not all(min(each) >= 0 for each in weights):
                raise ValueError("weights: a list of numbers, 0 or more, for each model")
        segment = None if segment is None else float(segment)
        if not found or (segment is not None and not segment > 0):
            raise ValueError("models: none" if not found else f"segment: {segment:g}")
    except (TypeError, ValueError) as error:
        raise SepcliError(f"{path}: not a bag of Demucs ({error})") from None
    for each in dict.fromkeys(found):
        check_digits(each)
    return Bag(found, weights, segment)


def check_digits(path: Path) -> None:
    """Raise SepcliError where a file is not what the digits in its name say."""
    digits = re.search(r"-([0-9a-f]{8})$", path.stem)
    if not digits or path.suffix != SUFFIX:
        return
    found = digest(path)
    if not found.startswith(digits[1]):
        raise SepcliError(
            f"{path}: damaged, its SHA-256 begins with {found[:8]}, not {digits[1]}; download it "
            "again"
        )


def _member(bag: Path, name: str) -> Path:
    """The file of the model `name` of a bag."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise SepcliError(f"{bag}: not the name of a model beside it: {name!r}")
    exact = [bag.with_name(name + end) for end in (".safetensors", SUFFIX)]
    hashed = sorted(bag.parent.glob(f"{name}-*{SUFFIX}"))
    found = [path for path in exact if os.path.isfile(path)] or hashed
    if len(found) != 1:
        raise SepcliError(
            f"{bag}: needs {name}.safetensors or {name}-DIGITS{SUFFIX} beside it, and there are "
            f"{len(found) or 'none'}"
        )
    return found[0]


def _content(path: Path) -> dict[str, Any]:
    """What a YAML file holds; nothing of what is no mapping, or cannot be read."""
    import yaml

    try:
        about = yaml.safe_load(files.read_text(path))
    except (yaml.YAMLError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
