"""A causal separator of which the MAX78000 runs the network, and its host the rest.

The chip has dense convolutions, ReLU and saturating sums of 8-bit integers, but no depthwise or
transposed convolution, PReLU, sigmoid or product. So its part, `ChipTcn`, is the temporal
convolutional network of Conv-TasNet made of these; the host's is a transform, the sigmoid, the
masks, and the inverse transform. Without biases, zeros before the first frame stay zeros in every
layer, which is why a window of past frames gives what the stream gives.

B batch, S sources, P parts of a number (2 if complex), F filters or frequencies, N frames.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sepcli.nn.causal import CausalModel
from sepcli.nn.chip import HIGH, INPUT, LOW, ChipLayer, ChipNetwork
from sepcli.nn.filterbank import LearnedDecoder, LearnedEncoder, Stft, perfect_reconstruction_

FLOOR = 1e-6  # power added before it is compressed, which bounds the gradient
KERNELS = {"learned": 32, "stft": 256}  # default samples of a frame


class RoundHalfUp(torch.autograd.Function):
    """Round to the nearest integer, halves upward; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return (x + 0.5).floor()

    @staticmethod
    def backward(ctx, grad):
        return grad


def to_integers(x, exponent, low=LOW):
    """The integers round(x * 2^exponent) from `low` to 127, as floating point."""
    return RoundHalfUp.apply(x * 2.0**exponent).clamp(low, HIGH)


class ChipConv(nn.Module):
    """A valid convolution without bias, and a ReLU if asked for: (B, C, N) to (B, C', N - lost).

    After `quantise` it maps the chip's integers to the chip's integers, bit for bit: sums of less
    than 2^24 are exact in float32. Its weights are rounded as it runs, so that training moves them.
    """

    def __init__(self, inputs, outputs, kernel=1, *, dilation=1, relu=False, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if relu else "linear")
        with torch.no_grad():
            self.weight.mul_(gain)
        self.dilation, self.relu = dilation, relu
        self.exponent = self.shift = None

    def quantise(self, exponent, before, after):
        """Fix the scales: w is stored as w * 2^exponent, input and output likewise."""
        self.exponent, self.shift = exponent, 7 + after - before - exponent
        if not -15 <= self.shift <= 15:
            raise ValueError(f"output shift {self.shift}, but the chip's are -15 to 15")

    def integers(self):
        """The weights as the chip has them, -128 to 127."""
        return to_integers(self.weight, self.exponent)

    def forward(self, x):
        if self.exponent is None:
            y = F.conv1d(x, self.weight, dilation=self.dilation)
            return y.relu() if self.relu else y
        total = F.conv1d(x, self.integers(), dilation=self.dilation)
        return to_integers(total, self.shift - 7, 0 if self.relu else LOW)

    def layer(self, name, *inputs, **crop):
        """The chip's layer."""
        return ChipLayer(
            name,
            "conv",
            inputs,
            weight=self.integers().detach().cpu().numpy().astype(np.int8),
            dilation=self.dilation,
            relu=self.relu,
            output_shift=self.shift,
            **crop,
        )


class ChipBlock(nn.Module):
    """x + point(relu(dilated(x))), saturated; the state is the last 2 * dilation frames of x."""

    def __init__(self, width, hidden, dilation, gain):
        super().__init__()
        self.dilated = ChipConv(width, hidden, 3, dilation=dilation, relu=True)
        self.point = ChipConv(hidden, width, gain=gain)
        self.context = 2 * dilation

    def step(self, x, past):
        history = torch.cat([past, x], -1)  # (B, width, context + N)
        x = x + self.point(self.dilated(history))
        if self.point.exponent is not None:
            x = x.clamp(LOW, HIGH)
        return x, history[..., history.shape[-1] - self.context :]


class ChipTcn(nn.Module):
    """Features (B, inputs, N) to the logits of masks (B, outputs, N): what runs on the chip.

    scales: None for floating point, or {"features", "stream", "hidden" (of each block), "logits",
    "weights" (of each convolution)}: exponents e, by which v is stored as the integer v * 2^e.
    """

    def __init__(self, inputs, outputs, *, width, hidden, dilations, scales=None):
        super().__init__()
        gain = len(dilations) ** -0.5  # so that the residual stream grows little
        self.bottleneck = ChipConv(inputs, width)
        self.blocks = nn.ModuleList(ChipBlock(width, hidden, d, gain) for d in dilations)
        self.mask = ChipConv(width, outputs)
        self.receptive_field = 1 + sum(block.context for block in self.blocks)  # frames
        self.scales = scales
        if scales is not None:
            self._quantise(**scales)

    def convolutions(self):
        """All convolutions, in the order in which they run."""
        pairs = [conv for block in self.blocks for conv in (block.dilated, block.point)]
        return [self.bottleneck, *pairs, self.mask]

    def _quantise(self, *, features, stream, hidden, logits, weights):
        if len(hidden) != len(self.blocks) or len(weights) != 2 * len(hidden) + 2:
            raise ValueError("scales: one of `hidden` per block, and of `weights` per convolution")
        weights = iter(weights)
        self.bottleneck.quantise(next(weights), features, stream)
        for block, inside in zip(self.blocks, hidden, strict=True):
            block.dilated.quantise(next(weights), stream, inside)
            block.point.quantise(next(weights), inside, stream)
        self.mask.quantise(next(weights), stream, logits)

    def initial_state(self, batch=1):
        like = self.bottleneck.weight
        return tuple(like.new_zeros(batch, len(like), block.context) for block in self.blocks)

    def step(self, features, state):
        """Map a chunk of N >= 1 frames to its logits and the next state."""
        if self.scales is not None:
            features = to_integers(features, self.scales["features"], 0)
        logits, state = self.step_stored(features, state)
        return logits if self.scales is None else logits * 2.0 ** -self.scales["logits"], state

    def step_stored(self, features, state):
        """`step` on features and logits as the chip has them, integers if quantised."""
        x, following = self.bottleneck(features), []
        for block, past in zip(self.blocks, state, strict=True):
            x, past = block.step(x, past)
            following.append(past)
        return self.mask(x), tuple(following)

    def network(self):
        """The quantised network as the chip runs it, on windows of past frames."""
        if self.scales is None:
            raise ValueError("the network is not quantised")
        layers, stream = [self.bottleneck.layer("bottleneck", INPUT)], "bottleneck"
        for i, block in enumerate(self.blocks, 1):
            layers += [
                ChipLayer(f"keep{i}", "keep", (stream,), crop=(block.context, 1)),
                block.dilated.layer(f"dilated{i}", stream),
                block.point.layer(f"point{i}", f"dilated{i}", crop=(0, 1)),
                ChipLayer(f"add{i}", "add", (f"keep{i}", f"point{i}")),
            ]
            stream = f"add{i}"
        layers.append(self.mask.layer("mask", stream))
        return ChipNetwork(self.bottleneck.weight.shape[1], tuple(layers))


class LearnedBank(nn.Module):
    """The learned filterbank of Conv-TasNet: filters are rectified, each source has its mask."""

    def __init__(self, filters, kernel, sources):
        super().__init__()
        self.encoder = LearnedEncoder(filters, kernel, kernel // 2)
        self.decoder = LearnedDecoder(filters, kernel, kernel // 2)
        self.overlap, self.sources = self.encoder.overlap, sources
        self.inputs, self.outputs = filters, sources * filters

    def analyse(self, x, past):
        """Turn (B, T) into frames (B, 1, F, N), and the next past."""
        frames, past = self.encoder.step(x, past)
        return frames[:, None], past

    def synthesise(self, frames, tail):
        return self.decoder.step(frames[:, 0], tail)

    def features(self, frames, compression):
        return compressed(frames, compression)

    def masks(self, logits):
        """One mask per source, (B, S, F, N)."""
        return logits.sigmoid().unflatten(1, (self.sources, -1))


class FourierBank(nn.Module):
    """A short-time Fourier transform, whose first source has a mask and the second the rest.

    The frequency 0 says nothing of speech: its feature is the constant 1, which serves the network
    instead of biases. The mask of the highest frequency is that of the one below.
    """

    def __init__(self, kernel, sources):
        super().__init__()
        if sources > 2:
            raise ValueError("stft has one mask: name one source, or it and the rest")
        self.stft = Stft(kernel, kernel // 2)
        self.overlap, self.sources = self.stft.overlap, sources
        self.inputs = self.outputs = kernel // 2

    def analyse(self, x, past):
        """Turn (B, T) into frames (B, 2, F, N), and the next past."""
        spectrum, past = self.stft.analyse(x, past)
        return torch.stack([spectrum.real, spectrum.imag], 1), past

    def synthesise(self, frames, tail):
        return self.stft.synthesise(torch.complex(frames[:, 0], frames[:, 1]), tail)

    def features(self, frames, compression):
        features = compressed(frames[:, :, 1:-1], compression)
        return torch.cat([torch.ones_like(features[:, :1]), features], 1)

    def masks(self, logits):
        """The first source's mask and, if there are two, the rest, (B, S, F, N)."""
        mask = logits.sigmoid()
        mask = torch.cat([mask, mask[:, -1:]], 1)
        return torch.stack([mask, 1 - mask][: self.sources], 1)


def compressed(frames, power):
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
    init: `random`, or `pr` for a filterbank that reconstructs perfectly (filters = 2 * kernel).
    scales: see `ChipTcn`; None for floating point.
    """

    channels = 1

    def __init__(
        self,
        *,
        sources=("speech", "noise"),
        sample_rate=16000,
        transform="learned",
        filters=64,
        kernel=None,
        width=64,
        hidden=64,
        dilations=(1, 2, 4, 8, 16, 32, 64),
        compression=0.3,
        init="random",
        scales=None,
    ):
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
            scales=scales,
        )
        if init == "pr":
            perfect_reconstruction_(self.bank.encoder, self.bank.decoder)

    @property
    def receptive_field(self):
        """Samples of input that one output sample depends on."""
        return (self.tcn.receptive_field - 1) * self.hop + self.kernel

    def network(self):
        """The network as the chip runs it (`sepcli.nn.chip`); only of a quantised model."""
        return self.tcn.network()

    def initial_state(self, batch=1):
        """The state before the first sample."""
        zeros = self.tcn.bottleneck.weight.new_zeros
        tail = zeros(batch * len(self.sources), self.bank.overlap)
        return zeros(batch, self.bank.overlap), self.tcn.initial_state(batch), tail

    def step(self, x, state):
        """Map a chunk (B, 1, k*hop), any k >= 1, to (B, S, 1, k*hop), `delay` samples late."""
        past, network, tail = state
        frames, past = self.bank.analyse(x[:, 0], past)  # (B, P, F, N)
        masks, network = self._masks(frames, network)  # (B, S, F, N)
        masked = (masks[:, :, None] * frames[:, None]).flatten(0, 1)  # (B*S, P, F, N)
        y, tail = self.bank.synthesise(masked, tail)  # (B*S, T)
        return y.unflatten(0, (len(x), -1))[:, :, None], (past, network, tail)

    def core_state(self, batch=1):
        """The state of `core` before the first chunk."""
        if self.front_end == "waveform":
            return self.initial_state(batch)
        return self.tcn.initial_state(batch)

    def core(self, x, state):
        """`step`; between the Fourier transform and its inverse, if that is the transform."""
        if self.front_end == "waveform":
            return self.step(x, state)
        masks, state = self._masks(x, state)
        return x * masks[:, :1], state

    def _masks(self, frames, state):
        logits, state = self.tcn.step(self.bank.features(frames, self.compression), state)
        return self.bank.masks(logits), state
