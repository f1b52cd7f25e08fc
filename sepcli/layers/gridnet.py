"""Blocks that read a grid of frames and bands along the bands, along time, and across time.

Wang et al., "TF-GridNet: Integrating full- and sub-band modeling for speech separation", TASLP
2023. B batch, N frames, K bands, D features; every block maps (B, N, K, D) to the same.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.modules import Modules


class Attention(nn.Module):
    """Attention of every band over time, its sum with the query normalised.

    The query (B, N, K, D) attends to a memory (B, M, K, D) of any number of frames M.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.norm = nn.LayerNorm(features)

    def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        B, N, K, D = query.shape
        q, m = (x.transpose(1, 2).reshape(B * K, -1, D) for x in (query, memory))
        y = self.norm(q + self.attention(q, m, m, need_weights=False)[0])
        return y.reshape(B, K, N, D).transpose(1, 2)


class _Pass(nn.Module):
    """An LSTM in both directions, a matrix back to D, and the normalised sum with the input."""

    def __init__(self, features, hidden):
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, x):
        return self.norm(x + self.linear(self.lstm(x)[0]))


class GridBlock(nn.Module):
    """The block in short: an LSTM over bands, one over time, attention over time."""

    def __init__(self, features: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.over_bands = _Pass(features, hidden)
        self.over_time = _Pass(features, hidden)
        self.attention = Attention(features, heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, N, K, D = x.shape
        x = self.over_bands(x.reshape(B * N, K, D)).reshape(B, N, K, D)
        x = x.transpose(1, 2).reshape(B * K, N, D)
        x = self.over_time(x).reshape(B, K, N, D).transpose(1, 2)
        return self.attention(x, x)


class _UnfoldedPass(nn.Module):
    """Over the last axis of (B, D, N, K): an LSTM on `kernel` neighbours at a time, and back."""

    def __init__(self, features, hidden, kernel, stride):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.norm = nn.LayerNorm(features, eps=1e-5)
        self.lstm = nn.LSTM(features * kernel, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.ConvTranspose1d(2 * hidden, features, kernel, stride=stride)

    def forward(self, x):
        B, D, N, K = x.shape
        y = self.norm(x.movedim(1, -1)).movedim(-1, 1)  # over D
        y = y.transpose(1, 2).reshape(B * N, D, K)
        y = y.unfold(-1, self.kernel, self.stride)  # (B*N, D, L, kernel)
        y = y.permute(0, 2, 1, 3).flatten(2)  # (B*N, L, D*kernel)
        y = self.linear(self.lstm(y)[0].transpose(1, 2))  # (B*N, D, K)
        return x + y.reshape(B, N, D, K).transpose(1, 2)


class _Projection(nn.Module):
    """A 1x1 convolution, PReLU, and layer norm over features and bands; (B, D, N, K)."""

    def __init__(self, inputs, outputs, bands):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.activation = nn.PReLU()
        self.gamma = nn.Parameter(torch.ones(1, outputs, 1, bands))
        self.beta = nn.Parameter(torch.zeros(1, outputs, 1, bands))

    def forward(self, x):
        x = self.activation(self.conv(x))
        variance, mean = torch.var_mean(x, (1, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.gamma + self.beta


class FullGridBlock(nn.Module):
    """The block of the paper: unfolded LSTMs, and attention of whole frames to each other.

    kernel, stride: neighbours that an LSTM reads at a time, and from one time to the next; what
    they do not fill is padded with zeros and cut off again.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        heads: int,
        bands: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        keys: int = 512,
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features do not split into {heads} heads")
        self.kernel, self.stride = kernel, stride
        self.over_bands = _UnfoldedPass(features, hidden, kernel, stride)
        self.over_time = _UnfoldedPass(features, hidden, kernel, stride)
        size = math.ceil(keys / bands)
        self.queries = Modules(_Projection(features, size, bands) for _ in range(heads))
        self.keys = Modules(_Projection(features, size, bands) for _ in range(heads))
        values = features // heads
        self.values = Modules(_Projection(features, values, bands) for _ in range(heads))
        self.output = _Projection(features, features, bands)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2)  # (B, D, N, K)
        N, K = x.shape[2:]
        x = F.pad(x, (0, self._missing(K), 0, self._missing(N)))
        x = self.over_bands(x)
        x = self.over_time(x.transpose(2, 3)).transpose(2, 3)[:, :, :N, :K]
        return self._attend(x).permute(0, 2, 3, 1)

    def _missing(self, size):
        steps = math.ceil((size - self.kernel) / self.stride)
        return max(0, steps) * self.stride + self.kernel - size

    def _attend(self, x):
        q, k, v = (
            torch.stack([one(x) for one in heads], 1)  # (B, heads, E, N, K)
            for heads in (self.queries, self.keys, self.values)
        )
        q, k, flat = (y.transpose(2, 3).flatten(3) for y in (q, k, v))  # (B, heads, N, E*K)
        y = F.scaled_dot_product_attention(q, k, flat)
        y = y.unflatten(3, (v.shape[2], v.shape[4])).transpose(2, 3)  # (B, heads, E, N, K)
        return x + self.output(y.flatten(1, 2))
