"""Graphs of models that have none beside them: made once, and kept in the cache.

A causal model has a streaming graph there, every other one a graph for whole signals, under the
digest of its weights and the version of sepcli. `python -m sepcli.graphs.cached MODEL` makes it.
"""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.errors import SepcliError, note
from sepcli.graphs.onnx import Graph, OnnxRunner, open_graph
from sepcli.models import modelfile
from sepcli.models.weights.cache import cache_folder, digest
from sepcli.version import __version__

PACKAGES = ("onnx", "onnxscript")


def cached_runner(path: Path, sha256: str, *, later: bool = False) -> OnnxRunner | None:
    """What runs the graph of the model file `path`, whose digest is `sha256`; made if need be.

    later: another process makes it, for the next time. None, with a note on the reason, where there
    is no cache, or no graph yet, or none can be made.
    """
    graph = _place(sha256, streaming=True)
    if graph is None:
        return None
    if graph.is_file():
        try:
            return OnnxRunner(graph)
        except SepcliError:  # of another version of sepcli, or damaged
            graph.unlink(missing_ok=True)
    if later:
        _begin(path, graph)
        return None
    return OnnxRunner(graph) if _made(path, graph, streaming=True) else None


def _begin(path, graph):
    """Let another process make the streaming graph of a model, which nobody waits for."""
    model, card = modelfile.load_model(path)
    if not _makes_sense(model, card, streaming=True) or _lacks_packages(path, note):
        return
    try:
        files.check_place(graph)
        files.make_folder(graph.parent)
        if (reason := _reason(graph)).is_file():
            note(files.read_text(reason))
            return
    except SepcliError as error:
        note(f"{error}; run by torch")
        return
    note(f"{path}: run by torch; a faster graph is being made for the next time: {graph}")
    command = [sys.executable, "-m", __name__, str(path.absolute())]
    apart: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, **apart)


def make_later(path: Path) -> None:
    """Put the streaming graph of a model into the cache, or the reason why there is none.

    It takes what others leave of the processor, and is done for one model at a time.
    """
    if hasattr(os, "nice"):
        os.nice(19)
    graph = _place(digest(*modelfile.weights_of(path)), streaming=True)
    if graph is None:
        return
    with suppress(SepcliError), _alone_in(graph.parent):
        told: list[str] = []
        if not graph.is_file() and not _made(path, graph, streaming=True, tell=told.append):
            files.save(_reason(graph), told[-1])


@contextmanager
def _alone_in(folder):
    """Wait until no other process is in here."""
    with open(folder / "lock", "w") as lock:
        if find_spec("fcntl"):  # not on Windows
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reason(graph):
    """Where it is written why there is no such graph."""
    return graph.with_suffix(".txt")


def whole_graph(path: Path, *, threads: int = 1, make: bool = False) -> Graph | None:
    """The graph of the model `path`, of whole spectra of any length; needs no torch.

    It is the one beside the weights, if it was made of these very ones, or that in the cache.
    make: whether to make it where there is none.
    """
    weights = modelfile.weights_of(path)
    if not weights:
        return None
    sha256, beside = digest(*weights), files.companion(path, ".onnx")
    kept = _place(sha256, streaming=False)
    for graph in (beside, kept):
        if graph and graph.is_file() and (found := _opened(graph, sha256, threads)):
            return found
    if make and kept and _made(path, kept, streaming=False):
        return _opened(kept, sha256, threads)
    return None


def keep(path: Path) -> None:
    """Put the graph of a model that is new into the cache, unless it is there or beside it.

    Does nothing, silently, where there is no cache, no graph can be made, or another process makes
    it; the command that later runs the model gives the reason.
    """
    try:
        weights = modelfile.weights_of(path)
        if cache_folder() is None or not weights or files.companion(path, ".onnx").is_file():
            return
        if all(map(find_spec, PACKAGES)):
            model, sha256 = modelfile.load_model(path)[0], digest(*weights)
            graph = _place(sha256, streaming=model.causal)
            if graph and not graph.is_file():
                _made(path, graph, streaming=model.causal, tell=lambda _message: None)
    except SepcliError:  # of a model that is in no table, for instance
        return


def _place(sha256, *, streaming):
    """Where the graph of such weights lies; None where there is no cache."""
    folder, kind = cache_folder(), "" if streaming else ".whole"
    return folder and folder / "graphs" / f"{sha256}-{__version__}{kind}.onnx"


def _opened(path, sha256, threads):
    """A graph for whole signals of any length that is of these weights, else None."""
    try:
        graph = open_graph(path, threads=threads, steady=False)
    except SepcliError:  # of another version of sepcli, or damaged
        return None
    about = graph.about
    is_free = about.get("length", 0) is None and not about.get("conditions")
    is_of_spectra = about.get("front_end") == "stft" and "hop" in (about.get("stft") or {})
    fits = graph.kind == "offline" and about.get("sha256") == sha256
    return graph if fits and is_free and is_of_spectra else None


def _is_free(model):
    """Whether a model for whole signals may have a graph that `_opened` takes."""
    return model.spectral and not model.conditioned


def _makes_sense(model, card, *, streaming):
    """Whether a model may have such a graph."""
    is_quantised = bool(card.quantized) and card.quantized["target"] == "cpu"
    return model.causal == streaming and not is_quantised and (streaming or _is_free(model))


def _lacks_packages(path, tell):
    """Whether a package that makes graphs is missing, which is told."""
    missing = [name for name in PACKAGES if not find_spec(name)]
    if missing:
        tell(
            f"{path}: run by torch; a faster graph needs {missing[0]}, which is not installed: "
            "pip install 'sepcli[export]'"
        )
    return bool(missing)


def _made(path, graph, *, streaming, tell=note):
    """Make the graph of a model; returns whether it was made. Notes say so, and give the reason."""
    if not _makes_sense(*modelfile.load_model(path), streaming=streaming):
        return False
    if _lacks_packages(path, tell):
        return False
    from sepcli.graphs.export import export

    kind = "streaming graph" if streaming else "graph"
    tell(f"{path}: making its {kind}, once: {graph}")
    try:
        export(path, graph, any_length=not streaming)
    except SepcliError as error:
        tell(f"{error}; run by torch")
        return False
    return True


if __name__ == "__main__":
    make_later(Path(sys.argv[1]))
