"""A gain per band from a U-Net with next to no parameters, UL-UNAS; and with `band_lstm` beside it.

Rong et al., "UL-UNAS: Ultra-Lightweight U-Nets for Real-Time Speech Enhancement via Network
Architecture Search", TASLP 2026, with batch norms folded into the convolutions. It hears levels:
soft speech is not what it expects. `unas_lstm` weighs its gains and those of a `band_lstm`, which
err differently, bin by bin: both are real gains of one spectrum, so that the mean of the gains is
that of the estimates. The running level of the second makes the first deaf to the level, too.

B batch, C channels, N frames, F frequencies, K bands.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sepcli.layers.modules import Modules
from sepcli.layers.ul_unas import (
    Block,
    DualPath,
    OneFrameBlock,
    OneFrameDualPath,
    Shape,
    erb_bands,
)
from sepcli.models.band_lstm import COMPRESSION, BandLstmNet
from sepcli.nn.causal import OneFrameCore, SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State

FLOOR = 1e-24  # of powers
ENCODER = (
    ("plain", 12, 3, 3, 2),
    ("bottleneck", 24, 2, 3, 2),
    ("separable", 24, 2, 3, 1),
    ("bottleneck", 32, 1, 5, 1),
    ("separable", 16, 1, 5, 1),
)


class UlUnas(SpectralModel):
    """Causal enhancement of speech by a gain per band of the STFT; (B, 1, T) to (B, S, 1, T).

    The defaults have 145,790 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.
    bins: from 0 Hz on that are bands of their own.  bands: of the bins above, evenly in ERB rate.
    encoder: blocks (kind, channels, frames, bands, stride), see `layers.ul_unas`; the decoder
        mirrors them.
    repeats: GRUs over bands and time between encoder and decoder.
    """

    erb: torch.Tensor

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        window: int = 512,
        hop: int = 256,
        bins: int = 65,
        bands: int = 64,
        encoder: Sequence[tuple[str, int, int, int, int]] = ENCODER,
        repeats: int = 2,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("ul_unas has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        self.bins = bins
        self.register_buffer(
            "erb", erb_bands(window // 2 + 1, bins, bands, sample_rate), persistent=False
        )
        shapes = [Shape(*block).checked() for block in encoder]
        widths = [1, *(shape.channels for shape in shapes)]
        sizes = [bins + bands]
        for shape in shapes:
            if shape.stride == 2 and sizes[-1] % 2 == 0:
                raise ValueError(f"a stride of 2 needs an odd number of bands, not {sizes[-1]}")
            sizes.append((sizes[-1] + 1) // 2 if shape.stride == 2 else sizes[-1])
        self.encoder = Modules(map(Block, widths, sizes, shapes))
        self.middle = Modules(DualPath(widths[-1], sizes[-1]) for _ in range(repeats))
        self.decoder = Modules(
            Block(
                widths[i + 1], sizes[i + 1], shapes[i]._replace(channels=widths[i]),
                up=True, last=i == 0,
            )
            for i in reversed(range(len(shapes)))
        )  # fmt: skip

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        parts = (self.encoder, self.middle, self.decoder)
        return tuple(tuple(m.initial_state(batch) for m in part) for part in parts)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, N) by the gains; the next state."""
        gains, state = self.gains(x, state)
        return x * gains[:, None], state

    def gains(
        self, x: torch.Tensor, state: Any, level: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, State]:
        """Gains (B, F, N) for the spectrum (B, 2, F, N), and the next state.

        level: decades (B, N, 1) by which the network hears all of it softer than it is.
        """
        power = x.square().sum(1).transpose(1, 2)  # (B, N, F)
        logits, state = self.listen(power.clamp(min=FLOOR).log10() / 2 - level, state)
        return self.widened(logits.sigmoid()).transpose(1, 2), state

    def listen(self, levels: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Logits of the gains (B, N, K) for logarithms of the magnitudes (B, N, F)."""
        x, skips, after = self.narrowed(levels)[:, None], [], ([], [], [])
        for block, past in zip(self.encoder, state[0], strict=True):
            x, past = block.step(x, past)
            skips.append(x)
            after[0].append(past)
        x = x.permute(0, 2, 3, 1)  # (B, N, K, C)
        for layer, past in zip(self.middle, state[1], strict=True):
            x, past = layer.step(x, past)
            after[1].append(past)
        x = x.permute(0, 3, 1, 2)
        for block, past in zip(self.decoder, state[2], strict=True):
            x, past = block.step(x + skips.pop(), past)
            after[2].append(past)
        return x[:, 0], tuple(map(tuple, after))

    def narrowed(self, levels: torch.Tensor) -> torch.Tensor:
        """What the bands hear (B, N, K) of the bins (B, N, F)."""
        return torch.cat([levels[..., : self.bins], levels[..., self.bins :] @ self.erb.t()], -1)

    def widened(self, gains: torch.Tensor) -> torch.Tensor:
        """Gains (B, N, F) of the bins, of those of the bands, (B, N, K)."""
        return torch.cat([gains[..., : self.bins], gains[..., self.bins :] @ self.erb], -1)

    def exported(self) -> Any:
        return OneFrame(self)


class OneFrame(OneFrameCore):
    """The core of a UlUnas in a form that takes one frame at a time, and that fast."""

    def __init__(self, model: UlUnas) -> None:
        super().__init__(model)
        self.encoder = Modules(map(OneFrameBlock, model.encoder))
        self.middle = Modules(map(OneFrameDualPath, model.middle))
        self.decoder = Modules(map(OneFrameBlock, model.decoder))

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, 1) by the gains; the next state."""
        gains, state = self.gains(x, state)
        return x * gains[:, None], state

    def gains(
        self, x: torch.Tensor, state: Any, level: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, State]:
        """What the model's `gains` are, of one frame."""
        power = (x * x).sum(1)[..., 0][:, None]  # (B, 1, F)
        heard = self.model.narrowed(power.clamp(min=FLOOR).log10() / 2 - level)
        x, skips, after = heard[:, None], [], ([], [], [])
        for block, past in zip(self.encoder, state[0], strict=True):
            x, past = block(x, past)
            skips.append(x)
            after[0].append(past)
        x = x[:, :, 0].transpose(1, 2)  # (B, K, C)
        for layer, past in zip(self.middle, state[1], strict=True):
            x, past = layer(x, past)
            after[1].append(past)
        x = x.transpose(1, 2)[:, :, None]
        for block, past in zip(self.decoder, state[2], strict=True):
            x, past = block(x + skips.pop(), past)
            after[2].append(past)
        gains = self.model.widened(x[:, 0].sigmoid()).transpose(1, 2)  # (B, F, 1)
        return gains, tuple(map(tuple, after))


class UnasLstm(SpectralModel):
    """Causal enhancement of speech by a gain per bin of the STFT; (B, 1, T) to (B, S, 1, T).

    The defaults have 998,377 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    lstm, unas: settings of the two networks, see there.
    level: what the second network hears where a magnitude is the mixture's level, in decades.
    frozen: whether training leaves the second network as it is.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        window: int = 512,
        hop: int = 256,
        lstm: dict[str, Any] | None = None,
        unas: dict[str, Any] | None = None,
        level: float = -1.7,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        shared = {"sources": sources, "sample_rate": sample_rate, "window": window, "hop": hop}
        self.lstm = BandLstmNet(**shared, **{"full_hidden": 92, **(lstm or {})})
        self.unas = UlUnas(**shared, **(unas or {}))
        self.sources, self.sample_rate = self.lstm.sources, sample_rate
        self.stft, self.hop, self.delay = self.lstm.stft, hop, self.lstm.delay
        self.level = level
        self.share = nn.Parameter(torch.zeros(self.lstm.bins, 1))  # of the first, its logit
        if frozen:
            self.unas.requires_grad_(False)

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        return self.lstm.core_state(batch), self.unas.core_state(batch)

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, N) by the gains; the next state."""
        return weigh(self, self.lstm, self.unas, x, state)

    def exported(self) -> Any:
        return OneFrameOfBoth(self)


class OneFrameOfBoth(OneFrameCore):
    """The core of a UnasLstm in a form that takes one frame at a time, and that fast."""

    def __init__(self, model: UnasLstm) -> None:
        super().__init__(model)
        self.lstm, self.unas = model.lstm.exported(), model.unas.exported()

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, 1) by the gains; the next state."""
        return weigh(self.model, self.lstm, self.unas, x, state)


def weigh(
    model: UnasLstm, lstm: Any, unas: Any, x: torch.Tensor, state: Any
) -> tuple[torch.Tensor, State]:
    """The core of a model whose two networks have these forms."""
    logits, level, first = lstm.logits(x, state[0])
    heard = level.transpose(1, 2).log10() / COMPRESSION - model.level  # (B, N, 1)
    gains, second = unas.gains(x, state[1], heard)
    share = model.share.sigmoid()
    gains = gains + share * (logits.sigmoid() - gains)
    return x * gains[:, None], (first, second)
