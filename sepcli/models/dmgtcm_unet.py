"""A convolutional UNet over frequency with double modified gated TCMs over time in its middle.

It maps the complex spectrum of noisy speech to that of the speech: an encoder that halves the
frequency axis at every level, gated temporal convolutions with pairs of dilations (1, 32), (2, 16),
..., and one decoder for the real and one for the imaginary part. The temporal modules follow
Li et al., "Two Heads Are Better Than One" (arXiv 2011.01561) and its successor in TASLP 2021.
B batch, S sources, T samples, C channels, N frames, F frequencies.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.layers.folding import fold
from sepcli.layers.gated_tcm import DoubleGatedTcm, GroupedPReLU, OneFrameTcms
from sepcli.layers.modules import Modules
from sepcli.layers.tcn import doubled
from sepcli.nn.causal import SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State

KERNEL, STRIDE = 4, 2  # of the convolutions along frequency; along time they are 1


def halved(bins: int, levels: int, padding: int) -> list[int]:
    """The number of frequencies before and after each level of the encoder."""
    sizes = [bins]
    for _ in range(levels):
        sizes.append((sizes[-1] + 2 * padding - KERNEL) // STRIDE + 1)
    if levels < 1 or sizes[-1] < 1:
        raise ValueError(f"levels must be at least 1 and leave some of {bins} bins, not {levels}")
    return sizes


class Encoder(nn.Module):
    """Halve the frequencies of (B, 2, N, F) at every level; returns all levels' (B, C, N, F')."""

    def __init__(self, width: int, sizes: Sequence[int], padding: int) -> None:
        super().__init__()
        self.levels = Modules(
            nn.Sequential(
                nn.Conv2d(channels, width, (1, KERNEL), (1, STRIDE), (0, padding)),
                nn.BatchNorm2d(width),
                nn.PReLU(),
            )
            for channels in [2] + [width] * (len(sizes) - 2)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for level in self.levels:
            x = level(x)
            outputs.append(x)
        return outputs


class Decoders(nn.Module):
    """The decoders of the real and the imaginary part, as the two groups of each convolution.

    At every level, from the deepest on: y = deconvolution(y + 1x1 convolution(encoder's output)).
    (B, C, N, F') and the encoder's outputs to (B, 2, N, F).
    """

    def __init__(self, width: int, sizes: Sequence[int], padding: int) -> None:
        super().__init__()
        self.skips, self.levels = Modules(), Modules()
        for level in reversed(range(len(sizes) - 1)):
            missing = sizes[level] - ((sizes[level + 1] - 1) * STRIDE + KERNEL - 2 * padding)
            out = 2 * width if level else 2
            up = nn.ConvTranspose2d(
                2 * width, out, (1, KERNEL), (1, STRIDE), (0, padding), (0, missing), groups=2
            )
            after = (nn.BatchNorm2d(out), GroupedPReLU(2)) if level else ()
            self.skips.append(nn.Conv2d(width, 2 * width, 1))
            self.levels.append(nn.Sequential(up, *after))

    def forward(self, y: torch.Tensor, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        y = torch.cat([y, y], 1)  # (B, 2 C, N, F')
        for skip, level, x in zip(self.skips, self.levels, reversed(encoded), strict=True):
            y = level(y + skip(x))
        return y


class DmgtcmUnet(SpectralModel):
    """Causal complex spectral mapping or masking; (B, 1, T) to (B, S, 1, T).

    The defaults have 1,995,211 parameters, 897 frames (9 s) of receptive field and, at 16 kHz,
    20 ms of algorithmic latency at hops of 10 ms.

    sources: one name, the source that is estimated, or two, it and the rest of the mixture.
    window, hop: samples of the STFT, which has plain Hann windows.
    width, levels: channels of the encoder and of each decoder, and how often they halve the
        frequencies.  padding: of these convolutions along frequency.
    tcm_width, tcm_hidden, tcm_kernel: channels between the temporal modules and inside them, and
        the length of their filters.  blocks, repeats: dilations 1, 2, 4, ... of one group of
        modules, and the number of groups.
    mask: whether the two decoders give a complex mask, near 1 at the start, instead of the
        spectrum itself.  compression: power of the magnitudes that the network reads.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        window: int = 320,
        hop: int = 160,
        width: int = 64,
        levels: int = 5,
        padding: int = 1,
        tcm_width: int = 256,
        tcm_hidden: int = 64,
        tcm_kernel: int = 5,
        blocks: int = 6,
        repeats: int = 2,
        mask: bool = False,
        compression: float = 1.0,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("dmgtcm_unet has one output: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop, window="hann")
        self.hop, self.delay = hop, self.stft.overlap
        self.mask, self.compression = mask, compression

        sizes = halved(window // 2 + 1, levels, padding)
        flat, dilations = width * sizes[-1], doubled(blocks, repeats)
        self.encoder = Encoder(width, sizes, padding)
        self.flatten = nn.Conv1d(flat, tcm_width, 1)
        self.tcms = Modules(
            DoubleGatedTcm(tcm_width, tcm_hidden, tcm_kernel, d, 2 ** (blocks - 1))
            for d in dilations
        )
        self.unflatten = nn.Conv1d(tcm_width, flat, 1)
        self.decoders = Decoders(width, sizes, padding)
        if mask:
            self._start_with_the_mask_one()

    @torch.no_grad()
    def _start_with_the_mask_one(self):
        """From a random mask, a network takes long to find its way back to the mixture."""
        level: Any = self.decoders.levels[-1]
        last = level[0]
        last.weight.mul_(0.01)
        last.bias.copy_(torch.tensor([1.0, 0.0]))

    @property
    def receptive_field(self) -> int:
        """Samples of input that one frame of the output depends on."""
        return sum(tcm.context for tcm in self.tcms) * self.hop + self.stft.kernel

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        return tuple(tcm.initial_state(batch) for tcm in self.tcms)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map the mixture's spectrum (B, 2, F, N) to the first source's, and the next state."""
        encoded = self.encoder(self._compressed(x).transpose(2, 3))
        deepest = encoded[-1].transpose(2, 3)  # (B, C, F', N)
        hidden, following = self.flatten(deepest.flatten(1, 2)), []  # channel-major
        for tcm, past in zip(self.tcms, state, strict=True):
            hidden, past = tcm.step(hidden, past)
            following.append(past)
        y = self.unflatten(hidden).reshape(deepest.shape).transpose(2, 3)  # (B, C, N, F')
        output = self.decoders(y, encoded).transpose(2, 3)  # (B, 2, F, N)
        return _complex_product(output, x) if self.mask else output, tuple(following)

    def exported(self) -> Any:
        return OneFrame(self) if self.tcms[0].context else self

    def _compressed(self, x):
        """A spectrum (B, 2, F, N) with its magnitudes raised to the power `compression`."""
        if self.compression == 1:
            return x
        power = x.square().sum(1, keepdim=True)
        return x * (power + 1e-10) ** ((self.compression - 1) / 2)  # the floor bounds the gradient


class OneFrame(nn.Module):
    """The core of a trained DmgtcmUnet in a form that takes one frame at a time, and that fast."""

    hops = 1
    flatten: nn.Linear
    unflatten: nn.Linear
    encoder: Any
    decoders: Any

    @torch.no_grad()
    def __init__(self, model: DmgtcmUnet) -> None:
        super().__init__()
        self.compressed, self.mask = model._compressed, model.mask
        self.encoder, self.decoders = (
            copy.deepcopy(part).eval() for part in (model.encoder, model.decoders)
        )
        self.encoder.levels = Modules(map(_folded, self.encoder.levels))
        self.decoders.levels = Modules(map(_folded, self.decoders.levels))
        self.tcms = OneFrameTcms(model.tcms)
        self.flatten, self.unflatten = map(_linear, (model.flatten, model.unflatten))
        missing = self.tcms.shift.to(self.unflatten.weight)
        self.unflatten.bias.add_(self.unflatten.weight @ missing)

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        return self.tcms.initial_state(batch)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map the mixture's spectrum (B, 2, F, 1) to the first source's, and the next state."""
        encoded = self.encoder(self.compressed(x).transpose(2, 3))
        deepest = encoded[-1]  # (B, C, 1, F')
        hidden, state = self.tcms(self.flatten(deepest.flatten(1)), state)
        y = self.decoders(self.unflatten(hidden).reshape(deepest.shape), encoded)
        output = y.transpose(2, 3)  # (B, 2, F, 1)
        return _complex_product(output, x) if self.mask else output, state


def _linear(conv):
    """A copy of a 1x1 convolution for inputs (B, C)."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, device="meta")
    linear.weight = nn.Parameter(conv.weight[..., 0].clone())
    linear.bias = nn.Parameter(conv.bias.clone())
    return linear


def _folded(level):
    """A level of the encoder or the decoders without its norm."""
    if len(level) == 1:
        return level
    conv, norm, prelu = level
    if prelu.num_parameters > 1:  # one slope per channel needs no reshaping
        slopes = prelu.weight.repeat_interleave(conv.out_channels // prelu.num_parameters)
        prelu = nn.PReLU(conv.out_channels, device="meta")
        prelu.weight = nn.Parameter(slopes)
    return nn.Sequential(fold(conv, norm), prelu)


def _complex_product(a, b):
    """The product of real and imaginary parts (B, 2, ...)."""
    (ar, ai), (br, bi) = a.unbind(1), b.unbind(1)
    return torch.stack([ar * br - ai * bi, ar * bi + ai * br], 1)
