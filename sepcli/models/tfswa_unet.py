"""TFSWA-UNet: a U-Net of attention over time, over frequency and in shifted windows, not causal.

Its blocks are after Yao et al., "TFSWA-ResUNet", EURASIP Journal on Audio, Speech, and Music
Processing 2025:39, which has them in the bottleneck alone: see `tfswa_resunet`.
B batch, S sources, C channels, T samples, N frames, F frequencies, D features.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.modules import Modules
from sepcli.layers.tfswa import Block, ResidualBlock, computed_again
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel

BLOCKS: dict[str, Any] = {"parallel": Block, "residual": ResidualBlock}
QUIET = 1e-5  # added to the RMS of a frequency


def normalised(conv: nn.Module, features: int) -> nn.Sequential:
    """A convolution with batch norm and GELU."""
    return nn.Sequential(conv, nn.BatchNorm2d(features), nn.GELU())


class TfswaUnet(OfflineSpectralModel):
    """Masks of spectra by a U-Net of attention; (B, C, T) to (B, S, C, T), not causal.

    15,404,834 parameters with the defaults. Channels do not know of each other. The network reads
    real and imaginary parts, of which every frequency is divided by its RMS over time, and has one
    real mask between 0 and 1 per source: the phase is the mixture's. Attention knows no order, so
    fixed sines tell the first level which frequency is which. The highest frequency, half the
    sample rate, gets the mask of the one below.

    window, hop: samples of the STFT.
    dims: features at every level; frames and frequencies are halved from one to the next.
    depths: blocks at every level, of the encoder and of the decoder; the last is the bottleneck.
    heads: of attention.  tile, shift: frames and frequencies of windows of attention, and how far
    those of every second block are shifted.  expansion: of the layers behind attention.
    block: `parallel`, or `residual`, the module of the TFSWA-ResUNet.
    position: whether attention in windows has a bias for relative positions.
    patch: frames and frequencies that are one place of the first level; more make the network
    faster.  multiscale: the encoder reads the spectrum at every level's resolution, too, and every
    level of the decoder adds to the mask.
    output: `mask`, or `spectrum`, where real and imaginary parts of what is to be added to the
    mixture's spectrum are estimated, as for reconstruction.
    checkpointing: compute blocks again in the backward pass, which saves memory and changes no
    bit.
    """

    compilable = "outputs"  # compilers know no complex numbers
    segment_s = 6.0  # 10 take 2.2 GB in the full form
    resolution: int = 1

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("vocals", "accompaniment"),
        sample_rate: int = 44100,
        channels: int = 2,
        window: int = 4096,
        hop: int = 1024,
        dims: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: int = 8,
        tile: int = 8,
        shift: int = 4,
        expansion: int = 4,
        block: str = "parallel",
        position: bool = False,
        patch: Sequence[int] = (1, 1),
        multiscale: bool = False,
        output: str = "mask",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths) or min(depths) < 1:
            raise ValueError(
                f"dims {dims} and depths {depths} need one number each for every level"
            )
        if block not in BLOCKS:
            raise ValueError(f"unknown block {block!r}; choose from {', '.join(BLOCKS)}")
        if output not in ("mask", "spectrum"):
            raise ValueError(f"unknown output {output!r}; choose from mask, spectrum")
        if len(patch) != 2 or min(patch) < 1:
            raise ValueError(f"patch must be like (1, 1), frames and frequencies, not {patch}")
        self.sources, self.sample_rate, self.channels = tuple(sources), sample_rate, channels
        self.output, self.patch, self.multiscale = output, (patch[0], patch[1]), multiscale
        self.checkpointing = checkpointing
        self.stft = CentredStft(window, hop)
        wide, (p, q) = dims[0], self.patch
        stem = nn.Conv2d(2, wide, (7 + p - 1, 7 + q - 1), stride=(p, q), padding=3)
        self.stem = normalised(stem, wide)

        def level(features, depth):
            options = {"position": position, "expansion": expansion}
            return Modules(
                BLOCKS[block](features, heads, (tile, tile), (shift * (i % 2),) * 2, **options)
                for i in range(depth)
            )

        self.encoder = Modules(map(level, dims, depths))  # the last is the bottleneck
        self.decoder = Modules(map(level, dims[-2::-1], depths[-2::-1]))
        self.down = Modules(
            normalised(nn.Conv2d(a, b, 4, stride=2, padding=1), b) for a, b in pairwise(dims)
        )
        self.up = Modules(
            normalised(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), b)
            for a, b in pairwise(dims[::-1])
        )
        outputs = len(sources) * (2 if output == "spectrum" else 1)
        self.head = normalised(nn.Conv2d(wide, wide, 3, padding=1), wide)
        last = nn.Conv2d(wide, outputs, 1) if self.patch == (1, 1) else None
        last = last or nn.ConvTranspose2d(wide, outputs, self.patch, stride=self.patch)
        self.last = nn.ModuleDict({output: last})  # so that one kind is not taken for the other
        self.reads = Modules(nn.Conv2d(2, d, 1) for d in dims[1:] if multiscale)
        self.adds = Modules(nn.Conv2d(d, wide, 1) for d in dims[:0:-1] if multiscale)

    def spectra(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectra (B, S, C, F, N) of the sources in the mixture's (B, C, F, N), complex."""
        x = spectrum[:, :, :-1].transpose(2, 3).flatten(0, 1)  # (B*C, N, F-1)
        x = torch.view_as_real(x).movedim(-1, 1)  # (B*C, 2, N, F-1)
        level = x.square().sum(1, keepdim=True).mean(2, keepdim=True).sqrt() + QUIET
        whole = self.training or torch.compiler.is_exporting()
        parts = [x / level] if whole else (x / level).split(1)  # one at a time takes less
        y = torch.cat([self.outputs(part) for part in parts]).to(x.dtype)
        if self.output == "mask":
            y = y.transpose(2, 3).unflatten(0, spectrum.shape[:2]).transpose(1, 2)
            y = torch.cat([y, y[..., -1:, :]], -2)  # (B, S, C, F, N)
            return torch.view_as_complex(torch.view_as_real(spectrum)[:, None] * y[..., None])
        y = x[:, None] + y.unflatten(1, (-1, 2)) * level[:, None]  # (B*C, S, 2, N, F-1)
        y = torch.view_as_complex(y.movedim(2, -1).contiguous()).transpose(2, 3)
        return F.pad(y, (0, 0, 0, 1)).unflatten(0, spectrum.shape[:2]).transpose(1, 2)

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Masks (B, S, N, F), or spectra (B, 2*S, N, F), for spectra (B, 2, N, F), scaled."""
        y = self.features(x)
        y = self.last[self.output](y)[..., : x.shape[2], : x.shape[3]]
        return y.sigmoid() if self.output == "mask" else y

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What is known of every place (B, D, N', F') of spectra (B, 2, N, F)."""
        x = _even(x, self.patch)
        y = self.stem(x.contiguous(memory_format=torch.channels_last))
        y = y + codes(y.shape[3], y.shape[1], y)[:, None]
        x, size = F.avg_pool2d(x, self.patch), y.shape[2:]
        if self.resolution > 1:  # of training, at first
            x, y = (F.avg_pool2d(each, self.resolution, ceil_mode=True) for each in (x, y))
        skips = []
        for i, blocks in enumerate(self.encoder):
            if i:
                skips.append(y)
                y = self.down[i - 1](_even(y, (2, 2)))
                if self.multiscale:
                    x = F.avg_pool2d(_even(x, (2, 2)), 2)
                    y = y + self.reads[i - 1](x)
            for block in blocks:
                y = self._run(block, y)
        added = []
        for i, blocks in enumerate(self.decoder):
            if self.multiscale:
                added.append(_enlarged(self.adds[i](y), size))
            skip = skips.pop()
            y = self.up[i](y)[..., : skip.shape[2], : skip.shape[3]]
            y = self._run(blocks[0], y) + skip
            for block in blocks[1:]:
                y = self._run(block, y)
        y = self.head(_enlarged(y, size) if self.resolution > 1 else y)
        return y + sum(added) if added else y

    def _run(self, block, y):
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        return computed_again(block, y) if again else block(y)


def codes(frequencies: int, features: int, like: torch.Tensor) -> torch.Tensor:
    """What says which frequency it is, (D, F): sines and cosines, of one octave after the other."""
    place = (torch.arange(frequencies, device=like.device, dtype=like.dtype) + 0.5) / frequencies
    octaves = 2.0 ** torch.arange((features + 1) // 2, device=like.device, dtype=like.dtype)
    angle = torch.pi / 2 * place * octaves.clamp(max=frequencies)[:, None]  # (D/2, F)
    return torch.cat([angle.sin(), angle.cos()])[:features]


def _even(x, multiples):
    """(B, D, N, F) with zeros behind it, to whole multiples."""
    N, F_ = (-size % m for size, m in zip(x.shape[2:], multiples, strict=True))
    return F.pad(x, (0, F_, 0, N)) if N or F_ else x


def _enlarged(x, size):
    """(B, D, N, F) at a size (N', F'), every place repeated as often as needed."""
    scale = [-(-new // old) for new, old in zip(size, x.shape[2:], strict=True)]
    y = x.repeat_interleave(scale[0], 2).repeat_interleave(scale[1], 3)
    return y[..., : size[0], : size[1]]
