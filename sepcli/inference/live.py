"""A model by its name, ready to be run live: its graph where there is one, torch otherwise."""

import os
from collections.abc import Sequence
from typing import Any

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.nn.runner import Runner, TorchRunner


def open_runner(
    name: str, engine: str = "auto", references: Sequence[str] = (), *, later: bool = False
) -> Runner:
    """Load the model `name` (see `modelfile.locate`), or a graph NAME.onnx, to be run live.

    engine: `torch`; `onnx`, the graph that lies beside the weights under the same name, or one that
    is made of them and kept in the cache; `auto`, that graph if it was made from these very weights
    or can be, torch otherwise. references: sound files of what a conditioned model is to find.
    later: where there is no graph, `auto` does not wait for one: another process makes it, for the
    next time. Raises SepcliError.
    """
    from sepcli.models.modelfile import load_model, locate

    path = locate(name)
    strict = engine == "onnx"
    runner = None if engine == "torch" else _graph_runner(path, strict, later and not strict)
    if runner is None:
        model = load_model(path)[0]
        return TorchRunner(given(model, references) if references else model)
    if not references:
        return runner
    from sepcli.inference.references import read_references

    return runner.given(read_references(references, runner.sample_rate))


def _graph_runner(path, strict, later):
    """What runs the graph of the model `path`; None where torch has to, an error if `strict`."""
    from sepcli.graphs.onnx import SUFFIXES, OnnxRunner, open_graph
    from sepcli.models.modelfile import digest

    if path.suffix in SUFFIXES:
        return OnnxRunner(path)
    graph = files.companion(path, ".onnx")
    if not os.path.isfile(path):
        return None
    sha256 = digest(path)
    if graph.is_file() and (opened := open_graph(graph)).kind == "streaming":
        runner = OnnxRunner(opened)
        if runner.sha256 == sha256:
            return runner
        if strict:
            raise SepcliError(
                f"{graph}: made from other weights than {path.name}; make it again: "
                f"sepcli export {path} -o {graph} --overwrite"
            )
    from sepcli.graphs.cached import cached_runner

    runner = cached_runner(path, sha256, later=later)
    if runner is None and strict:
        raise SepcliError(f"{graph}: no such graph; make it: sepcli export {path} -o {graph}")
    return runner


def given(model: Any, references: Sequence[str]) -> Any:
    """A conditioned model, in torch, for the speaker of sound files."""
    from sepcli.inference.references import read_references
    from sepcli.inference.separate import Separator

    separator = Separator(model)
    found = read_references(references, separator.sample_rate)
    return separator.given(found, separator.sample_rate).model
