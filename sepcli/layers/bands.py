"""Spectra as bands that overlap: from bins to one feature vector a band, and from there to masks.

B batch, N frames, F bins, K bands, D features.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sepcli.layers.modules import Modules

FINE = [(0, 4), *((4 * i - 1, 4 * i + 4) for i in range(1, 9)), (35, 42)]
MEDIUM = [(41, 60), *((42 + 16 * j, 60 + 16 * j) for j in range(1, 17)), (314, 341)]
COARSE = [(340, 370), *((341 + 27 * k, 370 + 27 * k) for k in range(1, 24)), (989, 1024)]
WIDE_BINS = 1025  # of the transform that the 53 bands above are made for: 2048 samples at 48 kHz


def wide_bands() -> list[tuple[int, int]]:
    """The first and the last bin of 53 bands of 1,025 bins of 23.4 Hz, both included.

    10 up to 1 kHz, 18 up to 8 kHz and 25 up to 24 kHz, every bin in one of them or two.
    """
    return [*FINE, *MEDIUM, *COARSE]


def mel_bands(bins: int, count: int, sample_rate: int) -> list[tuple[int, int]]:
    """`count` bands of `bins` bins, (first, last), as wide as each other in mel; two bins or more.

    Neighbours share a bin. Raises ValueError where there are too few bins for so many bands.
    """
    if not 1 <= count <= (bins - 1) // 2:
        raise ValueError(f"{bins} bins give 1 to {(bins - 1) // 2} bands, not {count}")
    highest = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700))  # O'Shaughnessy's mel
    edges_hz = 700 * (10 ** (torch.linspace(0, float(highest), count + 1) / 2595) - 1)
    edges = (edges_hz / (sample_rate / 2) * (bins - 1)).round().long().tolist()
    for k in range(1, count + 1):  # no band is narrower than two bins
        edges[k] = max(edges[k], edges[k - 1] + 1)
    edges[count] = bins - 1
    for k in range(count - 1, 0, -1):
        edges[k] = min(edges[k], edges[k + 1] - 1)
    return [(edges[k], edges[k + 1]) for k in range(count)]


class BandSplit(nn.Module):
    """A spectrum (B, 2, F, N), real and imaginary parts, as features (B, N, K, D) of its bands.

    Every band is normalised by itself, frame by frame, and mapped by a matrix of its own.
    """

    def __init__(self, bands: Sequence[tuple[int, int]], features: int) -> None:
        super().__init__()
        self.bands = [(first, last) for first, last in bands]
        sizes = [2 * (last - first + 1) for first, last in self.bands]
        self.norms = Modules(nn.LayerNorm(size) for size in sizes)
        self.linears = Modules(nn.Linear(size, features) for size in sizes)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        x = spectrum.permute(0, 3, 2, 1)  # (B, N, F, 2)
        parts = [
            linear(norm(x[:, :, first : last + 1].flatten(2)))
            for (first, last), norm, linear in zip(
                self.bands, self.norms, self.linears, strict=True
            )
        ]
        return torch.stack(parts, 2)


class BandMerge(nn.Module):
    """Features (B, N, K, D) as a complex mask (B, 2, F, N); a bin in two bands gets their mean.

    A new one gives the mask 1, nearly: a new model passes the mixture through.
    """

    share: torch.Tensor

    def __init__(self, bands: Sequence[tuple[int, int]], features: int, bins: int) -> None:
        super().__init__()
        self.bands, self.bins = [(first, last) for first, last in bands], bins
        sizes = [last - first + 1 for first, last in self.bands]
        self.linears = Modules(nn.Linear(features, 2 * size) for size in sizes)
        for linear in self.linears:
            nn.init.normal_(linear.weight, std=1e-4)
            with torch.no_grad():
                linear.bias.copy_(torch.tensor([1.0, 0.0]).repeat(linear.out_features // 2))
        share = np.zeros(bins, np.float32)
        for first, last in self.bands:
            share[first : last + 1] += 1
        if not share.all():
            raise ValueError(f"the bands leave out {int((share == 0).sum())} of {bins} bins")
        self.register_buffer("share", torch.from_numpy(1 / share), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, N = x.shape[:2]
        mask = x.new_zeros(B, N, self.bins, 2)
        for k, ((first, last), linear) in enumerate(zip(self.bands, self.linears, strict=True)):
            mask[:, :, first : last + 1] += linear(x[:, :, k]).unflatten(-1, (-1, 2))
        return (mask * self.share[:, None]).permute(0, 3, 2, 1)
