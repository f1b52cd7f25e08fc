"""Files of torch.save, of which nothing but tensors and plain data is made: no file runs code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepcli import files


def unpickled(path: Path, stand_ins: Sequence[tuple[Any, str]] = ()) -> Any:
    """What the file `path` holds; raises ValueError with the reason where it holds more than that.

    stand_ins: pairs of what takes the place of a global, and its full name in the file.
    """
    import torch

    files.check_meant(path)
    try:
        with torch.serialization.safe_globals(list(stand_ins)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are read or refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch would advise to trust the file
        raise ValueError("it holds more than tensors and plain data, or is damaged") from None
    except Exception as error:  # whatever the bytes of a damaged file lead to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(reason) from None


def stand_in(name: str) -> tuple[Any, str]:
    """A pair for `unpickled`: a class that only has the full name of another, and no objects."""

    def refuse(cls: type, *_: Any, **__: Any) -> Any:
        raise pickle.UnpicklingError(f"an object of {name}")

    return type(name, (), {"__new__": refuse}), name
