"""Checkpoints of Open-Unmix: a file for one source, TARGET.pth, or a folder of them.

The authors' training leaves a folder with separator.json, the STFT and the sample rate, and for
each source TARGET.json, TARGET.pth (the weights) and TARGET.chkpnt (to resume from). Published
weights are files TARGET-HASH.pth. The sizes of a network are those of its weights.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights.unpickling import unpickled
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS, stem_order

if TYPE_CHECKING:
    import torch

SUFFIXES = (".pth", ".chkpnt")
NOT_WEIGHTS = {"sample_rate", "stft.window", "transform.0.window"}  # in the files of 2019
ABOUT = {"sample_rate": 44100, "nhop": None, "nfft": None}  # what separator.json says


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` is a checkpoint of Open-Unmix, or a folder of them."""
    path = Path(path)
    return path.suffix in SUFFIXES if path.is_file() else bool(checkpoints(path))


def checkpoints(path: str | Path) -> list[Path]:
    """The files of a checkpoint, or of a folder of them, in the order of the sources."""
    path = Path(path)
    found = [path] if path.is_file() else path.glob("*.pth")
    return sorted(found, key=lambda file: (stem_order(_target(file)), file.name))


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The settings of `models.open_unmix.OpenUnmix` and its weights from a checkpoint or a folder.

    A single source is given a second one, the rest of the mixture. Raises SepcliError.
    """
    found = {}
    for file in checkpoints(path):
        if found.setdefault(_target(file), file) != file:
            raise SepcliError(
                f"{file}: a second file for {_target(file)}, beside {found[_target(file)].name}; "
                "name the one to use"
            )
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    about, settings, weights = _about(folder), {}, {}
    for target, file in found.items():
        state = _state(file)
        own = _settings(file, state, about)
        if settings not in ({}, own):
            raise SepcliError(
                f"{file}: differs in size from {next(iter(found.values())).name}; name one of them"
            )
        settings = own
        for name, tensor in state.items():
            if name not in NOT_WEIGHTS:
                weights[f"networks.{target}.{name}"] = tensor
    rest = {VOCALS: ACCOMPANIMENT}.get(next(iter(found)), "rest")
    sources = [*found, rest] if len(found) == 1 else [*found]
    return {"sources": sources, "residual": len(found) == 1, **settings}, weights


def _target(file):
    """`vocals` of vocals.pth and of vocals-b62c91ce.pth."""
    return re.sub(r"-[0-9a-f]{8}$", "", file.stem)


def _about(folder):
    path = folder / "separator.json"
    try:
        return ABOUT | json.loads(files.read_text(path)) if path.exists() else ABOUT
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SepcliError(f"{path}: not what Open-Unmix writes ({error})") from None


def _state(file):
    """The state dict in a file; nothing but tensors and plain data is unpickled."""
    import torch

    try:
        saved = unpickled(file)
        state = saved.get("state_dict", saved)
        if not all(isinstance(state[name], torch.Tensor) for name in ("input_mean", "fc1.weight")):
            raise TypeError("no tensors")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise SepcliError(
            f"{file}: not a checkpoint of Open-Unmix ({reason}); expected its state dict"
        ) from None
    return state


def _settings(file, state, about):
    """The settings that give a network these weights."""
    try:
        bins, kept = len(state["output_mean"]), len(state["input_mean"])
        hidden, inputs = state["fc1.weight"].shape
        window = about["nfft"] or 2 * (bins - 1)
        rate = int(state.get("sample_rate", about["sample_rate"]))
        lstm = [re.match(r"lstm\.weight_ih_l(\d+)", name) for name in state]
        settings = {
            "sample_rate": rate,
            "channels": inputs // kept,
            "window": window,
            "hop": about["nhop"] or window // 4,
            "bandwidth_hz": (kept - 0.5) * rate / window,  # between two bins: no rounding matters
            "hidden": hidden,
            "layers": max((int(match[1]) + 1 for match in lstm if match), default=0),
            "bidirectional": "lstm.weight_ih_l0_reverse" in state,
        }
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise SepcliError(f"{file}: not a checkpoint of Open-Unmix ({error})") from None
    if window != 2 * (bins - 1):
        raise SepcliError(
            f"{file}: has {bins} frequencies, but separator.json says nfft {window}, "
            f"which has {window // 2 + 1}"
        )
    return settings
