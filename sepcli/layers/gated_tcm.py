"""Gated temporal convolution modules, causal, with their streaming state passed in and out.

The modified gated TCM is from Li et al., "Two Heads Are Better Than One: A Two-Stage Complex
Spectral Mapping Approach for Monaural Speech Enhancement", TASLP 2021. B batch, C channels,
H hidden channels, N frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.layers.folding import scale_and_shift
from sepcli.layers.modules import Modules
from sepcli.nn.model import State


class GroupedPReLU(nn.PReLU):
    """PReLU with one slope for each of `groups` equal parts of the channels; (B, C, ...)."""

    def __init__(self, groups: int) -> None:
        super().__init__(groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.unflatten(1, (self.num_parameters, -1))  # (B, groups, C / groups, ...)
        return super().forward(parts).flatten(1, 2)


class GatedBranch(nn.Module):
    """main(x) * sigmoid(gate(x)) of (B, H, N), each PReLU, batch norm, and a dilated convolution.

    Main and gate are the two groups of one convolution, the main path first. The past is that of
    the convolution's input, so it starts as zeros after the norm.
    """

    def __init__(self, hidden: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.context = (kernel - 1) * dilation  # frames of history
        self.activation = nn.Sequential(GroupedPReLU(2), nn.BatchNorm1d(2 * hidden))
        self.conv = nn.Conv1d(2 * hidden, 2 * hidden, kernel, dilation=dilation, groups=2)

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """The history before the first frame: zeros (B, 2 H, context)."""
        return self.conv.weight.new_zeros(batch, self.conv.in_channels, self.context)

    def step(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map a chunk (B, H, N), any N >= 1, to (B, H, N) and the next past."""
        x = torch.cat([past, self.activation(torch.cat([x, x], 1))], -1)  # (B, 2 H, context + N)
        main, gate = self.conv(x).chunk(2, 1)  # (B, H, N) each
        return main * gate.sigmoid(), x[..., x.shape[-1] - self.context :]


class DoubleGatedTcm(nn.Module):
    """A residual module of two gated branches, with `dilation` and `max_dilation / dilation`.

    A 1x1 convolution to `hidden` channels, the primal and the dual branch side by side, and a 1x1
    convolution of both back to `channels`; (B, C, N) to (B, C, N).
    """

    def __init__(
        self, channels: int, hidden: int, kernel: int, dilation: int, max_dilation: int
    ) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, hidden, 1)
        self.primal = GatedBranch(hidden, kernel, dilation)
        self.dual = GatedBranch(hidden, kernel, max_dilation // dilation)
        self.context = max(self.primal.context, self.dual.context)  # frames of history
        self.expand = nn.Sequential(
            nn.PReLU(), nn.BatchNorm1d(2 * hidden), nn.Conv1d(2 * hidden, channels, 1)
        )

    def initial_state(self, batch: int = 1) -> State:
        return self.primal.initial_state(batch), self.dual.initial_state(batch)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, C, N), any N >= 1, to (B, C, N) and the next state."""
        hidden = self.squeeze(x)  # (B, H, N)
        primal, past = self.primal.step(hidden, state[0])
        dual, dual_past = self.dual.step(hidden, state[1])
        return x + self.expand(torch.cat([primal, dual], 1)), (past, dual_past)


class OneFrameTcms(nn.Module):
    """What a list of DoubleGatedTcm does, one frame at a time and in few, large products.

    There the number of operations costs as much as their size. Every module has four lines of
    history, the main paths of both branches and then their gates; all lines are rows of one state,
    and one product does what their filters make of the past for the whole list.
    """

    past_weight: torch.Tensor
    past_bias: torch.Tensor
    rising: torch.Tensor
    falling: torch.Tensor
    offset: torch.Tensor
    taps: torch.Tensor
    following: torch.Tensor

    def __init__(self, tcms: "Sequence[DoubleGatedTcm] | Modules[DoubleGatedTcm]") -> None:
        super().__init__()
        steps, shift = [], torch.zeros(()).double()
        for tcm in tcms:
            steps.append(OneFrameTcm(tcm, shift))
            shift = steps[-1].shift
        self.steps = Modules(steps)
        self.shift = shift  # (C,), to be added to the output
        lines = [line for tcm in tcms for line in lines_of(tcm)]
        self.hidden, self.past = lines[0].hidden, lines[0].past
        like = tcms[0].squeeze.weight
        for name in ("past_weight", "past_bias", "rising", "falling", "offset"):
            values = torch.stack([getattr(line, name) for line in lines]).to(like)
            self.register_buffer(name, values)
        self._lay_out([line.dilation for line in lines])

    def _lay_out(self, dilations):
        """Which rows of the state, each line's oldest first, are read, and where all come from."""
        lengths = [self.past * dilation for dilation in dilations]
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self.rows = sum(lengths)
        taps, following = [], []
        for line, (start, dilation) in enumerate(zip(starts, dilations, strict=True)):
            taps += range(start, start + lengths[line], dilation)
            following += [*range(start + 1, start + lengths[line]), self.rows + line]
        self.register_buffer("taps", torch.tensor(taps))
        self.register_buffer("following", torch.tensor(following))

    def initial_state(self, batch: int = 1) -> State:
        """The history before the first frame: zeros (B, rows, H)."""
        return self.offset.new_zeros(batch, self.rows, self.hidden)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Map a frame (B, C) to (B, C), less the constant `shift`, and the next state."""
        B, M = x.shape[0], len(self.steps)  # len(x) would be a constant of the graph
        past = state.index_select(1, self.taps)  # (B, 4 M * past, H)
        past = past.reshape(B, 4 * M, 1, self.past * self.hidden)
        past = past @ self.past_weight + self.past_bias  # (B, 4 M, 1, H)
        halves = []
        for step, own in zip(self.steps, past.flatten(1).chunk(M, 1), strict=True):
            x, half = step(x, own)
            halves.append(half)
        up, down = torch.cat(halves, 1).reshape(B, M, 1, 2 * self.hidden).chunk(2, 3)
        lines = (M, 4, self.hidden)
        new = up * self.rising.reshape(lines) + down * self.falling.reshape(lines)
        new = (new + self.offset.reshape(lines)).flatten(1, 2)  # (B, 4 M, H)
        return x, torch.cat([state, new], 1).index_select(1, self.following)


class OneFrameTcm(nn.Module):
    """A DoubleGatedTcm on one frame, given what its filters make of the frames before it.

    Whatever is linear there is multiplied out. A PReLU is linear in the two halves max(x, 0) and
    max(-x, 0), and `squeeze` gives both. shift: what the input lacks, (C,); the output lacks the
    attribute `shift`.
    """

    squeeze: torch.Tensor
    bias: torch.Tensor
    now: torch.Tensor
    expand: torch.Tensor

    @torch.no_grad()
    def __init__(self, tcm: DoubleGatedTcm, shift: torch.Tensor) -> None:
        super().__init__()
        layers: Any = tcm.expand
        prelu, norm, expand = layers
        scale, offset = scale_and_shift(norm)
        weight = expand.weight[..., 0].double()  # (C, 2 H)
        self.slope = float(prelu.weight)
        self.shift = shift + expand.bias.double() + weight @ offset
        squeeze = tcm.squeeze.weight[..., 0].double()  # (H, C)
        bias = tcm.squeeze.get_parameter("bias").double() + (squeeze * shift).sum(1)
        halves = [torch.cat([line.now_rising, line.now_falling]) for line in lines_of(tcm)]
        for name, values in {
            "squeeze": torch.cat([squeeze, -squeeze]).T,  # (C, 2 H)
            "bias": torch.cat([bias, -bias]),  # (2 H,)
            "now": torch.cat(halves, 1),  # (2 H, 4 H)
            "expand": (weight * scale).T,  # (2 H, C)
        }.items():
            self.register_buffer(name, values.to(tcm.squeeze.weight).contiguous())

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, C), and the past's share (B, 4 H), to (B, C) and the halves (B, 2 H)."""
        halves = torch.addmm(self.bias, x, self.squeeze).relu()
        main, gate = torch.addmm(past, halves, self.now).chunk(2, 1)  # (B, 2 H) each
        gated = nn.functional.leaky_relu(main * gate.sigmoid(), self.slope)
        return torch.addmm(x, gated, self.expand), halves


def lines_of(tcm: DoubleGatedTcm) -> "list[Line]":
    """The four lines of a module: the main paths of both branches, then their gates."""
    return [Line(branch, part) for part in range(2) for branch in (tcm.primal, tcm.dual)]


class Line:
    """One path of a GatedBranch as products: PReLU, batch norm, filter; all (..., H), float64.

    With the halves u = max(x, 0) and d = max(-x, 0) the filter reads rising * u + falling * d +
    offset; of the present frame it makes u @ now_rising + d @ now_falling, and a constant that is
    part of past_bias, and of `past` frames before, oldest first, history @ past_weight.
    """

    @torch.no_grad()
    def __init__(self, branch: GatedBranch, part: int) -> None:
        layers: Any = (branch.activation, branch.conv)
        (slopes, norm), conv = layers
        self.hidden, self.dilation = conv.out_channels // 2, conv.dilation[0]
        self.past = conv.kernel_size[0] - 1
        own = slice(part * self.hidden, (part + 1) * self.hidden)
        scale, offset = (values[own] for values in scale_and_shift(norm))
        self.rising, self.offset = scale, offset
        self.falling = -slopes.weight[part].double() * scale
        weight = conv.weight[own].double().permute(2, 1, 0)  # (kernel, H in, H out)
        self.past_weight = weight[: self.past].flatten(0, 1)  # (past * H, H)
        self.past_bias = (conv.bias[own].double() + offset @ weight[-1])[None]  # (1, H)
        self.now_rising = self.rising[:, None] * weight[-1]
        self.now_falling = self.falling[:, None] * weight[-1]
