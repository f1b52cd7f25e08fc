"""A small U-Net that masks mid and side of a stereo song, with dilated convolutions in its middle.

Vocals are mostly in the middle of the stereo image, so the network reads and masks the
spectra of M = (L + R) / sqrt 2 and S = (L - R) / sqrt 2: a mask can keep what sounds from the
middle in M while it removes what is wide in S. The U-Net follows Jansson et al., "Singing Voice
Separation with Deep U-Net Convolutional Networks", ISMIR 2017; the middle sees all
frequencies at once, as in Choi et al., "Investigating U-Nets with Various Intermediate Blocks
for Spectrogram-based Singing Voice Separation", ISMIR 2020.
B batch, S sources, T samples, C channels, N frames, F frequencies.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from sepcli.layers import masks
from sepcli.layers.modules import Modules
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel

FOLD = 4  # neighbouring frequencies that become channels at the input


def convolve(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution over 3 frames and 3 frequencies, normalised and rectified."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def halve(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution that halves the frequencies of (B, C, N, F)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (3, 4), stride=(1, 2), padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def double(inputs: int, outputs: int) -> nn.Sequential:
    """A transposed convolution that doubles the frequencies of (B, C, N, F)."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, (1, 2), stride=(1, 2), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Dilated(nn.Module):
    """A residual block over time, (B, C, N) to the same: 3 frames, `dilation` apart."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, groups=8, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 1, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.layers(x)).relu()


class MaskUnet(OfflineSpectralModel):
    """Masking of mid and side by a U-Net; (B, 2, T) to (B, S, 2, T), not causal.

    sources: one name, the source that is masked, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.  bins: frequencies that the network sees, a multiple of
    4 * 2^(len(widths) - 1); those above get the mean mask of the highest 128.
    widths: channels of the U-Net at every level; the frequencies are halved from one to the next.
    middle: channels of the dilated convolutions.  dilations: theirs.
    compression: power of the magnitudes that the network reads.
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
        widths: Sequence[int] = (16, 24, 32, 32),
        middle: int = 256,
        dilations: Sequence[int] = (1, 2, 4, 8, 1, 2, 4, 8),
        compression: float = 0.3,
    ) -> None:
        super().__init__()
        unit = FOLD * 2 ** (len(widths) - 1)
        masks.check("mask_unet", sources, bins, unit, window)
        deepest = bins // unit
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.bins, self.compression = bins, compression
        self.stft = CentredStft(window, hop)
        pairs = list(pairwise(widths))
        self.input = convolve(2 * FOLD, widths[0])
        self.encoder = Modules(nn.Sequential(convolve(a, a), halve(a, b)) for a, b in pairs)
        self.flatten = nn.Sequential(
            nn.Conv1d(widths[-1] * deepest, middle, 1, bias=False),
            nn.BatchNorm1d(middle),
            nn.ReLU(),
        )
        self.middle = nn.Sequential(*(Dilated(middle, dilation) for dilation in dilations))
        self.unflatten = nn.Conv1d(middle, widths[-1] * deepest, 1)
        self.up = Modules(double(b, a) for a, b in reversed(pairs))
        self.decoder = Modules(convolve(2 * a, a) for a, _ in reversed(pairs))
        self.output = nn.Conv2d(widths[0], 2 * FOLD, 3, padding=1)

    def mask(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks in [0, 1] of the magnitudes (B, 2, F, N) of mid and side, F = `bins`."""
        x = (magnitude.square() + 1e-10) ** (self.compression / 2)  # the floor bounds the gradient
        x = x.unflatten(2, (-1, FOLD)).permute(0, 1, 3, 4, 2)  # (B, 2, 4, N, F/4)
        x = self.input(x.flatten(1, 2))  # (B, C, N, F/4)
        skips = []
        stages: Any = self.encoder
        for block, halved in stages:
            skips.append(block(x))
            x = halved(skips[-1])
        flat = x.transpose(2, 3).flatten(1, 2)  # (B, C*F', N)
        y = self.unflatten(self.middle(self.flatten(flat)))
        x = x + y.unflatten(1, (x.shape[1], -1)).transpose(2, 3)
        for up, level, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = level(torch.cat([up(x), skip], 1))
        x = self.output(x).sigmoid().unflatten(1, (2, FOLD))  # (B, 2, 4, N, F/4)
        return x.permute(0, 1, 4, 2, 3).flatten(2, 3)

    def spectra(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, 2, F, N) of the sources in the mixture's (B, 2, F, N), complex."""
        x = masks.mid_side(spectrum)
        mask = masks.to_all_frequencies(self.mask(x[:, :, : self.bins].abs()), x.shape[2])
        return masks.with_rest(masks.mid_side(x * mask), spectrum, self.sources)
