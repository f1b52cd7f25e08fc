"""Conv-TasNet's separator between a Fourier transform and its inverse, for speech enhancement.

The learned filterbank of Conv-TasNet turns 1 s of 16 kHz audio into 1,000 frames; a short-time
Fourier transform with an 8 ms hop into 125, so the same separator costs an eighth and sees eight
times the context. The network reads the magnitudes, compressed by the power 0.3, and returns one
mask per source in [0, 1]; the phase is the mixture's.
"""

import torch
from torch import nn

from sepcli.nn.causal import CausalModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.tcn import Tcn


class SpectralTasNet(CausalModel):
    """Causal masking of an STFT by a temporal convolutional network; (B, 1, T) to (B, S, 1, T).

    sources: names of the outputs; the first is estimated by the mask, a second one is the rest.
    window, hop: STFT samples.  width, hidden: channels of the residual path and inside a block.
    """

    channels = 1

    def __init__(
        self,
        *,
        sources=("speech", "noise"),
        sample_rate=16000,
        window=384,
        hop=128,
        width=128,
        hidden=128,
        kernel=3,
        blocks=6,
        repeats=2,
        norm="bn",
        compression=0.3,
        complex_mask=False,
    ):
        super().__init__()
        if len(sources) not in (1, 2):
            raise ValueError("spectral_tasnet has one mask: name one source, or it and the rest")
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.stft = Stft(window, hop)
        self.hop, self.delay = hop, self.stft.overlap
        self.compression = compression
        self.complex_mask = complex_mask
        bins = window // 2 + 1
        self.input = nn.Conv1d(bins * (3 if complex_mask else 1), width, 1)
        self.tcn = Tcn(
            width, hidden, skip=0, kernel=kernel, blocks=blocks, repeats=repeats, norm=norm
        )
        self.output = nn.Sequential(
            nn.PReLU(), nn.Conv1d(width, bins * (2 if complex_mask else 1), 1)
        )

    def initial_state(self, batch=1):
        tail = self.stft.initial_state(batch, self.input.weight)
        return tail, self.tcn.initial_state(batch), tail

    def step(self, x, state):
        analysis, tcn, synthesis = state
        spectrum, analysis = self.stft.analyse(x[:, 0], analysis)  # (B, F, N)
        mag = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
        feats = mag**self.compression
        if self.complex_mask:
            c = feats / mag
            feats = torch.cat([feats, spectrum.real * c, spectrum.imag * c], 1)
        hidden, tcn = self.tcn.step(self.input(feats), tcn)
        out = self.output(hidden)
        if self.complex_mask:
            re, im = out.chunk(2, 1)
            mask = torch.complex(re + 1, im)
        else:
            mask = out.sigmoid()
        y, synthesis = self.stft.synthesise(spectrum * mask, synthesis)
        y = y[:, None, None]  # (B, 1, 1, T)
        if len(self.sources) == 2:
            y = torch.cat([y, self._delayed(x, state) - y], 1)
        return y, (analysis, tcn, synthesis)

    def _delayed(self, x, state):
        past = state[0]
        return torch.cat([past, x[:, 0]], -1)[:, None, None, : x.shape[-1]]
