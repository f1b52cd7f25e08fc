"""Blocks of UL-UNAS: convolutions over frames and bands, attention, GRUs over bands and time.

Rong et al., "UL-UNAS: Ultra-Lightweight U-Nets for Real-Time Speech Enhancement via Network
Architecture Search", TASLP 2026. B batch, C channels, N frames, K bands; blocks map (B, C, N, K) to
(B, C', N, K') frame by frame, and the next state, which has what a causal layer keeps.

What is called OneFrame is the same for one frame, in the few operations that a graph needs: the
channels have the order of the layers that use them, so that none are shuffled, and groups are one
layer with zeros between them.
"""

import copy
import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.modules import Modules
from sepcli.nn.model import State

GROUPS = 2  # of 1x1 convolutions, whose outputs are then shuffled, and of GRUs
SEGMENT = 4  # bands that the attention over frequency reads at a time
KINDS = ("plain", "separable", "bottleneck")


class Shape(NamedTuple):
    """A block: its kind (see KINDS), channels behind it, kernel in frames and bands, and stride."""

    kind: str
    channels: int
    frames: int
    bands: int
    stride: int

    def checked(self) -> "Shape":
        """Itself; raises ValueError for what no block is."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown block {self.kind!r}; choose from {', '.join(KINDS)}")
        if self.bands % 2 == 0 or self.stride not in (1, 2) or min(self.channels, self.frames) < 1:
            raise ValueError(f"a block needs an odd kernel over bands and stride 1 or 2: {self}")
        if self.kind != "plain" and self.channels % GROUPS:
            raise ValueError(f"{self.kind} blocks need an even number of channels: {self}")
        return self


def erb_bands(bins: int, first: int, count: int, sample_rate: int) -> torch.Tensor:
    """Triangles (count, bins - first) over the bins from `first` on, evenly spaced in ERB rate.

    What a bin has is shared between the two bands around it. Scale: Glasberg & Moore, "Derivation
    of auditory filter shapes from notched-noise data", 1990. Raises ValueError for too many bands.
    """
    hz = sample_rate / 2 / (bins - 1)
    rate = lambda f: math.log10(0.00437 * f + 1)  # noqa: E731
    rates = np.linspace(rate(first * hz), rate(sample_rate / 2), count)
    centres = (np.rint((10**rates - 1) / 0.00437 / hz).astype(int) - first).tolist()
    if count < 2 or any(b <= a for a, b in pairwise(centres)):
        raise ValueError(f"{bins - first} bins from {first} on are too few for {count} bands")
    places = np.arange(bins - first, dtype=np.float64)
    shares = np.zeros((count, bins - first))
    for k, (low, high) in enumerate(pairwise(centres)):
        inside = (places >= low) & (places <= high)
        rising = (places[inside] - low) / (high - low)
        shares[k, inside], shares[k + 1, inside] = 1 - rising, rising
    return torch.from_numpy(shares.astype(np.float32))


class AffinePRelu(nn.Module):
    """A PReLU plus a linear path with a gain and an offset for each channel and band."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.gain = nn.Parameter(torch.zeros(channels, 1, bands))
        self.offset = nn.Parameter(torch.zeros(channels, 1, bands))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.prelu(x, self.slope) + torch.addcmul(self.offset, self.gain, x)


class Attention(nn.Module):
    """Gains from the power: of each channel by a GRU over time, of each band by one over bands."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.over_time = nn.GRU(channels, 2 * channels)
        self.time = nn.Linear(2 * channels, channels)
        self.over_bands = nn.GRU(SEGMENT, SEGMENT, bidirectional=True)
        self.bands = nn.Linear(2 * SEGMENT, SEGMENT)

    def initial_state(self, batch: int = 1) -> State:
        """The output of the GRU over time before the first frame: zeros, (B, 2C)."""
        return self.time.weight.new_zeros(batch, self.over_time.hidden_size)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        power = x.square()
        y, state = self.over_time(power.mean(3).permute(2, 0, 1), state[None])  # (N, B, 2C)
        channels = self.time(y).sigmoid().permute(1, 2, 0)[..., None]  # (B, C, N, 1)
        return x * channels * self.of_bands(power.mean(1)), state[0]

    def of_bands(self, power: torch.Tensor) -> torch.Tensor:
        """Gains (B, 1, N, K) of the mean power over channels (B, N, K)."""
        B, N, K = power.shape
        segments = F.pad(power, (0, -K % SEGMENT)).reshape(B * N, -1, SEGMENT).transpose(0, 1)
        gains = self.bands(self.over_bands(segments.contiguous())[0]).sigmoid()  # (K/4, B*N, 4)
        return gains.transpose(0, 1).reshape(B, 1, N, -1)[..., :K]


class CausalConv(nn.Module):
    """Convolution over the frames so far and the bands around; with `up`, bands get twice as many.

    A stride of 2 makes (K + 1) / 2 of K bands, or with `up` K of as many.
    """

    def __init__(self, inputs: int, shape: Shape, *, groups: int = 1, up: bool = False) -> None:
        super().__init__()
        self.inputs, self.past = inputs, shape.frames - 1
        kernel, around = (shape.frames, shape.bands), shape.bands // 2
        self.conv: nn.Module
        if up and shape.stride > 1:  # the kernel's first frame is the present
            self.conv = nn.ConvTranspose2d(
                inputs, shape.channels, kernel, (1, 2), (self.past, around), groups=groups
            )
        else:
            self.conv = nn.Conv2d(
                inputs, shape.channels, kernel, (1, shape.stride), (0, around), groups=groups
            )

    def initial_state(self, bands: int, batch: int = 1) -> State:
        """The frames before the first: zeros, (B, C, kernel - 1, K)."""
        return next(self.parameters()).new_zeros(batch, self.inputs, self.past, bands)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        if not self.past:
            return self.conv(x), state
        x = torch.cat([state.to(x.dtype), x], 2)
        return self.conv(x), x[:, :, x.shape[2] - self.past :]


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """Take the channels of GROUPS groups in turns."""
    return x.unflatten(1, (GROUPS, -1)).transpose(1, 2).flatten(1, 2)


class Block(nn.Module):
    """(B, C, N, K) to (B, C', N, K'), and the next state.

    plain: a convolution. separable: a grouped 1x1 convolution and one of each channel by itself.
    bottleneck: the same, and another 1x1 convolution. Attention ends all of them.

    bands: K. up: whether a stride makes more bands and not fewer. last: without the non-linearity.
    """

    def __init__(
        self, inputs: int, bands: int, shape: Shape, *, up: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        self.bands = bands
        width, after = shape.channels, bands
        if shape.stride == 2:
            after = 2 * bands - 1 if up else (bands + 1) // 2
        self.mix: nn.Module | None = None
        self.mix_again: nn.Module | None = None
        depthwise = shape.kind != "plain"
        if depthwise:
            self.mix = nn.Sequential(
                nn.Conv2d(inputs, width, 1, groups=GROUPS), AffinePRelu(width, bands)
            )
        self.conv = CausalConv(
            width if depthwise else inputs, shape, groups=width if depthwise else 1, up=up
        )
        self.activation = nn.Identity() if last else AffinePRelu(width, after)
        if shape.kind == "bottleneck":
            self.mix_again = nn.Conv2d(width, width, 1, groups=GROUPS)
        self.attention = Attention(width)

    def initial_state(self, batch: int = 1) -> State:
        """The states of the convolution and of the attention before the first frame."""
        return self.conv.initial_state(self.bands, batch), self.attention.initial_state(batch)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        past, heard = state
        if self.mix is not None:
            x = shuffle(self.mix(x))
        x, past = self.conv.step(x, past)
        x = self.activation(x)
        if self.mix_again is not None:
            x, heard = self.attention.step(self.mix_again(x), heard)
            return shuffle(x), (past, heard)
        x, heard = self.attention.step(x, heard)
        return x, (past, heard)


class GroupedGru(nn.Module):
    """A GRU for each of GROUPS groups of features, a matrix, and a norm over bands and features."""

    def __init__(self, features: int, bands: int, *, both_ways: bool = False) -> None:
        super().__init__()
        part = features // GROUPS
        hidden = part // 2 if both_ways else part
        self.grus = Modules(nn.GRU(part, hidden, bidirectional=both_ways) for _ in range(GROUPS))
        self.linear = nn.Linear(features, features)
        self.norm = nn.LayerNorm([bands, features], eps=1e-8)

    def run(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (steps, many, D) to the same, without the norm, and the last outputs, (many, D)."""
        pasts = [None] * GROUPS if state is None else state[None].chunk(GROUPS, -1)
        pairs = [
            gru(part.contiguous(), past if past is None else past.contiguous())
            for gru, part, past in zip(self.grus, x.chunk(GROUPS, -1), pasts, strict=True)
        ]
        y, state = (torch.cat(parts, -1) for parts in zip(*pairs, strict=True))
        return self.linear(y), state[0]


class DualPath(nn.Module):
    """GRUs over the bands, both ways, and then over time, each with a residual path."""

    def __init__(self, features: int, bands: int) -> None:
        super().__init__()
        self.over_bands = GroupedGru(features, bands, both_ways=True)
        self.over_time = GroupedGru(features, bands)

    def initial_state(self, batch: int = 1) -> State:
        """The outputs of the GRUs over time before the first frame: zeros, (B, K, D)."""
        weight = self.over_time.norm.weight  # (K, D)
        return weight.new_zeros(batch, *weight.shape)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map (B, N, K, D) to the same, and the next state."""
        B, N, K, _ = x.shape
        y, _ = self.over_bands.run(x.flatten(0, 1).transpose(0, 1))  # (K, B*N, D)
        x = x + self.over_bands.norm(y.transpose(0, 1).unflatten(0, (B, N)))
        y, state = self.over_time.run(x.transpose(0, 1).flatten(1, 2), state.flatten(0, 1))
        x = x + self.over_time.norm(y.unflatten(1, (B, K)).transpose(0, 1))  # y: (N, B*K, D)
        return x, state.unflatten(0, (B, K))


class OneFrameAttention(nn.Module):
    """Attention for channels that come in another order: the new number i is the old `order[i]`."""

    def __init__(self, attention: Attention, order: torch.Tensor) -> None:
        super().__init__()
        self.over_time = _copy(attention.over_time)
        entering = self.over_time.get_parameter("weight_ih_l0")
        entering.copy_(attention.over_time.get_parameter("weight_ih_l0")[:, order])
        self.time = _copy(attention.time)
        for new, old in zip(self.time.parameters(), attention.time.parameters(), strict=True):
            new.copy_(old[order])
        self.over_bands, self.bands = attention.over_bands, attention.bands

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map (B, C, 1, K) to the same, and the next state."""
        power, (_, C, _, K) = x * x, x.shape
        _, state = self.over_time(power.mean((2, 3))[None], state[None])
        channels = self.time(state[0]).sigmoid().reshape(-1, C, 1, 1)
        count = -(-K // SEGMENT)
        segments = F.pad(power.mean((1, 2)), (0, -K % SEGMENT)).reshape(-1, count, SEGMENT)
        gains = self.bands(self.over_bands(segments.transpose(0, 1))[0])  # (K/4, B, 4)
        gains = gains.transpose(0, 1).reshape(-1, 1, 1, count * SEGMENT)[..., :K].sigmoid()
        return x * channels * gains, state[0]


class OneFrameBlock(nn.Module):
    """A `Block` for one frame."""

    @torch.no_grad()
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv, self.activation = block.conv, block.activation
        as_it_is = torch.arange(block.attention.time.out_features)
        order = shuffle(as_it_is[None])[0] if block.mix is not None else as_it_is
        self.mix = self.mix_again = None
        if block.mix is not None:
            mix: Any = block.mix
            self.mix = nn.Sequential(_dense(mix[0], order), _copy(mix[1]))
            for parameter in self.mix[1].parameters():
                parameter.copy_(parameter[order])
        if block.mix_again is not None:
            self.mix_again = _dense(block.mix_again, order)
            as_it_is = order
        self.attention = OneFrameAttention(block.attention, as_it_is)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map (B, C, 1, K) to (B, C', 1, K'), and the next state."""
        past, heard = state
        x = x if self.mix is None else self.mix(x)
        now = x
        x, past = self.conv.step(x, past)
        past = now if self.conv.past == 1 else past
        x = self.activation(x)
        x = x if self.mix_again is None else self.mix_again(x)
        x, heard = self.attention(x, heard)
        return x, (past, heard)


class OneFrameDualPath(nn.Module):
    """A `DualPath` for one frame."""

    def __init__(self, layer: DualPath) -> None:
        super().__init__()
        self.bands, self.time = map(_OneGru, (layer.over_bands, layer.over_time))

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map (B, K, D) to the same, and the next state."""
        D = x.shape[2]
        y, _ = self.bands.gru(x.transpose(0, 1))  # (K, B, D)
        x = x + self.bands.norm(self.bands.linear(y).transpose(0, 1))
        y, state = self.time.gru(x.reshape(1, -1, D), state.reshape(1, -1, D))  # (1, B*K, D)
        y = self.time.linear(y[0]).reshape(-1, *x.shape[1:])
        return x + self.time.norm(y), state[0].reshape(-1, *x.shape[1:])


class _OneGru(nn.Module):
    """A `GroupedGru` as one GRU, whose weights are 0 from group to group."""

    @torch.no_grad()
    def __init__(self, layer: GroupedGru) -> None:
        super().__init__()
        grus, first = layer.grus, layer.grus[0]
        ways = 2 if first.bidirectional else 1
        part, hidden = first.input_size, first.hidden_size
        self.gru = nn.GRU(GROUPS * part, GROUPS * hidden, bidirectional=ways == 2)
        self.gru.to(layer.linear.weight)
        for name, parameter in self.gru.named_parameters():
            parts = [getattr(gru, name).chunk(3) for gru in grus]
            join = torch.block_diag if parameter.ndim > 1 else lambda *parts: torch.cat(parts)
            parameter.copy_(torch.cat([join(*gate) for gate in zip(*parts, strict=True)]))
        # Outputs were those of the first group, both ways, and then those of the second.
        places = torch.arange(GROUPS * ways * hidden).view(GROUPS, ways, hidden).transpose(0, 1)
        self.linear, self.norm = _copy(layer.linear), layer.norm
        self.linear.weight.copy_(layer.linear.weight[:, places.flatten()])


def _copy(module):
    """A copy of a module that has weights of its own."""
    return copy.deepcopy(module).requires_grad_(False)


def _dense(conv, order):
    """A grouped 1x1 convolution as one of all channels, with its outputs in another order."""
    new: Any = nn.Conv2d(conv.in_channels, conv.out_channels, 1).to(conv.weight)
    new.weight.copy_(torch.block_diag(*conv.weight[..., 0, 0].chunk(GROUPS))[order, :, None, None])
    new.bias.copy_(conv.bias[order])
    return new
