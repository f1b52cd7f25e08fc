"""The streaming graph of a model that has none beside it: made once, kept in the cache."""

from importlib.util import find_spec
from pathlib import Path

from sepcli.errors import SepcliError, note
from sepcli.graphs.onnx import OnnxRunner
from sepcli.models.modelfile import load_model
from sepcli.models.weights.cache import cache_folder
from sepcli.version import __version__

PACKAGES = ("onnx", "onnxscript")


def cached_runner(path: Path, sha256: str) -> OnnxRunner | None:
    """What runs the graph of the model file `path`, whose digest is `sha256`; made if need be.

    None, with a note on the reason, where there is no cache, or no graph can be made.
    """
    folder = cache_folder()
    if folder is None:
        return None
    graph = folder / "graphs" / f"{sha256}-{__version__}.onnx"
    if graph.is_file():
        try:
            return OnnxRunner(graph)
        except SepcliError:  # of another version of sepcli, or damaged
            graph.unlink(missing_ok=True)
    return _made(path, graph)


def _made(path, graph):
    model, card = load_model(path)
    if not model.causal or (card.quantized and card.quantized["target"] == "cpu"):
        return None
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        note(
            f"{path}: run by torch; a faster graph needs {missing[0]}, which is not installed: "
            "pip install 'sepcli[export]'"
        )
        return None
    from sepcli.graphs.export import export

    note(f"{path}: making its streaming graph, once: {graph}")
    try:
        export(path, graph)
        return OnnxRunner(graph)
    except SepcliError as error:
        note(f"{error}; run by torch")
        return None
