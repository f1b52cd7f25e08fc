"""Conv-TasNet's separator between a Fourier transform and its inverse, for speech enhancement.

The learned filterbank of Conv-TasNet turns 1 s of 16 kHz audio into 1,000 frames; a short-time
Fourier transform with an 8 ms hop into 125, so the same separator costs an eighth and sees eight
times the context. The network reads the magnitudes, compressed by the power 0.3, and returns one
mask per source in [0, 1]; the phase is the mixture's. Or it reads the compressed complex spectrum,
too, and adds a complex mask in [-1, 1]^2, which changes the phase.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.layers.tcn import Tcn
from sepcli.nn.causal import SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State


class SpectralTasNet(SpectralModel):
    """Causal masking of an STFT by a temporal convolutional network; (B, 1, T) to (B, S, 1, T).

    The defaults have 458,330 parameters, 2 s of receptive field and, at 16 kHz, 24 ms of
    algorithmic latency.

    sources: one name, the source that the mask estimates, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.  width, hidden: channels of the residual path and inside a
    block.  blocks, repeats: dilations 1, 2, 4, ... of one stack, and the number of stacks.
    norm: `bn` or `cln`.  compression: power of the magnitudes that the network reads.
    dense: blocks of `nn.tcn.DenseBlock`, whose norm is `bn`.  mask: `real` or `complex`.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        window: int = 384,
        hop: int = 128,
        width: int = 128,
        hidden: int = 128,
        kernel: int = 3,
        blocks: int = 6,
        repeats: int = 2,
        norm: str = "bn",
        compression: float = 0.3,
        dense: bool = False,
        mask: str = "real",
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("spectral_tasnet has one mask: name one source, or it and the rest")
        if mask not in ("real", "complex"):
            raise ValueError(f"unknown mask {mask!r}; choose from real, complex")
        if dense and norm != "bn":
            raise ValueError(f"dense blocks have the norm bn, not {norm!r}")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        self.compression = compression
        self.mask, self.bins = mask, window // 2 + 1
        planes = {"real": 1, "complex": 3}[mask] * self.bins
        self.input = nn.Conv1d(planes, width, 1)
        norms: dict[str, Any] = {} if dense else {"norm": norm}
        self.tcn = Tcn(
            width,
            hidden,
            skip=0,
            kernel=kernel,
            blocks=blocks,
            repeats=repeats,
            dense=dense,
            **norms,
        )
        self.output = nn.Sequential(nn.PReLU(), nn.Conv1d(width, planes, 1))

    @property
    def receptive_field(self) -> int:
        """Samples of input that one output sample depends on."""
        return (self.tcn.receptive_field - 1) * self.hop + self.stft.kernel

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        return self.tcn.initial_state(batch)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Mask the mixture's spectrum (B, 2, F, N); the next state."""
        power = x.square().sum(1) + 1e-10  # (B, F, N); the floor bounds the gradient
        features = power ** (self.compression / 2)
        if self.mask == "complex":
            parts = x * (power ** ((self.compression - 1) / 2))[:, None]  # (B, 2, F, N)
            features = torch.cat([features, parts.flatten(1, 2)], 1)  # (B, 3F, N)
        hidden, state = self.tcn.step(self.input(features), state)
        masks = self.output(hidden).unflatten(1, (-1, self.bins))  # (B, 1 or 3, F, N)
        estimate = x * masks[:, :1].sigmoid()
        if self.mask == "complex":
            estimate = estimate + _complex_product(x, masks[:, 1:].tanh())
        return estimate, state


def _complex_product(a, b):
    """The product of complex numbers whose parts are in dimension 1: (B, 2, F, N)."""
    real = a[:, 0] * b[:, 0] - a[:, 1] * b[:, 1]
    imag = a[:, 0] * b[:, 1] + a[:, 1] * b[:, 0]
    return torch.stack([real, imag], 1)
