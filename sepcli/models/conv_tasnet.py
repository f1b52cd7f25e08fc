"""Conv-TasNet: a learned filterbank, a temporal convolutional network, and one mask per source.

Luo & Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
Separation", TASLP 2019. B batch, S sources, T samples, F filters, N frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers import rows
from sepcli.layers.lean_tcn import LeanTcn, as_image, can_be_lean
from sepcli.layers.tcn import Tcn, norm_layer
from sepcli.nn.causal import CausalModel
from sepcli.nn.filterbank import LearnedDecoder, LearnedEncoder, perfect_reconstruction_
from sepcli.nn.model import State


class Separator(nn.Module):
    """Frames (B, F, N) to masks (B, S*F, N): bottleneck, TCN, 1x1 convolution and sigmoid.

    A norm comes before the bottleneck, as in the paper, except with batch norm or none.
    """

    def __init__(
        self, filters: int, sources: int, bottleneck: int, *, norm: str, bias: bool, **tcn: Any
    ) -> None:
        super().__init__()
        self.norm = norm_layer(norm if norm in ("cln", "gln") else "none", filters)
        self.bottleneck = nn.Conv1d(filters, bottleneck, 1, bias=bias)
        self.tcn = Tcn(bottleneck, norm=norm, bias=bias, **tcn)
        width = tcn["skip"] or bottleneck
        activation = nn.PReLU() if tcn["activation"] == "prelu" else nn.ReLU()
        self.mask = nn.Sequential(activation, nn.Conv1d(width, sources * filters, 1, bias=bias))

    def initial_state(self, batch: int = 1) -> State:
        return self.tcn.initial_state(batch)

    def step(self, frames: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        hidden, state = self.tcn.step(self.bottleneck(self.norm(frames)), state)
        return self.mask(hidden).sigmoid(), state

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.mask(self.tcn(self.bottleneck(self.norm(frames)))).sigmoid()

    def rows(self, frames: torch.Tensor) -> torch.Tensor:
        """`forward` of (B, N, F)."""
        hidden = rows.apply(self.bottleneck, rows.apply(self.norm, frames))
        return rows.apply(self.mask, self.tcn.rows(hidden)[0]).sigmoid()


class ConvTasNet(CausalModel):
    """Separate (B, 1, T) into (B, S, 1, T).

    The defaults are the tiny causal network for 16 kHz with batch norm: 250,469 parameters,
    380 ms of receptive field, 2 ms of algorithmic latency.

    sources: names of the outputs.  filters, kernel: learned filters and their length in samples;
        the hop is half of it.  bottleneck, hidden, skip: channels of the residual path, inside a
        block, and of the skip path (0: no skip path).  blocks, repeats: dilations 1, 2, 4, ...
        of one stack, and the number of stacks.
    norm: `bn`, `cln` (per frame) or `gln` (over all frames, not causal).
    norm_first: conv-norm-activation, which folds; the paper's order is conv-activation-norm.
    last_residual: whether the last block has a residual head, whose output nothing uses.
    encoder_relu: whether the encoder's output is rectified.
    depthwise: whether the convolutions over time keep channels apart; dense ones mix them, as those
        of chips do, with 458,752 weights in all instead of 241,024.
    init: `random`, or `pr` for a filterbank that reconstructs perfectly (filters >= 2 * kernel).
    """

    channels = 1

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        filters: int = 64,
        kernel: int = 32,
        bottleneck: int = 64,
        hidden: int = 64,
        skip: int = 64,
        tcn_kernel: int = 3,
        blocks: int = 6,
        repeats: int = 3,
        norm: str = "bn",
        norm_first: bool = False,
        activation: str = "prelu",
        causal: bool = True,
        bias: bool = True,
        last_residual: bool = True,
        encoder_relu: bool = True,
        depthwise: bool = True,
        init: str = "random",
    ) -> None:
        super().__init__()
        if causal and norm == "gln":
            raise ValueError("gln averages over the future: use bn or cln in a causal model")
        if init not in ("random", "pr"):
            raise ValueError(f"unknown init {init!r}; choose random or pr")
        self.sources, self.sample_rate, self.causal = tuple(sources), sample_rate, causal
        self.hop = kernel // 2
        self.encoder = LearnedEncoder(filters, kernel, self.hop, activation=encoder_relu)
        self.separator = Separator(
            filters,
            len(self.sources),
            bottleneck,
            hidden=hidden,
            skip=skip,
            kernel=tcn_kernel,
            blocks=blocks,
            repeats=repeats,
            norm=norm,
            norm_first=norm_first,
            activation=activation,
            causal=causal,
            bias=bias,
            last_residual=last_residual,
            depthwise=depthwise,
        )
        self.decoder = LearnedDecoder(filters, kernel, self.hop)
        self.delay = self.encoder.overlap
        if init == "pr":
            perfect_reconstruction_(self.encoder, self.decoder)

    @property
    def receptive_field(self) -> int:
        """Samples of input that one output sample depends on."""
        return (self.separator.tcn.receptive_field - 1) * self.hop + self.encoder.kernel

    def initial_state(self, batch: int = 1) -> State:
        """The state before the first sample; only a causal model has one."""
        if not self.causal:
            raise ValueError("this model is not causal: it needs the whole signal")
        tail = self.encoder.initial_state(batch, self.encoder.conv.weight)
        return (
            tail,
            self.separator.initial_state(batch),
            tail.repeat_interleave(len(self.sources), 0),
        )

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, 1, k*hop), any k >= 1, to (B, S, 1, k*hop), `delay` samples late."""
        past, separator, tail = state
        frames, past = self.encoder.step(x[:, 0], past)  # (B, F, N)
        masks, separator = self.separator.step(frames, separator)
        y, tail = self.decode(frames, masks, tail)
        return y, (past, separator, tail)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self._by_rows(x[:, 0])
        if self.causal:
            return super().run(x)
        frames, past = self.encoder.step(x[:, 0], self.encoder.initial_state(x.shape[0], x))
        return self.decode(
            frames,
            self.separator(frames),
            past.new_zeros(len(x) * len(self.sources), self.decoder.overlap),
        )[0]

    def exported(self) -> Any:
        return Lean(self) if can_be_lean(self.separator.tcn) else self

    def _by_rows(self, x):
        """`run` of (B, T), as is fastest in training."""
        frames = self.encoder.rows(F.pad(x, (self.delay, 0)))  # (B, N, F)
        masks = self.separator.rows(frames).unflatten(-1, (len(self.sources), -1))
        y = self.decoder.rows(masks * frames[:, :, None])  # (B, T + delay, S)
        return y[:, : x.shape[-1]].transpose(1, 2)[:, :, None]

    def decode(
        self, frames: torch.Tensor, masks: torch.Tensor, tail: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sources (B, S, 1, T) of masks (B, S*F, N) of frames (B, F, N), and the next tail."""
        (B, F, N), S = frames.shape, len(self.sources)
        masked = masks.reshape(B, S, F, N) * frames[:, None]  # (B, S, F, N)
        y, tail = self.decoder.step(masked.reshape(B * S, F, N), tail)  # (B*S, T)
        return y.reshape(B, S, 1, -1), tail  # (B, S, 1, T)


class Lean(nn.Module):
    """A trained causal ConvTasNet whose separator is of a `LeanTcn`, for a graph."""

    hops = None

    def __init__(self, model: ConvTasNet) -> None:
        super().__init__()
        self.model, separator = model, model.separator
        self.bottleneck, self.tcn = as_image(separator.bottleneck), LeanTcn(separator.tcn)
        self.mask = nn.Sequential(*map(as_image, separator.mask))

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first sample."""
        past, _, tail = self.model.initial_state(batch)
        return past, self.tcn.initial_state(batch), tail

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """`ConvTasNet.step`, with other states."""
        past, separator, tail = state
        frames, past = self.model.encoder.step(x[:, 0], past)  # (B, F, N)
        hidden, separator = self.tcn.step(self.bottleneck(frames[:, :, None]), separator)
        masks = self.mask(hidden).sigmoid()[:, :, 0]
        y, tail = self.model.decode(frames, masks, tail)
        return y, (past, separator, tail)
