"""Layers that work on the bands of a spectrum with weights that the bands share.

Tensors between them are (N, K, B, C): N frames, K bands, B batch, C channels. So a product over
channels, one over bands and the steps of a recurrence all read memory in its order.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.nn.model import State

BLOCK = 64  # frames of a running mean that are computed at once


def band_widths(bins: int, bands: Sequence[tuple[int, int]]) -> list[int]:
    """The number of bins of each band: `bands` are pairs (how many, bins of each), from 0 Hz on.

    What they leave of `bins` is part of the last band.
    """
    widths = [width for count, width in bands for _ in range(count)]
    rest = bins - sum(widths)
    if not widths or min(widths) < 1 or rest < 0:
        raise ValueError(f"bands {bands} do not fit a spectrum of {bins} bins")
    widths[-1] += rest
    return widths


class RunningMean(nn.Module):
    """Causal mean of (..., N) with exponential forgetting; of what has been heard, from the start.

    frames: after which a value weighs 1/e.
    """

    def __init__(self, frames: float) -> None:
        super().__init__()
        self.keep = math.exp(-1 / frames)

    def step(
        self, x: torch.Tensor, total: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means of (B, F, N), and the next `total` (B, F) and `weight` (B, 1), zeros at first."""
        means = []
        for part in x.split(BLOCK, -1):
            past, taps = self._shares(part)
            totals = total[..., None] * past + part @ taps
            weights = weight[..., None] * past + taps.sum(0)
            means.append(totals / weights)
            total, weight = totals[..., -1], weights[..., -1]
        return torch.cat(means, -1), total, weight

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """Means of (B, F, N) from the start on, in one product of N x N numbers."""
        _, taps = self._shares(x)
        return x @ taps / taps.sum(0)

    def _shares(self, x):
        """What is left of what came before after each frame (N,), and from frame to frame."""
        ages = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
        spans = ages[None] - ages[:, None]  # (N, N)
        return self.keep**ages, (self.keep ** spans.clamp(min=0)).triu()


class BandEncoder(nn.Module):
    """Features (B, P, F, N) to (N, K, B, C); each band reads `span` bins around its middle.

    P planes of features per bin. Every band has weights of its own.
    """

    bins: torch.Tensor

    def __init__(self, planes: int, widths: Sequence[int], span: int, channels: int) -> None:
        super().__init__()
        bins, bands = sum(widths), len(widths)
        if not max(widths) <= span <= bins:
            raise ValueError(f"span must lie between the widest band and all {bins} bins")
        starts = torch.tensor([0, *widths[:-1]]).cumsum(0)
        first = (starts + torch.tensor(widths) // 2 - span // 2).clamp(0, bins - span)
        self.register_buffer("bins", first[:, None] + torch.arange(span), persistent=False)
        scale = (planes * span) ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(bands, span * planes, channels))
        self.bias = nn.Parameter(torch.zeros(bands, 1, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        B, _, _, N = features.shape
        x = features.permute(2, 3, 0, 1)[self.bins]  # (K, span, N, B, P)
        x = x.flatten(2, 3).transpose(1, 2).flatten(2)  # (K, N*B, span*P)
        x = torch.baddbmm(self.bias, x, self.weight)
        return x.unflatten(1, (N, B)).transpose(0, 1)


class BandDecoder(nn.Module):
    """(N, K, B, C) to one value per bin (B, F, N); every band has weights of its own."""

    places: torch.Tensor

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        bands, widest = len(widths), max(widths)
        places = torch.cat([k * widest + torch.arange(width) for k, width in enumerate(widths)])
        self.register_buffer("places", places, persistent=False)
        self.weight = nn.Parameter(0.3 * channels**-0.5 * torch.randn(bands, channels, widest))
        self.bias = nn.Parameter(torch.zeros(bands, 1, widest))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        N, _, B, _ = x.shape
        y = torch.baddbmm(self.bias, x.transpose(0, 1).flatten(1, 2), self.weight)  # (K, N*B, W)
        y = y.transpose(1, 2).flatten(0, 1)[self.places]  # (F, N*B)
        return y.unflatten(1, (N, B)).permute(2, 0, 1)


class BandMixer(nn.Module):
    """Two layers over the bands, alike for all channels, between products over the channels.

    (N, K, B, C) to the same, with a residual path.  hidden: features that replace the bands inside.
    """

    def __init__(self, channels: int, bands: int, hidden: int) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.mix = nn.Parameter(bands**-0.5 * torch.randn(hidden, bands))
        self.bias = nn.Parameter(torch.zeros(hidden, 1))
        self.unmix = nn.Parameter(hidden**-0.5 * torch.randn(bands, hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        N, _, B, C = x.shape
        y = self.before(x).relu().flatten(2)  # (N, K, B*C)
        y = torch.baddbmm(self.bias.expand(N, -1, 1), self.mix.expand(N, -1, -1), y).relu()
        y = torch.bmm(self.unmix.expand(N, -1, -1), y)
        return x + self.after(y.unflatten(2, (B, C)))

    def one_frame(self, x: torch.Tensor) -> torch.Tensor:
        """The same for one frame, (B, K, C)."""
        y = self.before(x).relu()
        return x + self.after(self.unmix @ (self.mix @ y + self.bias).relu())


class BandLstm(nn.Module):
    """An LSTM over time, the same in every band, after a layer norm and with a residual path."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.lstm = nn.LSTM(channels, hidden)
        self.out = nn.Linear(hidden, channels)
        with torch.no_grad():  # forget slowly at first
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] += 1

    def initial_state(self, bands: int, batch: int = 1) -> State:
        """Output and cell before the first frame: zeros, (B, K, H) each."""
        zeros = self.out.weight.new_zeros(batch, bands, self.lstm.hidden_size)
        return zeros, zeros.clone()

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map (N, K, B, C) to the same, and the next state."""
        N, K, B, C = x.shape
        past = tuple(part.transpose(0, 1).reshape(1, K * B, -1).contiguous() for part in state)
        y, following = self.lstm(self.norm(x).reshape(N, K * B, C), past)
        x = x + self.out(y).unflatten(1, (K, B))
        return x, tuple(part.reshape(K, B, -1).transpose(0, 1) for part in following)


class OneFrameLstm(nn.Module):
    """A `BandLstm` for one frame (B, K, C), written as products that every graph has."""

    @torch.no_grad()
    def __init__(self, band: BandLstm) -> None:
        super().__init__()
        self.norm, self.out = band.norm, band.out
        self.hidden = band.lstm.hidden_size
        order = [0, 1, 3, 2]  # input, forget and output gate, which are sigmoids, then the cell's
        chunk = lambda value: torch.cat([value.chunk(4)[i] for i in order])  # noqa: E731
        lstm: Any = band.lstm
        both = torch.cat([lstm.weight_ih_l0, lstm.weight_hh_l0], 1)
        self.gates = nn.Linear(both.shape[1], both.shape[0], device="meta")
        self.gates.weight = nn.Parameter(chunk(both))
        self.gates.bias = nn.Parameter(chunk(lstm.bias_ih_l0 + lstm.bias_hh_l0))

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        output, cell = state
        gates = self.gates(torch.cat([self.norm(x), output], -1))
        opened, new = gates.split([3 * self.hidden, self.hidden], -1)
        enter, keep, leave = opened.sigmoid().chunk(3, -1)
        cell = keep * cell + enter * new.tanh()
        output = leave * cell.tanh()
        return x + self.out(output), (output, cell)
