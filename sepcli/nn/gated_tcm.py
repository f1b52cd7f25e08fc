"""Gated temporal convolution modules, causal, with their streaming state passed in and out.

The modified gated TCM is from Li et al., "Two Heads Are Better Than One: A Two-Stage Complex
Spectral Mapping Approach for Monaural Speech Enhancement", TASLP 2021. B batch, C channels,
H hidden channels, N frames.
"""

import torch
from torch import nn


class GroupedPReLU(nn.PReLU):
    """PReLU with one slope for each of `groups` equal parts of the channels; (B, C, ...)."""

    def __init__(self, groups):
        super().__init__(groups)

    def forward(self, x):
        parts = x.unflatten(1, (self.num_parameters, -1))  # (B, groups, C / groups, ...)
        return super().forward(parts).flatten(1, 2)


class GatedBranch(nn.Module):
    """main(x) * sigmoid(gate(x)) of (B, H, N), each PReLU, batch norm, and a dilated convolution.

    Main and gate are the two groups of one convolution, the main path first. The past is that of
    the convolution's input, so it starts as zeros after the norm.
    """

    def __init__(self, hidden, kernel, dilation):
        super().__init__()
        self.context = (kernel - 1) * dilation  # frames of history
        self.activation = nn.Sequential(GroupedPReLU(2), nn.BatchNorm1d(2 * hidden))
        self.conv = nn.Conv1d(2 * hidden, 2 * hidden, kernel, dilation=dilation, groups=2)

    def initial_state(self, batch=1):
        """The history before the first frame: zeros (B, 2 H, context)."""
        return self.conv.weight.new_zeros(batch, self.conv.in_channels, self.context)

    def step(self, x, past):
        """Map a chunk (B, H, N), any N >= 1, to (B, H, N) and the next past."""
        x = torch.cat([past, self.activation(torch.cat([x, x], 1))], -1)  # (B, 2 H, context + N)
        main, gate = self.conv(x).chunk(2, 1)  # (B, H, N) each
        return main * gate.sigmoid(), x[..., x.shape[-1] - self.context :]


class DoubleGatedTcm(nn.Module):
    """A residual module of two gated branches, with `dilation` and `max_dilation / dilation`.

    A 1x1 convolution to `hidden` channels, the primal and the dual branch side by side, and a 1x1
    convolution of both back to `channels`; (B, C, N) to (B, C, N).
    """

    def __init__(self, channels, hidden, kernel, dilation, max_dilation):
        super().__init__()
        self.squeeze = nn.Conv1d(channels, hidden, 1)
        self.primal = GatedBranch(hidden, kernel, dilation)
        self.dual = GatedBranch(hidden, kernel, max_dilation // dilation)
        self.context = max(self.primal.context, self.dual.context)  # frames of history
        self.expand = nn.Sequential(
            nn.PReLU(), nn.BatchNorm1d(2 * hidden), nn.Conv1d(2 * hidden, channels, 1)
        )

    def initial_state(self, batch=1):
        return self.primal.initial_state(batch), self.dual.initial_state(batch)

    def step(self, x, state):
        """Map a chunk (B, C, N), any N >= 1, to (B, C, N) and the next state."""
        hidden = self.squeeze(x)  # (B, H, N)
        primal, past = self.primal.step(hidden, state[0])
        dual, dual_past = self.dual.step(hidden, state[1])
        return x + self.expand(torch.cat([primal, dual], 1)), (past, dual_past)
