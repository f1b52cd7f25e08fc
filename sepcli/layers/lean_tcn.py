"""A trained `Tcn` in the form in which ONNX Runtime is fastest: the same outputs, other states.

Signals are images (B, C, 1, N): of two-dimensional convolutions, depthwise ones too, it computes
many channels at once. The norm behind a depthwise convolution is part of the heads that read it,
and the skip heads of all blocks are one convolution.
B batch, C and H channels, N frames.
"""

from typing import Any

import torch
from torch import nn

from sepcli.layers.folding import fold, scale_and_shift
from sepcli.layers.modules import Modules
from sepcli.layers.tcn import Tcn, TcnBlock
from sepcli.nn.model import State


def can_be_lean(tcn: Tcn) -> bool:
    """Whether there is such a form: of `TcnBlock`s with skip heads, and batch norm or none."""
    first: Any = tcn.blocks[0]
    return (
        isinstance(first, TcnBlock)
        and first.skip is not None
        and all(isinstance(layer, nn.BatchNorm1d | nn.Identity) for layer in _norms(first))
    )


class LeanTcn(nn.Module):
    """Map a chunk (B, C, 1, N), any N >= 1, to the sum of the skip heads, and the next state."""

    @torch.no_grad()
    def __init__(self, tcn: Tcn) -> None:
        super().__init__()
        self.blocks = Modules(LeanBlock(block) for block in tcn.blocks)
        heads: list[Any] = [block.heads[0] for block in self.blocks]
        self.skip = as_image(nn.Conv1d(1, 1, 1))
        self.skip.weight = nn.Parameter(torch.cat([head.weight for head in heads], 1))
        self.skip.bias = nn.Parameter(torch.stack([head.bias for head in heads]).sum(0))
        for block in self.blocks:
            del block.heads[0]

    def initial_state(self, batch: int = 1) -> State:
        """The history before the first frame: zeros (B, H, 1, context) for each block."""
        return tuple(block.initial_state(batch) for block in self.blocks)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk and the state to the output and the next state."""
        hidden, following = [], []
        for block, past in zip(self.blocks, state, strict=True):
            x, last, past = block.step(x, past)
            hidden.append(last)
            following.append(past)
        return self.skip(torch.cat(hidden, 1)), tuple(following)


class LeanBlock(nn.Module):
    """A trained TcnBlock without its skip head; `heads` are the heads, of which the skip goes."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.context = block.context
        self.expand = nn.Sequential(*map(as_image, _folded(block.expand)))
        conv, *others = _folded(block.depthwise)
        norm = others.pop() if isinstance(others[-1], nn.BatchNorm1d) else None
        self.depthwise = nn.Sequential(*map(as_image, [conv, *others]))
        heads = [block.skip] + ([block.residual] if block.residual is not None else [])
        self.heads = Modules(as_image(_after(norm, head)) for head in heads)

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Zeros (B, H, 1, context)."""
        conv: Any = self.depthwise[0]
        return conv.weight.new_zeros(batch, conv.in_channels, 1, self.context)

    def step(
        self, x: torch.Tensor, past: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map a chunk (B, C, 1, N) to (output, what the skip head reads, next past)."""
        joined = torch.cat([past, self.expand(x)], -1)  # (B, H, 1, context + N)
        hidden = self.depthwise(joined)
        for head in self.heads:  # the residual one, if any
            x = x + head(hidden)
        return x, hidden, joined[..., joined.shape[-1] - self.context :]


def as_image(layer: Any) -> Any:
    """The layer for (B, C, 1, N) that does what a convolution or a norm does to (B, C, N)."""
    if isinstance(layer, nn.BatchNorm1d):
        norm = nn.BatchNorm2d(layer.num_features, layer.eps, dtype=layer.weight.dtype)
        norm.load_state_dict(layer.state_dict())
        return norm.eval()
    if not isinstance(layer, nn.Conv1d):
        return layer
    conv = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        (1, layer.kernel_size[0]),
        dilation=(1, layer.dilation[0]),
        groups=layer.groups,
        device="meta",
    )
    conv.weight = nn.Parameter(layer.weight.detach()[:, :, None])
    conv.bias = nn.Parameter(_bias(layer))
    return conv


def _norms(block):
    """The norms of a block's two convolutions."""
    parts = (block.expand, block.depthwise)
    return [x for part in parts for x in part[1:] if not isinstance(x, nn.PReLU | nn.ReLU)]


def _folded(part):
    """The layers of a convolution, an activation and a norm, which is folded if it comes first."""
    conv, *others = part
    if isinstance(others[0], nn.BatchNorm1d):
        return [fold(_biased(conv), others[0]), *others[1:]]
    return [conv, *others]


def _after(norm, head):
    """A copy of a 1x1 convolution that includes the batch norm before it, if there is one."""
    made: Any = _biased(head)
    if norm is None:
        return made
    scale, shift = scale_and_shift(norm)
    weight = head.weight.detach().double()  # (C, H, 1)
    made.weight = nn.Parameter((weight * scale[:, None]).to(head.weight.dtype))
    bias = made.bias.double() + weight[..., 0] @ shift
    made.bias = nn.Parameter(bias.to(head.weight.dtype))
    return made


def _biased(conv):
    """A copy of a convolution that has a bias."""
    size = (conv.in_channels, conv.out_channels, conv.kernel_size[0])
    made = nn.Conv1d(*size, dilation=conv.dilation, groups=conv.groups, device="meta")
    made.weight, made.bias = nn.Parameter(conv.weight.detach()), nn.Parameter(_bias(conv))
    return made


def _bias(conv):
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels)
    return conv.bias.detach()
