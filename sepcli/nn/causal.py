"""What every causal model shares: offline separation is streaming in one chunk."""

from torch import nn
from torch.nn import functional as F


class CausalModel(nn.Module):
    """A separator of waveforms that can run chunk by chunk.

    A subclass sets `sample_rate` (Hz), `sources` (names), `channels`, `hop` and `delay`
    (samples), and has `initial_state(batch)` and `step(x, state)`: a chunk (B, C, k*hop), any
    k >= 1, gives (B, S, C, k*hop), which lags the input by `delay` samples, and the next state.
    """

    @property
    def latency(self):
        """Algorithmic latency in samples: filling one hop, and the lag of the output."""
        return self.hop + self.delay

    def forward(self, x):
        """Separate whole signals (B, C, T), any T >= 1, into (B, S, C, T)."""
        T = x.shape[-1]
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(f"expected (batch, {self.channels}, samples), got {tuple(x.shape)}")
        x = F.pad(x, (0, self.delay + -(T + self.delay) % self.hop))
        return self.run(x)[..., self.delay : self.delay + T]

    def run(self, x):
        """Separate the padded signal (B, C, k*hop) in one chunk."""
        return self.step(x, self.initial_state(x.shape[0]))[0]
