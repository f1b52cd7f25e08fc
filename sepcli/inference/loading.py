"""A model by its name, ready to separate audio."""

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
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
    engine: str = "torch",
) -> Separates:
    """Load the model `name` (shipped, a model file, or a run folder), ready to separate audio.

    A graph, NAME.onnx, is run by ONNX Runtime, without torch, and so is that of a model that comes
    with the package, where there is no torch; a program, NAME.pt2, by torch. A list of names gives
    the `Average` of the models. threads: of the processor; None for all cores.

    engine: of models that need the whole signal. `auto` runs the graph for it that is there already
    (see `graphs.cached`) by ONNX Runtime, where torch would run the model on a processor, too;
    `onnx` makes it, if need be.
    """
    if not isinstance(name, str | Path):
        loaded = [load(each, device, method, threads, engine) for each in name]
        return loaded[0] if len(loaded) == 1 else Average(loaded)
    path, how = locate(name), (device, method or Method(), threads)
    found = _graph(path, *how) or _kept_graph(path, engine, *how) or _model(path, *how)
    return FullBand(found) if how[1].full_band else found


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


def _kept_graph(path, engine, device, method, threads):
    """What runs the graph for whole signals that a model has, if that does all that is asked."""
    fits = engine != "torch" and not (method.griffin_lim or method.vocoder)
    if not fits or not (device == "cpu" or (device == "auto" and not may_have_gpu())):
        return None
    from sepcli.graphs.cached import whole_graph
    from sepcli.inference.graphseparator import GraphSeparator

    graph = whole_graph(path, threads=threads or 0, make=engine == "onnx")
    if graph is None:
        return None
    return GraphSeparator(graph, method, model=cache(lambda: _model(path, device, method, threads)))


def may_have_gpu() -> bool:
    """Whether torch may find a GPU here, as far as can be told without importing it."""
    if sys.platform == "darwin" or os.path.exists("/dev/kfd"):
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _model(path, device, method, threads):
    import torch

    from sepcli.inference.separate import Separator, pick_device

    if threads:
        torch.set_num_threads(threads)
    model, card = load_model(path, pick_device(device))
    return Separator(model, card, method)
