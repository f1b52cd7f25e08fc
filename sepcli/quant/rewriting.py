"""What becomes of a traced model: layers on grids, with batch norm folded.

Batch norm after an activation cannot be folded into the convolution before it; its scale can, as
far as it is positive and the activation is a PReLU, and the rest is part of the layer that rounds
the activation. So a past of zeros, which comes after the norm, stays zeros.
"""

import math
import operator
from typing import Any, Self

import torch
from torch import fx, nn

from sepcli.errors import SepcliError
from sepcli.layers.gated_tcm import GroupedPReLU
from sepcli.layers.tcn import ChannelNorm
from sepcli.quant import layers
from sepcli.quant.convolution import Conv
from sepcli.quant.grids import TINIEST, CodeGrid

AUDIO = (-32767 / 32768, 32767 / 32768)  # the grid of 16-bit PCM
SIGMOID_LIMIT = 8.0  # sigmoid(-8) is -69 dB
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MOVES = (
    "cat", "getitem", "reshape", "transpose", "flatten", "unflatten", "chunk", "unbind", "permute",
    "squeeze", "unsqueeze",
)  # fmt: skip


class Wire:
    """Tensors that share a grid: what layers make and read, moved about or joined in between."""

    def __init__(self, bits: int = 8, fixed: tuple[float, float] | None = None) -> None:
        self.bits, self.fixed = bits, fixed
        self.makers: list[Any] = []  # layers
        self.readers: list[Any] = []
        self.joined: Any = None
        self.grid: Any = None

    def end(self) -> Self:
        """The wire that this one was joined to."""
        return self if self.joined is None else self.joined.end()

    def join(self, other: "Wire") -> None:
        one, two = self.end(), other.end()
        if one is not two:
            two.joined = one
            one.makers += two.makers
            one.readers += two.readers

    def make_grid(self) -> CodeGrid | None:
        """The grid; None where only floating point reads what a convolution makes."""
        if not self.readers and all(isinstance(maker, Conv) for maker in self.makers):
            return None
        sigmoids = all(isinstance(reader, layers.Sigmoid) for reader in self.readers)
        limit = SIGMOID_LIMIT if self.readers and sigmoids else math.inf
        return CodeGrid(self.bits, fixed=self.fixed, limit=limit)


class Rewriting:
    """What becomes of each node of a traced core.

    wires: node -> Wire, of what is quantised. layers: node -> the layer of `quant` that takes its
    place. sources: layer -> the nodes that it reads. same: node -> the node whose layer does its
    work as well. entries: node in floating point -> (layer, wire) that quantise it.
    """

    def __init__(self, traced: fx.GraphModule, waveform: bool) -> None:
        self.modules = dict(traced.named_modules())
        self.nodes = list(traced.graph.nodes)
        self.wires: dict[Any, Wire] = {}
        self.layers: dict[Any, Any] = {}
        self.sources: dict[Any, list[Any]] = {}
        self.same: dict[Any, Any] = {}
        self.entries: dict[Any, tuple[Any, Wire]] = {}
        self.sound = {self.nodes[0]} if waveform else set()  # the input, moved about
        for node in self.nodes:
            self._visit(node)
        self._widen()
        self.grids = []
        for wire in [*self.wires.values(), *(wire for _, wire in self.entries.values())]:
            wire = wire.end()
            if wire.grid is None:
                wire.grid = wire.make_grid()
                self.grids += [] if wire.grid is None else [wire.grid]
        for node, layer in self.layers.items():
            wires = [self.read(source) for source in self.sources[layer]] + [self.wires[node]]
            layer.connect(*(wire.end().grid for wire in wires))
            self._check(node, layer)
        for layer, wire in self.entries.values():
            layer.connect(wire.end().grid)

    def quantised(self, node: Any) -> bool:
        """Whether a node's values lie on a grid."""
        return self.grid(node) is not None

    def grid(self, node: Any) -> CodeGrid | None:
        """The grid of a node's values, None if they are in floating point."""
        return self.wires[node].end().grid if node in self.wires else None

    def read(self, node: Any) -> Wire:
        """The wire of a node that a layer reads; one in floating point is quantised on the way."""
        if node in self.wires:
            return self.wires[node]
        if node not in self.entries:
            fixed = AUDIO if node in self.sound else None
            self.entries[node] = layers.Enter(), Wire(bits=16, fixed=fixed)
        return self.entries[node][1]

    @staticmethod
    def _check(node, layer):
        if isinstance(layer, layers.Norm) and not layer.exact:
            raise SepcliError(
                f"{_name(node)}: a norm over {len(layer.weight)} channels of "
                f"{layer.grids[0].bits} bits, whose sums float64 cannot hold exactly; use norm: bn"
            )

    def _visit(self, node):
        if node.op == "call_module":
            self._visit_module(node, self.modules[node.target])
        elif node.op in ("call_function", "call_method"):
            name = node.target if isinstance(node.target, str) else node.target.__name__
            tensors = [n for n in node.all_input_nodes if "tensor_meta" in n.meta]
            if name in MOVES:
                self._move(node, node.all_input_nodes)
            elif any(n in self.wires for n in tensors):
                self._visit_function(node, name, tensors)

    def _visit_module(self, node, module):
        if isinstance(module, CONVOLUTIONS):
            self._place(node, Conv(module))
        elif isinstance(module, BATCH_NORMS):
            self._normalise(node, module)
        elif isinstance(module, nn.ReLU):
            self._rectify(node)
        elif isinstance(module, nn.PReLU):
            channels = node.meta["tensor_meta"].shape[1]
            slopes = module.weight.detach()
            if isinstance(module, GroupedPReLU):
                slopes = slopes.repeat_interleave(channels // len(slopes))
            one = torch.ones_like(slopes)
            self._place(node, layers.Rescale(one, slopes, 0 * one))
        elif isinstance(module, ChannelNorm):
            self._place(node, layers.Norm(module))
        elif isinstance(module, nn.Identity):
            self._merge(node)
        else:
            kind = type(module).__name__
            raise SepcliError(f"{_name(node)}: a {kind}, which the target cpu has no layer for")

    def _visit_function(self, node, name, tensors):
        matrices = [n for n in tensors if self._matrix(n) is not None]
        if name == "relu":
            self._rectify(node)
        elif name == "sigmoid":
            self._place(node, layers.Sigmoid(), wire=Wire(fixed=(0.0, 1.0)))
        elif name == "matmul" and matrices == [node.args[1]]:
            self._place(node, Conv(self._matrix(node.args[1])))
        elif name in ("add", "mul") and sum(n in self.wires for n in node.args) == 2:
            self._place(node, layers.Add() if name == "add" else layers.Multiply(), node.args)

    def is_weight(self, node: Any) -> bool:
        """Whether a node is a parameter, or part of one, that a layer holds."""
        return node.op in ("get_attr", "call_function") and self._matrix(node) is not None

    def _matrix(self, node):
        """The matrix (inputs, outputs) that a node takes from the model's parameters, or None."""
        if node.op == "call_function" and node.target is operator.getitem:
            whole = self._matrix(node.args[0])
            return None if whole is None else whole[node.args[1]]
        if node.op != "get_attr":
            return None
        path, _, name = node.target.rpartition(".")
        return getattr(self.modules[path], name).detach()

    def _move(self, node, sources):
        wired = [self.wires[n] for n in sources if n in self.wires]
        if wired:
            for source in sources:
                if source in self.wires:
                    self.wires[source].join(wired[0])
                elif source.op == "placeholder":  # a past: its values have been on this grid
                    self.wires[source] = wired[0]
                elif "tensor_meta" in source.meta:
                    self.entries[source] = layers.Enter(), wired[0]
            self.wires[node] = wired[0]
        elif any(n in self.sound for n in sources):
            self.sound.add(node)

    def _place(self, node, layer, sources=None, wire=None):
        """Let `layer` take the place of `node`, reading `sources`."""
        self.layers[node], self.sources[layer] = layer, list(sources or node.args[:1])
        for source in self.sources[layer]:
            self.read(source).end().readers.append(layer)
        self.wires[node] = wire or Wire()
        self.wires[node].makers.append(layer)

    def _merge(self, node):
        """Let the layer before `node` do its work as well."""
        source = node.args[0]
        self.same[node] = self.same.get(source, source)
        if source in self.wires:
            self.wires[node] = self.wires[source]
        if source in self.sound:
            self.sound.add(node)

    def _before(self, node):
        """The layer before `node` if nothing else reads what it makes."""
        source = node.args[0]
        return self.layers.get(self.same.get(source, source)) if len(source.users) == 1 else None

    def _rectify(self, node):
        before = self._before(node)
        if isinstance(before, Conv) and not before.relu:
            before.relu = True
            self._merge(node)
        else:
            self._place(node, layers.Rescale(torch.ones(1), torch.zeros(1), torch.zeros(1)))

    def _normalise(self, node, norm):
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        offset = norm.bias.detach() - norm.running_mean * scale
        before = self._before(node)
        if isinstance(before, Conv) and not before.relu:
            before.scale_outputs(scale)
            before.bias.data += offset
            self._merge(node)
        elif isinstance(before, layers.Rescale):
            before.affine(scale, offset)
            source = self.sources[before][0]
            first = self.layers.get(self.same.get(source, source))
            if isinstance(first, Conv) and not first.relu and len(source.users) == 1:
                size = scale.abs().clamp(min=TINIEST)
                first.scale_outputs(size)
                before.scale_inputs(size)
            self._merge(node)
        else:
            self._place(node, layers.Rescale(scale, scale, offset))

    def _widen(self):
        """Give 16 bits to the masked features, and to them before, that the last layer reads."""
        for node, layer in self.layers.items():
            last = isinstance(layer, Conv) and not self.wires[node].end().readers
            product = self.read(self.sources[layer][0]).end() if last else Wire()
            for maker in product.makers:
                if isinstance(maker, layers.Multiply):
                    product.bits = 16
                    for wire in map(self.read, self.sources[maker]):
                        wire.end().bits = 8 if wire.end().fixed else 16


def _name(node):
    """A node's name in the twin: that of its layer in the model."""
    if node.op == "call_function" and node.target is operator.matmul:
        weight = node.args[1]
        while weight.op != "get_attr":
            weight = weight.args[0]
        return weight.target.removeprefix("model.").rpartition(".")[0]
    return node.target.removeprefix("model.") if node.op == "call_module" else node.name


def rebuild(rewriting: Rewriting) -> fx.GraphModule:
    """The rewriting's graph of layers: (x, *states) to [y, *next states]."""
    graph, new, entered, left, modules = fx.Graph(), {}, {}, {}, {}

    def call(node, name, layer, *args):
        modules[name] = layer
        made = graph.call_module(name, args)
        made.meta["tensor_meta"] = node.meta["tensor_meta"]
        return made

    def plain(node):
        return new[rewriting.same.get(node, node)]

    def coded(node):
        """A node as a layer reads it."""
        if node in rewriting.entries and node not in entered:
            entered[node] = call(
                node, f"input_{len(entered)}", rewriting.entries[node][0], plain(node)
            )
        return entered.get(node) or plain(node)

    def real(node):
        """A node as floating point reads it."""
        if rewriting.quantised(node) and node not in left:
            leave = layers.Leave(rewriting.wires[node].end().grid)
            left[node] = call(node, f"output_{len(left)}", leave, plain(node))
        return left.get(node) or plain(node)

    for node in rewriting.nodes:
        if node in rewriting.layers:
            layer = rewriting.layers[node]
            new[node] = call(node, _name(node), layer, *map(coded, rewriting.sources[layer]))
        elif node.op == "output":
            y, *following = node.args[0]
            graph.output([real(y), *map(plain, following)])
        elif node not in rewriting.same and not rewriting.is_weight(node):
            about_shape = node.op == "call_function" and node.target is getattr
            through = plain if about_shape else coded if node in rewriting.wires else real
            new[node] = graph.node_copy(node, through)
    return fx.GraphModule(modules, graph)
