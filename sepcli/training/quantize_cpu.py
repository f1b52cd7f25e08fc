"""The target `cpu`: any causal model in 8 bits, as processors and ONNX Runtime compute.

The twin is the model's own program, traced, with batch norm folded and every layer replaced by one
of `quant.fake`. Tensors between layers have 8 bits and a zero point. 16 bits have what comes in
(recorded sound has as many), and what masks are multiplied with and give where sound comes out of
it. What is neither a layer nor moves numbers about stays in floating point: the Fourier transform,
the compression of magnitudes before the first layer, masking a spectrum after the last.

Batch norm after an activation cannot be folded into the convolution before it; its scale can, as
far as it is positive and the activation is a PReLU, and the rest is part of the layer that rounds
the activation. So a past of zeros, which comes after the norm, stays zeros.
"""

import copy
import math
import operator

import numpy as np
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from sepcli.errors import SepcliError
from sepcli.inference.export import flat, nested
from sepcli.inference.stream import RUNNER
from sepcli.nn import filterbank
from sepcli.nn.causal import CausalModel, SpectralModel
from sepcli.nn.gated_tcm import GroupedPReLU
from sepcli.nn.tcn import ChannelNorm
from sepcli.quant import fake
from sepcli.quant.integers import shift_half_even
from sepcli.training.quantize import Layer

NAME = "cpu"
AUDIO = (-32767 / 32768, 32767 / 32768)  # the grid of 16-bit PCM
SIGMOID_LIMIT = 8.0  # sigmoid(-8) is -69 dB
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MOVES = (
    "cat", "getitem", "reshape", "transpose", "flatten", "unflatten", "chunk", "unbind", "permute",
    "squeeze", "unsqueeze",
)  # fmt: skip


class Core(nn.Module):
    """A model's core as a function of tensors, for tracing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, state):
        y, following = self.model.core(x, state)
        return (y, *parts(following))


class Tracer(fx.Tracer):
    """Trace into everything but the layers; `overlap_add` is one step."""

    def __init__(self):
        super().__init__(autowrap_functions=(filterbank.overlap_add,))
        self._autowrap_search.append(filterbank)

    def is_leaf_module(self, module, name):
        own = isinstance(module, GroupedPReLU | ChannelNorm)
        return own or super().is_leaf_module(module, name)


def parts(state):
    """`flat` for what tracing passes through instead of tensors."""
    return [n for part in state for n in parts(part)] if isinstance(state, tuple) else [state]


def placeholders(like):
    return tuple(map(placeholders, like)) if isinstance(like, tuple) else fx.PH


def trace(model):
    """The model's core as an `fx.GraphModule` of (x, *states), with the shapes of one hop."""
    like, root = model.core_state(1), Core(model)
    try:
        graph = Tracer().trace(root, concrete_args={"x": fx.PH, "state": placeholders(like)})
    except (RuntimeError, TypeError, fx.proxy.TraceError) as error:
        raise SepcliError(
            f"{type(model).__name__} cannot be traced ({' '.join(str(error).split())[:80]}); "
            "quantise a model of convolutions, such as denoise-tiny"
        ) from None
    graph.set_codegen(fx.graph.CodeGen())  # plain arguments instead of nested ones
    traced = fx.GraphModule(root, graph)
    graph.eliminate_dead_code()
    if model.front_end == "stft":
        x = torch.zeros(1, 2, model.stft.kernel // 2 + 1, 1)
    else:
        x = torch.zeros(1, model.channels, model.hop)
    with torch.no_grad():
        ShapeProp(traced).propagate(x, *flat(like))
    return traced


class Wire:
    """Tensors that share a grid: what layers make and read, moved about or joined in between."""

    def __init__(self, bits=8, fixed=None):
        self.bits, self.fixed = bits, fixed
        self.makers, self.readers = [], []  # layers
        self.joined = self.grid = None

    def end(self):
        """The wire that this one was joined to."""
        return self if self.joined is None else self.joined.end()

    def join(self, other):
        one, two = self.end(), other.end()
        if one is not two:
            two.joined = one
            one.makers += two.makers
            one.readers += two.readers

    def make_grid(self):
        """The grid; None where only floating point reads what a convolution makes."""
        if not self.readers and all(isinstance(maker, fake.Conv) for maker in self.makers):
            return None
        sigmoids = all(isinstance(reader, fake.Sigmoid) for reader in self.readers)
        limit = SIGMOID_LIMIT if self.readers and sigmoids else math.inf
        return fake.Grid(self.bits, fixed=self.fixed, limit=limit)


class Plan:
    """What becomes of each node of a traced core.

    wires: node -> Wire, of what is quantised. layers: node -> the `quant.fake` layer that takes its
    place. sources: layer -> the nodes that it reads. same: node -> the node whose layer does its
    work as well. entries: node in floating point -> (layer, wire) that quantise it.
    """

    def __init__(self, traced, waveform):
        self.modules = dict(traced.named_modules())
        self.nodes = list(traced.graph.nodes)
        self.wires, self.layers, self.sources, self.same, self.entries = {}, {}, {}, {}, {}
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

    def quantised(self, node):
        """Whether a node's values lie on a grid."""
        return node in self.wires and self.wires[node].end().grid is not None

    def read(self, node):
        """The wire of a node that a layer reads; one in floating point is quantised on the way."""
        if node in self.wires:
            return self.wires[node]
        if node not in self.entries:
            fixed = AUDIO if node in self.sound else None
            self.entries[node] = fake.Enter(), Wire(bits=16, fixed=fixed)
        return self.entries[node][1]

    @staticmethod
    def _check(node, layer):
        if isinstance(layer, fake.Norm) and not layer.exact:
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
            self._place(node, fake.Conv(module))
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
            self._place(node, fake.Rescale(one, slopes, 0 * one))
        elif isinstance(module, ChannelNorm):
            self._place(node, fake.Norm(module))
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
            self._place(node, fake.Sigmoid(), wire=Wire(fixed=(0.0, 1.0)))
        elif name == "matmul" and matrices == [node.args[1]]:
            self._place(node, fake.Conv(self._matrix(node.args[1])))
        elif name in ("add", "mul") and sum(n in self.wires for n in node.args) == 2:
            self._place(node, fake.Add() if name == "add" else fake.Multiply(), node.args)

    def is_weight(self, node):
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
                    self.entries[source] = fake.Enter(), wired[0]
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
        if isinstance(before, fake.Conv) and not before.relu:
            before.relu = True
            self._merge(node)
        else:
            self._place(node, fake.Rescale(torch.ones(1), torch.zeros(1), torch.zeros(1)))

    def _normalise(self, node, norm):
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        offset = norm.bias.detach() - norm.running_mean * scale
        before = self._before(node)
        if isinstance(before, fake.Conv) and not before.relu:
            before.scale_outputs(scale)
            before.bias.data += offset
            self._merge(node)
        elif isinstance(before, fake.Rescale):
            before.affine(scale, offset)
            source = self.sources[before][0]
            first = self.layers.get(self.same.get(source, source))
            if isinstance(first, fake.Conv) and not first.relu and len(source.users) == 1:
                size = scale.abs().clamp(min=fake.TINIEST)
                first.scale_outputs(size)
                before.scale_inputs(size)
            self._merge(node)
        else:
            self._place(node, fake.Rescale(scale, scale, offset))

    def _widen(self):
        """Give 16 bits to the masked features, and to them before, that the last layer reads."""
        for node, layer in self.layers.items():
            last = isinstance(layer, fake.Conv) and not self.wires[node].end().readers
            product = self.read(self.sources[layer][0]).end() if last else Wire()
            for maker in product.makers:
                if isinstance(maker, fake.Multiply):
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


def rebuild(plan):
    """The plan's graph of layers: (x, *states) to [y, *next states]."""
    graph, new, entered, left, modules = fx.Graph(), {}, {}, {}, {}

    def call(node, name, layer, *args):
        modules[name] = layer
        made = graph.call_module(name, args)
        made.meta["tensor_meta"] = node.meta["tensor_meta"]
        return made

    def plain(node):
        return new[plan.same.get(node, node)]

    def coded(node):
        """A node as a layer reads it."""
        if node in plan.entries and node not in entered:
            entered[node] = call(node, f"input_{len(entered)}", plan.entries[node][0], plain(node))
        return entered.get(node) or plain(node)

    def real(node):
        """A node as floating point reads it."""
        if plan.quantised(node) and node not in left:
            leave = fake.Leave(plan.wires[node].end().grid)
            left[node] = call(node, f"output_{len(left)}", leave, plain(node))
        return left.get(node) or plain(node)

    for node in plan.nodes:
        if node in plan.layers:
            layer = plan.layers[node]
            new[node] = call(node, _name(node), layer, *map(coded, plan.sources[layer]))
        elif node.op == "output":
            y, *following = node.args[0]
            graph.output([real(y), *map(plain, following)])
        elif node not in plan.same and not plan.is_weight(node):
            about_shape = node.op == "call_function" and node.target is getattr
            through = plain if about_shape else coded if node in plan.wires else real
            new[node] = graph.node_copy(node, through)
    return fx.GraphModule(modules, graph)


class Twin(CausalModel):
    """The fake-quantised twin of a model of waveforms."""

    def __init__(self, model):
        super().__init__()
        plan = Plan(trace(model), model.front_end == "waveform")
        self.graph, self.grids = rebuild(plan), nn.ModuleList(plan.grids)
        for name in (*RUNNER, "front_end", "receptive_field"):
            setattr(self, name, getattr(model, name))
        self.like = model.core_state(1)
        states = [node for node in plan.nodes if node.op == "placeholder"][1:]
        self.states_on = [plan.wires[n].end().grid if n in plan.wires else None for n in states]
        self.integers = False  # whether states on grids are codes, as between `Integer` layers

    def states(self, batch=1):
        """Zeros as the state of the core."""
        zeros = []
        for one, grid in zip(flat(self.like), self.states_on, strict=True):
            kind = torch.int32 if self.integers and grid is not None else torch.float32
            zeros.append(torch.zeros(batch * len(one), *one.shape[1:], dtype=kind))
        return nested(self.like, iter(zeros))

    def run_graph(self, x, state):
        y, *following = self.graph(x, *flat(state))
        return y, nested(self.like, iter(following))

    initial_state, step = states, run_graph


class SpectralTwin(Twin, SpectralModel):
    """The fake-quantised twin of a model between an STFT and its inverse."""

    def __init__(self, model):
        super().__init__(model)
        self.stft = copy.deepcopy(model.stft)

    core_state, core = Twin.states, Twin.run_graph
    initial_state, step = SpectralModel.initial_state, SpectralModel.step


def prepare(model):
    """The fake-quantised twin of a causal model; see `training/quantize.py`."""
    if not model.causal:
        raise SepcliError("the model is not causal; only causal models can be quantised")
    model = copy.deepcopy(model).cpu().eval()
    return (SpectralTwin if model.front_end == "stft" else Twin)(model).eval()


def layers(twin):
    """What the report says of each layer; see `training/quantize.py`."""
    kept = {}  # the bytes of the past on each grid
    for state, wire in zip(flat(twin.like), twin.states_on, strict=True):
        kept[wire] = kept.get(wire, 0) + state.numel() * (4 if wire is None else _bytes(wire))
    rows = []
    for node in twin.graph.graph.nodes:
        layer = twin.graph.get_submodule(node.target) if node.op == "call_module" else None
        if layer is None or isinstance(layer, fake.Leave):
            continue
        out = layer.grids[-1]
        shape = _shape(node)
        rows.append(
            Layer(
                name=node.target,
                op=layer.kind if isinstance(layer, fake.Conv) else type(layer).__name__,
                inputs=tuple(_shape(source) for source in node.args),
                outputs=shape,
                weight_bytes=layer.bytes,
                activation_bytes=math.prod(shape) * _bytes(out) + kept.pop(out, 0),
            )
        )
    return rows


def _shape(node):
    """The shape of one item at a node, for one hop."""
    return tuple(node.meta["tensor_meta"].shape[1:])


def _bytes(grid):
    """Bytes of a number on a grid, or of a float32."""
    return 4 if grid is None else grid.bits // 8


class Integer(nn.Module):
    """A layer of a twin in numpy's integers: codes in, codes out, int32."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.grids = layer, layer.grids
        if isinstance(layer, fake.Enter | fake.Leave):
            return
        constants, self.shift = layer.constants()
        self.constants = [_as_integers(constant.detach().numpy()) for constant in constants]
        out = self.grids[-1]
        self.bounds = None if out is None else [int(bound) for bound in out.bounds]

    def forward(self, *inputs):
        if isinstance(self.layer, fake.Enter):
            return self.grids[0].codes(inputs[0]).to(torch.int32)
        if isinstance(self.layer, fake.Leave):
            return inputs[0].float() * self.grids[0].scale
        codes = [x.numpy().astype(np.int64) for x in inputs]
        total = self.layer.total(np, *codes, *self.constants)
        if self.bounds is None:
            return torch.from_numpy(total.astype(np.float32))
        whole = total.dtype.kind == "i"
        total = shift_half_even(total, self.shift) if whole else np.rint(total)
        return torch.from_numpy(total.clip(*self.bounds).astype(np.int32))


def _as_integers(numbers):
    return numbers.astype(np.int64) if (numbers == np.rint(numbers)).all() else numbers


class IntegerRunner:
    """The twin computed in integers, as a runner; what floating point does, torch does."""

    engine = "integer"

    def __init__(self, twin):
        self.model = copy.deepcopy(twin).eval()
        self.model.integers = True
        for name, layer in list(self.model.graph.named_modules()):
            if isinstance(layer, fake.Layer):
                self.model.graph.set_submodule(name, Integer(layer))
        for name in RUNNER:
            setattr(self, name, getattr(twin, name))

    def initial_state(self, batch=1):
        return self.model.initial_state(batch)

    @torch.inference_mode()
    def step(self, x, state):
        y, state = self.model.step(torch.from_numpy(x), state)
        return y.numpy(), state


def integer(twin):
    """The twin in numpy integers; see `training/quantize.py`."""
    return IntegerRunner(twin)


def write_more(twin, card, path):
    """The QDQ graph beside the model file; see `training/quantize_onnx.py`."""
    from sepcli.training.quantize_onnx import write

    return {"onnx": write(twin, card, path.with_suffix(".onnx"))}
