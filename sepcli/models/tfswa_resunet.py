"""TFSWA-ResUNet: magnitudes by a residual U-Net with attention in its bottleneck, not causal.

Yao et al., "TFSWA-ResUNet: music source separation with time-frequency sequence and shifted window
attention-based ResUNet", EURASIP Journal on Audio, Speech, and Music Processing 2025:39. The text
leaves some layers open; here they are such that the size comes near the published 44.3 million.
B batch, S sources, C channels, T samples, N frames, F frequencies, K bands.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.modules import Modules
from sepcli.layers.tfswa import ResidualBlock, computed_again
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel, with_phase

UNITS = 4  # residual units at every level


class Unit(nn.Module):
    """Two convolutions of 3 x 3, each behind batch norm and GELU, and one of 1 x 1 around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.GELU(), nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs), nn.GELU(), nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.shortcut(x)


def level(inputs: int, outputs: int) -> nn.Sequential:
    """The residual units of one level."""
    return nn.Sequential(*(Unit(inputs if i == 0 else outputs, outputs) for i in range(UNITS)))


class TfswaResunet(OfflineSpectralModel):
    """Magnitudes of sources by a residual U-Net; (B, C, T) to (B, S, C, T), not causal.

    44,435,744 parameters with the defaults; the phase is the mixture's. The paper has one such
    network per source. What lies at half the sample rate is left out.

    window, hop: samples of the STFT.  bands: of equal width, which become channels.
    dims: channels after every level of the encoder, and at its end a halving of frames and
    frequencies.  blocks: of attention in the bottleneck.  heads: of these.
    tile: frames and frequencies of windows of attention, every second of which are shifted by half.
    checkpointing: compute these blocks again in the backward pass, which saves memory and changes
    no bit.
    """

    compilable = "magnitudes"  # compilers know no complex numbers

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("vocals",),
        sample_rate: int = 44100,
        channels: int = 2,
        window: int = 2048,
        hop: int = 441,
        bands: int = 4,
        dims: Sequence[int] = (32, 64, 128, 256, 384),
        blocks: int = 4,
        heads: int = 4,
        tile: Sequence[int] = (5, 4),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if (window // 2) % bands:
            raise ValueError(f"{window // 2} frequencies cannot be split into {bands} bands")
        self.sources, self.sample_rate, self.channels = tuple(sources), sample_rate, channels
        self.bands, self.checkpointing = bands, checkpointing
        self.stft = CentredStft(window, hop)
        narrow = channels * bands
        self.encoder = Modules(level(a, b) for a, b in pairwise((narrow, *dims)))
        shift = tuple(size // 2 for size in tile)
        self.middle = nn.Sequential(
            *(
                ResidualBlock(dims[-1], heads, tuple(tile), shift, expansion=2)
                for _ in range(blocks)
            )
        )
        outputs = (*dims[-2::-1], narrow * len(sources))
        above = (dims[-1], *dims[-2::-1])
        self.decoder = Modules(
            level(below + skip, out)
            for below, skip, out in zip(above, dims[::-1], outputs, strict=True)
        )

    def spectra(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, C, F, N) of the sources in the mixture's (B, C, F, N), complex."""
        y = self.magnitudes(spectrum[:, :, :-1].abs()).to(spectrum.real.dtype)
        return with_phase(F.pad(y, (0, 0, 0, 1)), spectrum[:, None])

    def magnitudes(self, x: torch.Tensor) -> torch.Tensor:
        """The magnitudes (B, S, C, F, N) of sources by those of the mixture (B, C, F, N)."""
        C, K = self.channels, self.bands
        y = x.unflatten(2, (K, -1)).flatten(1, 2).transpose(2, 3)  # (B, C*K, N, F/K)
        skips = []
        for units in self.encoder:
            skips.append(units(y))
            y = F.avg_pool2d(skips[-1], 2, ceil_mode=True)
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in self.middle:
            y = computed_again(block, y) if again else block(y)
        for units in self.decoder:
            skip = skips.pop()
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = units(torch.cat([y[..., : skip.shape[2], : skip.shape[3]], skip], 1))
        y = y.transpose(2, 3).unflatten(1, (-1, C, K))  # (B, S, C, K, F/K, N)
        return y.flatten(3, 4).abs()
