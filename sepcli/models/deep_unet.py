"""deep_unet: a deep U-Net of strided convolutions that masks stereo songs, not causal.

The U-Net is that of Jansson et al., "Singing Voice Separation with Deep U-Net Convolutional
Networks", ISMIR 2017, in the form of Hennequin et al., "Spleeter: a fast and efficient music
source separation tool with pre-trained models", JOSS 5(50), 2020: magnitudes as they are,
convolutions of 5 x 5 that halve time and frequency six times, skips from before gains and
rectifiers. Beside left and right it sees and masks M = (L + R) / sqrt 2 and S = (L - R) / sqrt 2,
so that it can tell what is in the middle from what is wide. It is deaf to the level of a song.
B batch, S sources, T samples, C channels, N frames, F frequencies.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers import masks
from sepcli.layers.modules import Modules
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel

KERNEL, DILATED = 5, 4  # sizes of the convolutions, and of the last one
VIEWS = 4  # left, right, mid and side
LEVEL = 8.0  # root mean square of the magnitudes that the network reads
SILENCE = 1e-4  # of magnitudes: softer songs are not made louder than that


class Scaled(nn.Module):
    """A gain and an offset for each channel of (B, C, N, F), as batch norm has when it has learned.

    There is no norm of batches: that of loud low frequencies is not that of songs as a whole.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Down(nn.Module):
    """A convolution that halves time and frequency, (B, C, N, F) to (B, C', N/2, F/2)."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        self.before = nn.Identity() if first else nn.Sequential(Scaled(inputs), nn.LeakyReLU(0.2))
        self.convolution = nn.Conv2d(inputs, outputs, KERNEL, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(F.pad(self.before(x), (1, 2, 1, 2)))


class Up(nn.Module):
    """A transposed convolution that doubles them, (B, C, N, F) to (B, C', 2 N, 2 F)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(inputs, outputs, KERNEL, stride=2, padding=1)
        self.after = Scaled(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.convolution(x)[..., :-1, :-1].relu())


class DeepUnet(OfflineSpectralModel):
    """Masking of left, right, mid and side by a deep U-Net; (B, 2, T) to (B, S, 2, T), not causal.

    sources: one name, the source that is masked, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.  bins: frequencies that the network sees, a multiple of
    2^len(widths); those above get the mean mask of the highest 128.
    widths: channels of the U-Net at every level; time and frequency are halved to each of them.
    last: channels that the masks are made of.
    """

    channels = 2
    compilable = "mask"  # compilers know no complex numbers

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("vocals", "accompaniment"),
        sample_rate: int = 44100,
        window: int = 4096,
        hop: int = 1024,
        bins: int = 1024,
        widths: Sequence[int] = (16, 32, 64, 128, 256, 112),
        last: int = 4,
    ) -> None:
        super().__init__()
        unit = 2 ** len(widths)
        masks.check("deep_unet", sources, bins, unit, window)
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.bins, self.unit = bins, unit
        self.stft = CentredStft(window, hop)
        self.down = Modules(
            Down(a, b, first=n == 0) for n, (a, b) in enumerate(pairwise((VIEWS, *widths)))
        )
        outputs = (*reversed(widths[:-1]), last)
        inputs = (widths[-1], *(2 * width for width in outputs[:-1]))
        self.up = Modules(map(Up, inputs, outputs))
        self.output = nn.Conv2d(last, VIEWS, DILATED, dilation=2, padding=3)

    def mask(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks in [0, 1] of magnitudes (B, 4, F, N), F = `bins`: left, right, mid and side."""
        N = magnitude.shape[-1]
        level = magnitude[:, :2].square().mean((1, 2, 3), keepdim=True).sqrt()
        x = magnitude * (LEVEL / level.clamp(min=SILENCE))
        x = F.pad(x.transpose(2, 3), (0, 0, 0, -N % self.unit))  # (B, 4, N, F)
        skips = []
        stages: Any = self.down
        for down in stages:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = up(x)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        return self.output(x).sigmoid()[:, :, :N].transpose(2, 3)

    def spectra(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, 2, F, N) of the sources in the mixture's (B, 2, F, N), complex."""
        views = torch.cat([spectrum, masks.mid_side(spectrum)], 1)
        mask = self.mask(views[:, :, : self.bins].abs())
        mask = masks.to_all_frequencies(mask, spectrum.shape[2])
        estimate = masks.mid_side(views[:, 2:] * mask[:, 2:]) * mask[:, :2]
        return masks.with_rest(estimate, spectrum, self.sources)
