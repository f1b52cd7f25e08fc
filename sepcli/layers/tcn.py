"""The temporal convolutional network of Conv-TasNet, with its streaming state passed in and out.

Luo & Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
Separation", TASLP 2019, section II-C. B batch, C channels, N frames.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers import rows
from sepcli.layers.modules import Modules
from sepcli.nn.model import State

MOST_BLOCKS = 20  # that double the dilation, which is 524,288 in the last of them
MOST_REPEATS = 100


def doubled(blocks: int, repeats: int) -> list[int]:
    """The dilations 1, 2, 4, ... of `blocks` blocks, `repeats` times; ValueError for too many."""
    if not (0 <= blocks <= MOST_BLOCKS and 1 <= repeats <= MOST_REPEATS):
        raise ValueError(
            f"{blocks} blocks, repeated {repeats} times; make it 0 to {MOST_BLOCKS}, and 1 to "
            f"{MOST_REPEATS}"
        )
    return [2**i for i in range(blocks)] * repeats


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each frame ("cLN"): causal, and without state; (B, C, N)."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * scale * self.weight + self.bias

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """The same of (B, N, C)."""
        return F.layer_norm(x, x.shape[-1:], self.weight[:, 0], self.bias[:, 0], self.eps)


def norm_layer(kind: str, channels: int) -> nn.Module:
    """Make the normalisation called `kind`: `bn`, `cln`, `gln` (not causal) or `none`."""
    makers = {
        "bn": nn.BatchNorm1d,
        "cln": ChannelNorm,
        "gln": lambda channels: nn.GroupNorm(1, channels, eps=1e-8),
        "none": lambda channels: nn.Identity(),
    }
    if kind not in makers:
        raise ValueError(f"unknown norm {kind!r}; choose from {', '.join(makers)}")
    return makers[kind](channels)


def activation_layer(kind: str) -> nn.Module:
    """Make the activation called `kind`: `prelu` (one slope for all channels) or `relu`."""
    makers = {"prelu": nn.PReLU, "relu": nn.ReLU}
    if kind not in makers:
        raise ValueError(f"unknown activation {kind!r}; choose from {', '.join(makers)}")
    return makers[kind]()


class TcnBlock(nn.Module):
    """1x1 convolution, dilated convolution, and 1x1 heads for residual and skip.

    depthwise: whether the dilated convolution treats every channel by itself.

    norm_first: order conv-norm-activation, in which batch norm folds into the convolution;
        the paper's order is conv-activation-norm.
    skip: channels of the skip head, 0 for none.  residual: whether there is a residual head.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        skip: int,
        kernel: int,
        dilation: int,
        *,
        norm: str = "cln",
        activation: str = "prelu",
        norm_first: bool = False,
        causal: bool = True,
        bias: bool = True,
        residual: bool = True,
        depthwise: bool = True,
    ) -> None:
        super().__init__()
        self.context = (kernel - 1) * dilation  # frames of history the depthwise convolution needs
        self.causal = causal

        def after(conv):
            pair = [activation_layer(activation), norm_layer(norm, hidden)]
            return nn.Sequential(conv, *(reversed(pair) if norm_first else pair))

        self.expand = after(nn.Conv1d(channels, hidden, 1, bias=bias))
        groups = hidden if depthwise else 1
        self.depthwise = after(
            nn.Conv1d(hidden, hidden, kernel, dilation=dilation, groups=groups, bias=bias)
        )
        self.residual = nn.Conv1d(hidden, channels, 1, bias=bias) if residual else None
        self.skip = nn.Conv1d(hidden, skip, 1, bias=bias) if skip else None

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """The history before the first frame: zeros (B, hidden, context)."""
        conv: Any = self.depthwise[0]
        return conv.weight.new_zeros(batch, conv.in_channels, self.context)

    def step(
        self, x: torch.Tensor, past: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Map a chunk (B, C, N), any N >= 1, to (output, skip, next past); skip may be None."""
        hidden = torch.cat([past, self.expand(x)], -1)  # (B, H, context + N)
        x, skip = self._heads(x, hidden)
        return x, skip, hidden[..., hidden.shape[-1] - self.context :]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.causal:
            x, skip, _ = self.step(x, self.initial_state(x.shape[0]))
            return x, skip
        side = self.context // 2
        return self._heads(x, F.pad(self.expand(x), (side, self.context - side)))

    def rows(
        self, x: torch.Tensor, past: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """`step` of (B, N, C) and a past (B, context, H), and without a past `forward`."""
        hidden, before, after = rows.apply(self.expand, x), 0, 0
        if past is None:
            before = self.context if self.causal else self.context // 2
            after = self.context - before
        else:
            hidden = torch.cat([past.to(hidden.dtype), hidden], 1)
        following = hidden[:, hidden.shape[1] - self.context :]
        conv: Any = self.depthwise[0]
        over_time = rows.depthwise if conv.groups > 1 else rows.dense
        hidden = over_time(conv, hidden, before, after)
        for layer in self.depthwise[1:]:
            hidden = rows.apply(layer, hidden)
        skip = None if self.skip is None else rows.apply(self.skip, hidden)
        x = x if self.residual is None else x + rows.apply(self.residual, hidden)
        return x, skip, following

    def _heads(self, x, hidden):
        hidden = self.depthwise(hidden)  # (B, H, N)
        skip = None if self.skip is None else self.skip(hidden)
        return x if self.residual is None else x + self.residual(hidden), skip


class DenseBlock(nn.Module):
    """Dilated convolution that mixes channels, batch norm, PReLU, and a 1x1 residual head.

    Where channels are many and frames few, one matrix product costs less than the expansion and
    the depthwise convolution of `TcnBlock`. There is one PReLU slope for each hidden channel.
    """

    def __init__(self, channels: int, hidden: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.context = (kernel - 1) * dilation  # frames of history the convolution needs
        self.dilated = nn.Sequential(
            nn.Conv1d(channels, hidden, kernel, dilation=dilation, bias=False),
            nn.BatchNorm1d(hidden),
            nn.PReLU(hidden),
        )
        self.residual = nn.Conv1d(hidden, channels, 1)

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """The history before the first frame: zeros (B, C, context)."""
        conv: Any = self.dilated[0]
        return conv.weight.new_zeros(batch, conv.in_channels, self.context)

    def step(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        """Map a chunk (B, C, N), any N >= 1, to (output, None for the skip, next past)."""
        joined = torch.cat([past, x], -1)  # (B, C, context + N)
        x = x + self.residual(self.dilated(joined))
        return x, None, joined[..., joined.shape[-1] - self.context :]


class Tcn(nn.Module):
    """`repeats` stacks of `blocks` blocks with dilations 1, 2, 4, ...; (B, C, N) to (B, C', N).

    The output is the sum of the skip heads, or the last block's output when `skip` is 0.
    `last_residual=False` leaves out the last block's residual head, whose output is unused.
    `dense`: of `DenseBlock`, which has no skip head and no other settings.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        skip: int,
        kernel: int = 3,
        blocks: int = 6,
        repeats: int = 3,
        last_residual: bool = True,
        dense: bool = False,
        **block: Any,
    ) -> None:
        super().__init__()
        if skip == 0 and not last_residual:
            raise ValueError("without skip heads the last block's residual head is the output")
        dilations = doubled(blocks, repeats)
        last = len(dilations) - 1
        self.blocks: Modules[Any] = Modules(
            DenseBlock(channels, hidden, kernel, d)
            if dense
            else TcnBlock(
                channels, hidden, skip, kernel, d, residual=last_residual or i < last, **block
            )
            for i, d in enumerate(dilations)
        )
        self.receptive_field = 1 + sum(b.context for b in self.blocks)  # frames

    def initial_state(self, batch: int = 1) -> State:
        return tuple(block.initial_state(batch) for block in self.blocks)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, C, N), any N >= 1, to its output and the next state."""
        if self.by_rows:
            pasts = [past.transpose(1, 2) for past in state]  # (B, context, H)
            x, following = self.rows(x.transpose(1, 2), pasts)
            return x.transpose(1, 2), tuple(past.transpose(1, 2) for past in following)
        total, following = None, []
        for block, past in zip(self.blocks, state, strict=True):
            x, skip, past = block.step(x, past)
            total = skip if total is None else total + skip
            following.append(past)
        return x if total is None else total, tuple(following)

    @property
    def by_rows(self) -> bool:
        """Whether all is done on rows: in training, where the blocks can."""
        return self.training and isinstance(self.blocks[0], TcnBlock)

    def rows(
        self, x: torch.Tensor, pasts: list[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`step` of (B, N, C) and a list of pasts (B, context, H), and without them `forward`."""
        total, following = None, []
        for block, past in zip(self.blocks, pasts or [None] * len(self.blocks), strict=True):
            x, skip, past = block.rows(x, past)
            total = skip if total is None else total + skip
            following.append(past)
        return x if total is None else total, following

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.by_rows:
            return self.rows(x.transpose(1, 2))[0].transpose(1, 2)
        total = None
        for block in self.blocks:
            x, skip = block(x)
            total = skip if total is None else total + skip
        return x if total is None else total
