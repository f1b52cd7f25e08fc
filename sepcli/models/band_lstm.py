"""A gain per bin that a full-band convolutional network proposes and band-wise LSTMs correct.

The temporal convolutional network of Conv-TasNet reads all of a spectrum at once and knows the
shapes of spectra well. LSTMs over time that every band shares, as in band-split networks (Luo & Yu,
"Music Source Separation with Band-Split RNN", TASLP 2023), know how sounds begin and fade and carry
over to sounds that were never heard. Between them, bands are mixed as in MLP-Mixer (Tolstikhin et
al., NeurIPS 2021).

All features are divided by a running mean of the magnitudes: the gains do not depend on the level.
B batch, C channels, N frames, F frequencies, K bands.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.band_lstm import (
    BandDecoder,
    BandEncoder,
    BandLstm,
    BandMixer,
    OneFrameLstm,
    RunningMean,
    band_widths,
)
from sepcli.layers.modules import Modules
from sepcli.layers.tcn import Tcn
from sepcli.nn.causal import OneFrameCore, SpectralModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import State

FLOOR = 1e-9  # added to powers; it bounds the gradients
COMPRESSION = 0.3  # power of the magnitudes that the network reads
PLANES = 4  # features per bin, without the proposed gain


class FullBand(nn.Module):
    """Features (B, F, N) to logits of gains (B, F, N), by dilated convolutions of all the bins."""

    def __init__(self, bins: int, width: int, hidden: int, blocks: int, repeats: int) -> None:
        super().__init__()
        self.input = nn.Conv1d(bins, width, 1)
        self.tcn = Tcn(width, hidden, skip=0, blocks=blocks, repeats=repeats, norm="none")
        self.output = nn.Sequential(nn.PReLU(), nn.Conv1d(width, bins, 1))

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        x, state = self.tcn.step(self.input(x), state)
        return self.output(x), state


class BandLstmNet(SpectralModel):
    """Causal enhancement of speech by a gain per bin of the STFT; (B, 1, T) to (B, S, 1, T).

    The defaults have 976,410 parameters and, at 16 kHz, 32 ms of algorithmic latency.

    sources: one name, what is kept, or two, it and the rest of the mixture.
    window, hop: samples of the STFT.
    bands: pairs (how many, bins of each) from 0 Hz on; the last band has what is left.
    span: bins that each band reads.  channels, hidden: features of a band, and inside its LSTMs.
    layers: LSTMs.  mixed: features that replace the bands where these are mixed.
    full_width, full_hidden, full_blocks, full_repeats: of the full-band network, whose dilations
        are 1, 2, 4, ... in each repeat.
    memory: seconds after which a frame weighs 1/e in the running means.
    dropout: share of what the full-band network reads, and of the features of the bands before each
        LSTM and the gains, that training sets to 0.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str] = ("speech", "noise"),
        sample_rate: int = 16000,
        window: int = 512,
        hop: int = 256,
        bands: Sequence[tuple[int, int]] = ((12, 4), (8, 8), (12, 12)),
        span: int = 16,
        channels: int = 32,
        hidden: int = 32,
        layers: int = 3,
        mixed: int = 48,
        full_width: int = 256,
        full_hidden: int = 112,
        full_blocks: int = 6,
        full_repeats: int = 2,
        memory: float = 0.992,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("band_lstm has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        bins = window // 2 + 1
        widths = band_widths(bins, bands)
        self.bins, self.bands = bins, len(widths)
        self.dropout = dropout
        self.mean = RunningMean(memory * sample_rate / hop)
        self.full = FullBand(bins, full_width, full_hidden, full_blocks, full_repeats)
        self.encoder = BandEncoder(PLANES + 1, widths, span, channels)
        self.lstms = Modules(BandLstm(channels, hidden) for _ in range(layers))
        self.mixers = Modules(BandMixer(channels, self.bands, mixed) for _ in range(layers + 1))
        self.norm = nn.LayerNorm(channels)
        self.decoder = BandDecoder(widths, channels)

    def core_state(self, batch: int = 1) -> State:
        """The state of `core` before the first frame."""
        zeros = self.norm.weight.new_zeros
        return (
            (zeros(batch, 1 + self.bins), zeros(batch, 1)),
            self.full.tcn.initial_state(batch),
            tuple(lstm.initial_state(self.bands, batch) for lstm in self.lstms),
        )

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, N) by the gains; the next state."""
        logits, _, state = self.logits(x, state)
        return x * logits.sigmoid()[:, None], state

    def logits(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Logits of the gains (B, F, N), the running level (B, 1, N), and the next state.

        The level is the mean magnitude to the power of COMPRESSION.
        """
        means, full, lstms = state
        features, logits, level, means, full = self.listen(x, means, full)
        hidden, following = self.mixers[0](self.encoder(features)), []
        for lstm, mixer, past in zip(self.lstms, self.mixers[1:], lstms, strict=True):
            hidden, past = lstm.step(self.dropped(hidden), past)
            hidden = mixer(hidden)
            following.append(past)
        correction = self.decoder(self.dropped(self.norm(hidden).relu()))
        return logits + correction, level, (means, full, tuple(following))

    def listen(
        self, x: torch.Tensor, means: Any, full: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, State, State]:
        """Features (B, P, F, N), logits of the proposed gains (B, F, N), level, the next states."""
        power = x.square().sum(1) + FLOOR  # (B, F, N)
        magnitude = power ** (COMPRESSION / 2)
        both = torch.cat([magnitude.mean(1, keepdim=True), magnitude], 1)  # of all bins, of each
        both, *means = self.mean.step(both, *means)
        level, own = both[:, :1], both[:, 1:]
        relative = magnitude / level
        logits, full = self.full.step(self.dropped(relative), full)
        parts = x * (power ** ((COMPRESSION - 1) / 2) / level)[:, None]  # (B, 2, F, N)
        beyond = magnitude / (own + 0.1 * level)  # 1 / 1.1 while a bin is as loud as ever
        others = torch.stack([relative - 1, beyond - 0.9, (logits / 2).tanh()], 1)
        return torch.cat([parts, others], 1), logits, level, tuple(means), full

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Features, some of which are 0 in training."""
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def exported(self) -> Any:
        return OneFrame(self)


class OneFrame(OneFrameCore):
    """The core of a BandLstmNet in a form that takes one frame at a time, and that fast."""

    def __init__(self, model: BandLstmNet) -> None:
        super().__init__(model)
        self.lstms = Modules(map(OneFrameLstm, model.lstms))

    def core(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, State]:
        """Weigh the mixture's spectrum (B, 2, F, 1) by the gains; the next state."""
        logits, _, state = self.logits(x, state)
        return x * logits.sigmoid()[:, None], state

    def logits(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, torch.Tensor, State]:
        """What the model's `logits` are, of one frame."""
        model, (means, full, lstms) = self.model, state
        features, logits, level, means, full = model.listen(x, means, full)
        hidden = model.encoder(features)  # (1, K, B, C), and (B, K, C) from the first mixer on
        hidden, following = model.mixers[0].one_frame(hidden[0].transpose(0, 1)), []
        for lstm, mixer, past in zip(self.lstms, model.mixers[1:], lstms, strict=True):
            hidden, past = lstm(hidden, past)
            hidden = mixer.one_frame(hidden)
            following.append(past)
        hidden = F.relu(model.norm(hidden)).transpose(0, 1)[None]
        return logits + model.decoder(hidden), level, (means, full, tuple(following))
