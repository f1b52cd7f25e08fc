"""Training checkpoints on disk: plain data, complete or absent."""

from pathlib import Path
from typing import Any

import torch

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights.unpickling import unpickled


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state`, a nest of dicts, lists, tensors, numbers, text and None, atomically.

    Whoever is killed in the middle leaves the checkpoint that was there before. Raises SepcliError
    when there is no room.
    """
    with files.replacing(path, sync=True) as part, files.honest(part) as file:
        torch.save(state, file)


def load(path: str | Path) -> Any:
    """Read what `save` wrote, tensors on the CPU; runs no code from the file.

    Raises SepcliError when there is none, or it is not one.
    """
    if not Path(path).exists():
        raise SepcliError(f"{path}: no such checkpoint; start again with --overwrite")
    try:
        return unpickled(Path(path))
    except ValueError as error:
        raise SepcliError(
            f"{path}: not a checkpoint of sepcli train ({error}); start again with --overwrite"
        ) from None
