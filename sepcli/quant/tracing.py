"""A model's core as a graph of layers and of operations on tensors."""

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from sepcli.errors import SepcliError
from sepcli.nn import filterbank
from sepcli.nn.causal import flat
from sepcli.nn.gated_tcm import GroupedPReLU
from sepcli.nn.tcn import ChannelNorm


class Core(nn.Module):
    """A model's core as a function of tensors, for tracing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, state):
        y, following = self.model.core(x, state)
        return (y, *flat(following))


class Tracer(fx.Tracer):
    """Trace into everything but the layers; `overlap_add` is one step."""

    def __init__(self):
        super().__init__(autowrap_functions=(filterbank.overlap_add,))
        self._autowrap_search.append(filterbank)

    def is_leaf_module(self, module, name):
        own = isinstance(module, GroupedPReLU | ChannelNorm)
        return own or super().is_leaf_module(module, name)


def placeholders(like):
    """What tracing passes through instead of nested tuples of tensors."""
    return tuple(map(placeholders, like)) if isinstance(like, tuple) else fx.PH


def symbolic(model):
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
