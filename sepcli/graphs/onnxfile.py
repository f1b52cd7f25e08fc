"""A traced graph as the file that is written: without traces of the machine, small, and checked."""

import json
from typing import Any

import numpy as np

SMALLEST_HALVED = 1024  # values of a weight; what a cast takes is not worth it for fewer


def finished(graph: Any, known: dict[str, Any]) -> bytes:
    """The bytes of an onnx.ModelProto, with `known` as its metadata."""
    import onnx

    for function in (graph.graph, *graph.functions):  # where each line of the model's code lies
        for node in function.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
        for value in function.value_info:
            del value.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    store_in_halves(graph.graph)
    onnx.helper.set_model_props(graph, {"sepcli": json.dumps(known, sort_keys=True)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def store_in_halves(graph: Any) -> None:
    """Keep large weights that 16-bit floats hold exactly as such, and cast them to 32 bits.

    A session does that once, when it starts: it computes the same, and the file is smaller.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        name, values = weight.name, numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves, values):
            weight.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
