"""A causal separator of which the MAX78000 runs the network, and its host the rest.

The chip has dense convolutions, ReLU and saturating sums of 8-bit integers, but no depthwise or
transposed convolution, PReLU, sigmoid or product. So its part, `ChipTcn`, is the temporal
convolutional network of Conv-TasNet made of these; the host's is a transform, the sigmoid, the
masks, and the inverse transform. Without biases, zeros before the first frame stay zeros in every
layer, which is why a window of past frames gives what the stream gives.

B batch, S sources, P parts of a number (2 if complex), F filters or frequencies, N frames.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.modules import Modules
from sepcli.nn.causal import CausalModel
from sepcli.nn.filterbank import LearnedDecoder, LearnedEncoder, Stft, perfect_reconstruction_
from sepcli.nn.model import State
from sepcli.quant.chip import HIGH, INPUT, LOW, ChipLayer, ChipNetwork
from sepcli.quant.grids import TensorRange

FLOOR = 1e-6  # power added before it is compressed, which bounds the gradient
KERNELS = {"learned": 32, "stft": 256}  # default samples of a frame


class RoundHalfUp(torch.autograd.Function):
    """Round to the nearest integer, halves upward; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (x + 0.5).floor()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class ChipGrid(TensorRange):
    """Tensors that the chip stores as integers v * 2^exponent from -128 to 127.

    A grid gives what is left of a tensor: everything in the phase "observe", and the integers'
    values v in the others. Powers of two are exact in floating point, as are sums of products of
    less than 2^24, so what float32 computes of such values are the chip's sums, bit for bit.
    """

    @property
    def exponent(self) -> torch.Tensor:
        """That of the power of two nearest to where 127 is the largest value of the range."""
        peak = torch.maximum(-self.low, self.high).clamp(min=2.0**-20)
        return (HIGH / peak).log2().round()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.watch(x)
        return self.stored(x)

    def stored(self, x: torch.Tensor) -> torch.Tensor:
        """What is left of `x`, which does not move the range."""
        if self.phase == "observe":
            return x
        unit = 2.0**-self.exponent
        return RoundHalfUp.apply(x / unit).clamp(LOW, HIGH) * unit


class Unrounded(nn.Identity):
    """The grid of floating point: everything is left."""

    def stored(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def watch(self, x: torch.Tensor) -> None:
        """Nothing to move."""


class ChipConv(nn.Module):
    """A valid convolution without bias, and a ReLU if asked for: (B, C, N) to (B, C', N - lost).

    Its weights are put on their grid as it runs, so that training moves what was rounded.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        dilation: int = 1,
        relu: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if relu else "linear")
        with torch.no_grad():
            self.weight.mul_(gain)
        self.dilation, self.relu, self.grid = dilation, relu, Unrounded()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv1d(x, self.grid(self.weight), dilation=self.dilation)
        return y.relu() if self.relu else y

    @torch.no_grad()
    def layer(
        self, name: str, before: Any, after: Any, *, inputs: tuple[str, ...], **crop: Any
    ) -> ChipLayer:
        """The chip's layer, between the grids of its input and its output."""
        grid: Any = self.grid  # of a quantised network
        own = grid.exponent
        shift = 7 + int(after.exponent - before.exponent - own)
        if not -15 <= shift <= 15:
            raise ValueError(f"{name}: output shift {shift}, but those of the chip are -15 to 15")
        return ChipLayer(
            name,
            "conv",
            inputs,
            weight=(grid.stored(self.weight) * 2.0**own).cpu().numpy().astype(np.int8),
            dilation=self.dilation,
            relu=self.relu,
            output_shift=shift,
            **crop,
        )


class ChipBlock(nn.Module):
    """What a block adds to the stream x: point(relu(dilated(x))) without its first frames."""

    def __init__(self, width: int, hidden: int, dilation: int, gain: float) -> None:
        super().__init__()
        self.dilated = ChipConv(width, hidden, 3, dilation=dilation, relu=True)
        self.point = ChipConv(hidden, width, gain=gain)
        self.grid = Unrounded()  # of what is between the two
        self.context = 2 * dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point(self.grid(self.dilated(x)))


class ChipTcn(nn.Module):
    """Features (B, inputs, N) to the logits of masks (B, outputs, N): what runs on the chip.

    The state is what each block has to remember, the last 2 * dilation frames of the stream.
    After `quantise` it computes with the chip's integers, by `ChipGrid`s: one for the whole
    residual stream.
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int, hidden: int, dilations: Sequence[int]
    ) -> None:
        super().__init__()
        gain = len(dilations) ** -0.5  # so that the residual stream grows little
        self.bottleneck = ChipConv(inputs, width)
        self.blocks = Modules(ChipBlock(width, hidden, d, gain) for d in dilations)
        self.mask = ChipConv(width, outputs)
        self.features, self.stream, self.logits = Unrounded(), Unrounded(), Unrounded()
        self.receptive_field = 1 + sum(block.context for block in self.blocks)  # frames
        self.quantised = False

    def quantise(self) -> None:
        """Compute with the chip's integers from now on; their ranges are yet to be found."""
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, Unrounded):
                    setattr(module, name, ChipGrid().to(self.mask.weight.device))
        self.quantised = True

    def initial_state(self, batch: int = 1) -> State:
        """Zeros before the first frame."""
        like = self.bottleneck.weight
        return tuple(like.new_zeros(batch, len(like), block.context) for block in self.blocks)

    def step(self, features: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk of N >= 1 frames to its logits and the next state."""
        x = self.bottleneck(self.features(features))
        heard, following = [x], []
        x = self.stream.stored(x)
        for block, past in zip(self.blocks, state, strict=True):
            history = torch.cat([past, x], -1)  # (B, width, context + N)
            following.append(history[..., history.shape[-1] - block.context :])
            x = x + self.stream.stored(block(history))
            heard.append(x)
            x = self.stream.stored(x)
        self.stream.watch(torch.stack(heard).detach())
        return self.logits(self.mask(x)), tuple(following)

    def network(self) -> ChipNetwork:
        """The quantised network as the chip runs it, on windows of past frames."""
        if not self.quantised:
            raise ValueError("the network is not quantised")
        stream = "bottleneck"
        layers = [self.bottleneck.layer(stream, self.features, self.stream, inputs=(INPUT,))]
        for i, block in enumerate(self.blocks, 1):
            keep, dilated, point, total = (f"{x}{i}" for x in ("keep", "dilated", "point", "add"))
            layers += [
                ChipLayer(keep, "keep", (stream,), crop=(block.context, 1)),
                block.dilated.layer(dilated, self.stream, block.grid, inputs=(stream,)),
                block.point.layer(point, block.grid, self.stream, inputs=(dilated,), crop=(0, 1)),
                ChipLayer(total, "add", (keep, point)),
            ]
            stream = total
        layers.append(self.mask.layer("mask", self.stream, self.logits, inputs=(stream,)))
        return ChipNetwork(self.bottleneck.weight.shape[1], tuple(layers))


class LearnedBank(nn.Module):
    """The learned filterbank of Conv-TasNet: filters are rectified, each source has its mask."""

    def __init__(self, filters: int, kernel: int, sources: int) -> None:
        super().__init__()
        self.encoder = LearnedEncoder(filters, kernel, kernel // 2)
        self.decoder = LearnedDecoder(filters, kernel, kernel // 2)
        self.overlap, self.sources = self.encoder.overlap, sources
        self.inputs, self.outputs = filters, sources * filters

    def analyse(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn (B, T) into frames (B, 1, F, N), and the next past."""
        frames, past = self.encoder.step(x, past)
        return frames[:, None], past

    def synthesise(
        self, frames: torch.Tensor, tail: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.decoder.step(frames[:, 0], tail)

    def features(self, frames: torch.Tensor, compression: float) -> torch.Tensor:
        return compressed(frames, compression)

    def masks(self, logits: torch.Tensor) -> torch.Tensor:
        """One mask per source, (B, S, F, N)."""
        return logits.sigmoid().unflatten(1, (self.sources, -1))


class FourierBank(nn.Module):
    """A short-time Fourier transform, whose first source has a mask and the second the rest.

    The frequency 0 says nothing of speech: its feature is the constant 1, which serves the network
    instead of biases. The mask of the highest frequency is that of the one below.
    """

    def __init__(self, kernel: int, sources: int) -> None:
        super().__init__()
        if sources > 2:
            raise ValueError("stft has one mask: name one source, or it and the rest")
        self.stft = Stft(kernel, kernel // 2)
        self.overlap, self.sources = self.stft.overlap, sources
        self.inputs = self.outputs = kernel // 2

    def analyse(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn (B, T) into frames (B, 2, F, N), and the next past."""
        spectrum, past = self.stft.analyse(x, past)
        return torch.stack([spectrum.real, spectrum.imag], 1), past

    def synthesise(
        self, frames: torch.Tensor, tail: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.stft.synthesise(torch.complex(frames[:, 0], frames[:, 1]), tail)

    def features(self, frames: torch.Tensor, compression: float) -> torch.Tensor:
        features = compressed(frames[:, :, 1:-1], compression)
        return torch.cat([torch.ones_like(features[:, :1]), features], 1)

    def masks(self, logits: torch.Tensor) -> torch.Tensor:
        """The first source's mask and, if there are two, the rest, (B, S, F, N)."""
        mask = logits.sigmoid()
        mask = torch.cat([mask, mask[:, -1:]], 1)
        return torch.stack([mask, 1 - mask][: self.sources], 1)


def compressed(frames: torch.Tensor, power: float) -> torch.Tensor:
    """Magnitudes (B, F, N) of frames (B, P, F, N) to the power `power`; 0 for silence."""
    return (frames.square().sum(1) + FLOOR) ** (power / 2) - FLOOR ** (power / 2)


class TcnMax78000(CausalModel):
    """Separate (B, 1, T) into (B, S, 1, T), with a network for the MAX78000.

    The defaults are the TasNet's filterbank and 126,976 weights on the chip, with 256 ms of
    receptive field and 2 ms of algorithmic latency at 16 kHz; `stft` makes that 2 s and 16 ms.

    sources: names of the outputs; two at most for `stft`, of which the second is the rest.
    transform: `learned`, `filters` filters and one mask per source; or `stft`, kernel / 2
        frequencies. kernel: samples of a frame, 32 or 256 if None; the hop is half of it.
    width, hidden: channels of the residual stream and inside a block. dilations: of the blocks.
    compression: power of the magnitudes that the network reads.
    init: `random`, or `pr` for a filterbank that reconstructs perfectly (filters >= 2 * kernel).
    """

    channels = 1
    chip = "max78000"

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        transform: str = "learned",
        filters: int = 64,
        kernel: int | None = None,
        width: int = 64,
        hidden: int = 64,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
        compression: float = 0.3,
        init: str = "random",
    ) -> None:
        super().__init__()
        if transform not in KERNELS:
            raise ValueError(f"unknown transform {transform!r}; choose from {', '.join(KERNELS)}")
        if init not in ("random", "pr") or (init, transform) == ("pr", "stft"):
            raise ValueError(f"unknown init {init!r}; choose random, or pr if learned")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        kernel = kernel or KERNELS[transform]
        self.hop, self.kernel, self.compression = kernel // 2, kernel, compression
        if transform == "stft":
            self.front_end, self.bank = "stft", FourierBank(kernel, len(sources))
            self.stft = self.bank.stft
        else:
            self.bank = LearnedBank(filters, kernel, len(sources))
        self.delay = self.bank.overlap
        self.tcn = ChipTcn(
            self.bank.inputs,
            self.bank.outputs,
            width=width,
            hidden=hidden,
            dilations=dilations,
        )
        if init == "pr" and isinstance(self.bank, LearnedBank):
            perfect_reconstruction_(self.bank.encoder, self.bank.decoder)

    @property
    def receptive_field(self) -> int:
        """Samples of input that one output sample depends on."""
        return (self.tcn.receptive_field - 1) * self.hop + self.kernel

    @property
    def quantised(self) -> bool:
        """Whether the network computes with the chip's integers."""
        return self.tcn.quantised

    def quantise(self) -> None:
        """Let it do so from now on; the ranges of tensors are yet to be found."""
        self.tcn.quantise()

    def network(self) -> ChipNetwork:
        """The network as the chip runs it (`sepcli.quant.chip`); only of a quantised model."""
        return self.tcn.network()

    def initial_state(self, batch: int = 1) -> State:
        """The state before the first sample."""
        zeros = self.tcn.bottleneck.weight.new_zeros
        tail = zeros(batch * len(self.sources), self.bank.overlap)
        return zeros(batch, self.bank.overlap), self.tcn.initial_state(batch), tail

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, 1, k*hop), any k >= 1, to (B, S, 1, k*hop), `delay` samples late."""
        past, network, tail = state
        frames, past = self.bank.analyse(x[:, 0], past)  # (B, P, F, N)
        masks, network = self._masks(frames, network)  # (B, S, F, N)
        y, tail = self.masked(frames, masks, tail)
        return y, (past, network, tail)

    def masked(
        self, frames: torch.Tensor, masks: torch.Tensor, tail: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sources (B, S, 1, N * hop) of frames (B, P, F, N) and masks (B, S, F, N)."""
        frames = (masks[:, :, None] * frames[:, None]).flatten(0, 1)  # (B*S, P, F, N)
        y, tail = self.bank.synthesise(frames, tail)  # (B*S, T)
        return y.unflatten(0, (-1, masks.shape[1]))[:, :, None], tail

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first chunk."""
        if self.front_end == "waveform":
            return self.initial_state(batch)
        return self.tcn.initial_state(batch)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """`step`; between the Fourier transform and its inverse, if that is the transform."""
        if self.front_end == "waveform":
            return self.step(x, state)
        masks, state = self._masks(x, state)
        return x * masks[:, :1], state

    def _masks(self, frames, state):
        logits, state = self.tcn.step(self.bank.features(frames, self.compression), state)
        return self.bank.masks(logits), state
