"""LSTMs and GRUs in graphs and programs: one operation, for any number of steps."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sepcli.errors import SepcliError

KEYS = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)
GATES = {  # in ONNX's order, as places in torch's
    "LSTM": (0, 3, 1, 2),  # input, output, forget, cell: of input, forget, cell, output
    "GRU": (1, 0, 2),  # update, reset, hidden: of reset, update, new
}


class OnnxRecurrent(nn.Module):
    """An LSTM or a GRU as ONNX's operator, for any number of steps; it is exported, but not run."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        if layer.proj_size:
            raise SepcliError("an LSTM with projections has no form in ONNX")
        self.kind = "LSTM" if isinstance(layer, nn.LSTM) else "GRU"
        self.hidden_size, self.first = layer.hidden_size, layer.batch_first
        self.directions = 2 if layer.bidirectional else 1
        self.layers = layer.num_layers
        for number in range(layer.num_layers):
            for name, tensor in zip("WRB", self._weights(layer, number), strict=True):
                self.register_buffer(f"{name}{number}", tensor)

    def _weights(self, layer, number):
        """What ONNX takes of a layer: weights of inputs and of outputs, and biases of both."""
        ends = [f"_l{number}{end}" for end in ("", "_reverse")[: self.directions]]
        for kinds in (["weight_ih"], ["weight_hh"]):
            yield torch.stack([self._ordered(getattr(layer, f"{kinds[0]}{end}")) for end in ends])
        size = 2 * len(GATES[self.kind]) * self.hidden_size
        if not layer.bias:
            yield torch.zeros(self.directions, size)
            return
        yield torch.stack(
            [
                torch.cat([self._ordered(getattr(layer, f"bias_{of}{end}")) for of in ("ih", "hh")])
                for end in ends
            ]
        )

    def _ordered(self, weight):
        """A weight or bias of the gates in ONNX's order."""
        order = GATES[self.kind]
        gates = weight.detach().chunk(len(order))
        return torch.cat([gates[i] for i in order])

    def forward(self, x: torch.Tensor, past: Any = None) -> Any:
        """As that of the layer in torch, for a batch."""
        x = x.transpose(0, 1) if self.first else x  # (N, B, I)
        N, B, _ = x.shape
        D, H = self.directions, self.hidden_size
        count = 2 if self.kind == "LSTM" else 1  # of states
        before = [None] * count if past is None else [past] if count == 1 else list(past)
        following: list[Any] = []
        for layer in range(self.layers):
            own = slice(layer * D, (layer + 1) * D)
            weights = (getattr(self, f"{name}{layer}") for name in "WRB")
            x, *states = torch.onnx.ops.symbolic_multi_out(
                self.kind,
                (
                    x,
                    *weights,
                    None,
                    *(s if s is None or self.layers == 1 else s[own] for s in before),
                ),
                self._choices(),
                dtypes=[torch.float32] * (1 + count),
                shapes=[(N, D, B, H), *[(D, B, H)] * count],
                version=14,
            )
            following.append(states)
            if D == 1:
                x = x.squeeze(1)  # (N, B, H)
            elif isinstance(N, int):
                x = x.transpose(1, 2).reshape(N, -1, D * H)
            else:
                x = torch.cat([x[:, 0], x[:, 1]], -1)
        states = zip(*following, strict=True)
        last = tuple(each[0] if self.layers == 1 else torch.cat(each) for each in states)
        return x.transpose(0, 1) if self.first else x, last if count == 2 else last[0]

    def _choices(self):
        """The attributes of the operator."""
        direction = ("forward", "bidirectional")[self.directions - 1]
        found: dict[str, Any] = {"hidden_size": self.hidden_size, "direction": direction}
        return found if self.kind == "LSTM" else found | {"linear_before_reset": 1}


@contextlib.contextmanager
def whole_recurrences() -> Iterator[None]:
    """Let a traced LSTM or GRU be one operation for any number of steps.

    Tracing would otherwise go through the steps to find out the shapes, and count them.
    """
    shapes = {torch.ops.aten.lstm.input: _lstm_shapes, torch.ops.aten.gru.input: _gru_shapes}
    kept = {op: {key: op.py_kernels[key] for key in KEYS if key in op.py_kernels} for op in shapes}
    for op, found in shapes.items():
        op.py_kernels.update(dict.fromkeys(KEYS, found))
        op._dispatch_cache.clear()
    try:
        yield
    finally:
        for op, kernels in kept.items():
            for key in KEYS:
                op.py_kernels.pop(key)
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()


def _lstm_shapes(x, states, *choices):
    """Tensors as `torch.ops.aten.lstm.input` gives: (y, h, c)."""
    h, c = states
    return _output(x, h, choices[5]), torch.empty_like(h), torch.empty_like(c)


def _gru_shapes(x, h, *choices):
    """Tensors as `torch.ops.aten.gru.input` gives: (y, h)."""
    return _output(x, h, choices[5]), torch.empty_like(h)


def _output(x, h, bidirectional):
    return x.new_empty(*x.shape[:2], h.shape[2] * (2 if bidirectional else 1))
