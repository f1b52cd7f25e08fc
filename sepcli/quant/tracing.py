"""A model's core as a graph of layers and of operations on tensors."""

from typing import Any

import torch
from torch import fx, nn
from torch.fx._symbolic_trace import PH
from torch.fx.graph import CodeGen
from torch.fx.passes.shape_prop import ShapeProp
from torch.fx.proxy import TraceError

from sepcli.errors import SepcliError
from sepcli.layers.gated_tcm import GroupedPReLU
from sepcli.layers.tcn import ChannelNorm
from sepcli.nn import filterbank
from sepcli.nn.causal import flat


class Core(nn.Module):
    """A model's core as a function of tensors, for tracing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any, state: Any) -> tuple[Any, ...]:
        y, following = self.model.core(x, state)
        return (y, *flat(following))


class Tracer(fx.Tracer):
    """Trace into everything but the layers; `overlap_add` is one step."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(filterbank.overlap_add,))
        self._autowrap_search.append(filterbank)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, GroupedPReLU | ChannelNorm)
        return own or super().is_leaf_module(m, module_qualified_name)


def placeholders(like: Any) -> Any:
    """What tracing passes through instead of nested tuples of tensors."""
    return tuple(map(placeholders, like)) if isinstance(like, tuple) else PH


def symbolic(model: Any) -> fx.GraphModule:
    """The model's core as an `fx.GraphModule` of (x, *states), with the shapes of one hop."""
    like, root = model.core_state(1), Core(model)
    try:
        graph = Tracer().trace(root, concrete_args={"x": PH, "state": placeholders(like)})
    except (RuntimeError, TypeError, TraceError) as error:
        raise SepcliError(
            f"{type(model).__name__} cannot be traced ({' '.join(str(error).split())[:80]}); "
            "quantise a model of convolutions, such as denoise-tiny"
        ) from None
    graph.set_codegen(CodeGen())  # plain arguments instead of nested ones
    traced = fx.GraphModule(root, graph)
    graph.eliminate_dead_code()
    if model.front_end == "stft":
        x = torch.zeros(1, 2, model.stft.kernel // 2 + 1, 1)
    else:
        x = torch.zeros(1, model.channels, model.hop)
    with torch.no_grad():
        ShapeProp(traced).propagate(x, *flat(like))
    return traced
