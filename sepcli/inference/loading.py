"""A model by its name, ready to separate audio."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sepcli.files import companion
from sepcli.graphs.onnx import PROGRAM, SUFFIXES
from sepcli.inference.blockwise import Average, Method, Separates
from sepcli.inference.fullband import FullBand
from sepcli.models.modelfile import load_model, locate


def load(
    name: str | Path | Sequence[str | Path],
    device: str = "cpu",
    method: Method | None = None,
    threads: int | None = None,
) -> Separates:
    """Load the model `name` (shipped, a model file, or a run folder), ready to separate audio.

    A graph, NAME.onnx, is run by ONNX Runtime, without torch, and so is that of a model that comes
    with the package, where there is no torch; a program, NAME.pt2, by torch. A list of names gives
    the `Average` of the models. threads: of the processor; None for all cores.
    """
    if not isinstance(name, str | Path):
        loaded = [load(each, device, method, threads) for each in name]
        return loaded[0] if len(loaded) == 1 else Average(loaded)
    path, method = locate(name), method or Method()
    found = _graph(path, device, method, threads) or _model(path, device, method, threads)
    return FullBand(found) if method.full_band else found


def _graph(path, device, method, threads):
    if path.suffix not in SUFFIXES:
        path = companion(path, ".onnx")
        if find_spec("torch") or not os.path.isfile(path):
            return None
    if path.suffix == PROGRAM:
        import torch

        from sepcli.inference.separate import pick_device

        device = str(pick_device(device))
        if threads:
            torch.set_num_threads(threads)
    from sepcli.inference.graphseparator import GraphSeparator

    return GraphSeparator(path, method, device=device, threads=threads)


def _model(path, device, method, threads):
    import torch

    from sepcli.inference.separate import Separator, pick_device

    if threads:
        torch.set_num_threads(threads)
    model, card = load_model(path, pick_device(device))
    return Separator(model, card, method)
