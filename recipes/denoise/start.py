"""The weights of UL-UNAS as a `ul_unas`: python3 start.py ULUNAS.onnx OUT.safetensors

ULUNAS.onnx is ulunas_stream_simple.onnx of https://github.com/Xiaobin-Rong/ul-unas (MIT, Copyright
(c) 2026 Xiaobin-Rong), which takes one frame at a time. Its layers run in the order in which ours
are registered. Needs the package onnx; compare.py tells whether the model does what the graph does.
"""

import sys

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from sepcli.layers.ul_unas import AffinePRelu
from sepcli.models import build, modelfile

LEARNED = ("Conv", "ConvTranspose", "BatchNormalization", "GRU", "MatMul", "Mul", "Add")
EPSILON = 1e-5  # of the batch norms


def constants(path):
    """(kind, tensors) of each node of a graph that has some which were learned, as they run."""
    graph = onnx.load(path).graph
    known = {x.name: torch.tensor(np.array(numpy_helper.to_array(x))) for x in graph.initializer}
    bands = [x.name for x in graph.initializer if tuple(x.dims) in ((192, 64), (64, 192))]
    for node in graph.node:
        found = [known[name] for name in node.input if name in known and name not in bands]
        found = [x for x in found if x.is_floating_point() and x.ndim]
        if node.op_type in LEARNED and found:
            yield node.op_type, found


class Reader:
    """The layers of a graph, one after the other, as parameters of ours."""

    def __init__(self, path):
        self.nodes = list(constants(path))

    def take(self, *kinds):
        """The tensors of the next node, which must be of one of these kinds."""
        kind, found = self.nodes.pop(0)
        if kind not in kinds:
            raise SystemExit(f"start.py: the graph has a {kind} where {kinds} should be")
        return found

    def convolution(self, layer):
        """A convolution with the batch norm behind it."""
        turned = self.nodes[0][0] == "ConvTranspose"
        weight, bias = self.take("Conv", "ConvTranspose")
        if self.nodes[0][0] == "BatchNormalization":
            gain, offset, mean, variance = self.take("BatchNormalization")
            gain = gain / (variance + EPSILON).sqrt()
            weight, bias = weight * gain.view(-1, 1, 1, 1), offset + gain * (bias - mean)
        if turned and isinstance(layer, nn.Conv2d):  # each channel by itself
            weight = weight.flip(2, 3)
        return {"weight": weight, "bias": bias}

    def activation(self, _):
        (gain,), (offset,), (slope,) = self.take("Mul"), self.take("Add"), self.take("Mul")
        return {"gain": gain[0], "offset": offset[0], "slope": slope.flatten()}

    def gru(self, layer):
        """Torch's order of gates is reset, update, new; that of graphs update, reset, hidden."""
        entering, staying, biases = self.take("GRU")[:3]
        found = {}
        for way, suffix in enumerate(("", "_reverse")[: len(entering)]):
            both = biases[way].chunk(2)
            parts = {"weight_ih": entering[way], "weight_hh": staying[way]}
            parts |= {"bias_ih": both[0], "bias_hh": both[1]}
            for name, value in parts.items():
                update, reset, new = value.chunk(3)
                found[f"{name}_l0{suffix}"] = torch.cat([reset, update, new])
        return found

    def linear(self, _):
        (weight,), (bias,) = self.take("MatMul"), self.take("Add")
        return {"weight": weight.t(), "bias": bias}

    def norm(self, _):
        (weight,), (bias,) = self.take("Mul"), self.take("Add")
        return {"weight": weight, "bias": bias}


def read(path, model):
    """Set the parameters of a `ul_unas` to those of the graph `path`."""
    reader = Reader(path)
    readers = {
        nn.Conv2d: reader.convolution,
        nn.ConvTranspose2d: reader.convolution,
        AffinePRelu: reader.activation,
        nn.GRU: reader.gru,
        nn.Linear: reader.linear,
        nn.LayerNorm: reader.norm,
    }
    for layer in model.modules():
        if type(layer) in readers:
            layer.load_state_dict(readers[type(layer)](layer))
    if reader.nodes:
        raise SystemExit(f"start.py: the graph has {len(reader.nodes)} layers more than the model")


def main():
    path, out = sys.argv[1:]
    model = build("ul_unas")
    read(path, model)
    card = {"name": "UL-UNAS", "licence": "MIT, Copyright (c) 2026 Xiaobin-Rong"}
    modelfile.save(out, "ul_unas", {}, model.state_dict(), card)


if __name__ == "__main__":
    main()
