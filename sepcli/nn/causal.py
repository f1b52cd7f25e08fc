"""What every causal model shares: offline separation is streaming in one chunk."""

import torch
from torch import nn
from torch.nn import functional as F


class CausalModel(nn.Module):
    """A separator of waveforms that can run chunk by chunk.

    A subclass sets `sample_rate` (Hz), `sources` (names), `channels`, `hop` and `delay`
    (samples), and has `initial_state(batch)` and `step(x, state)`: a chunk (B, C, k*hop), any
    k >= 1, gives (B, S, C, k*hop), which lags the input by `delay` samples, and the next state.
    States are nested tuples of tensors, zero at first, whose first dimension grows with the batch.

    `core` and `core_state` are the part that an exported graph holds, between the two halves of
    the `front_end`: all of `step` when that is "waveform". `exported` may give them another form.
    """

    front_end = "waveform"
    hops = None  # that `core` takes at a time; None: any number

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

    def core_state(self, batch=1):
        """The state of `core` before the first chunk."""
        return self.initial_state(batch)

    def core(self, x, state):
        """`step`, without what the front end does."""
        return self.step(x, state)

    def exported(self):
        """What the graph is made from: `core`, `core_state` and `hops`, in the form that is fast.

        Its states may differ from the model's, but its outputs do not.
        """
        return self


class SpectralModel(CausalModel):
    """A causal model of one channel that estimates a spectrum between an STFT and its inverse.

    A subclass sets `stft`, and has `core_state(batch)` and `core(x, state)`: the spectrum
    (B, 2, F, N), real and imaginary parts of N >= 1 frames, gives that of the first source, and
    the next state. A second source is the rest of the mixture.
    """

    front_end = "stft"
    channels = 1

    def initial_state(self, batch=1):
        """The state before the first sample."""
        tail = self.stft.initial_state(batch, next(self.parameters()))
        return tail, self.core_state(batch), tail

    def step(self, x, state):
        """Map a chunk (B, 1, k*hop), any k >= 1, to (B, S, 1, k*hop), `delay` samples late."""
        past, core, tail = state
        x = x[:, 0]  # (B, T)
        spectrum, following = self.stft.analyse(x, past)  # (B, F, N)
        parts = torch.stack([spectrum.real, spectrum.imag], 1)  # (B, 2, F, N)
        parts, core = self.core(parts, core)
        spectrum = torch.complex(parts[:, 0], parts[:, 1])  # (B, F, N)
        estimate, tail = self.stft.synthesise(spectrum, tail)
        estimates = [estimate]
        if len(self.sources) == 2:
            delayed = torch.cat([past, x], -1)[:, : x.shape[-1]]  # the mixture, as late
            estimates.append(delayed - estimate)
        return torch.stack(estimates, 1)[:, :, None], (following, core, tail)  # (B, S, 1, T)

    def analyse(self, x):
        """The spectra (..., F, N), complex, of whole signals (..., T): what `forward` works on."""
        T = x.shape[-1]
        flat = F.pad(x, (0, self.delay + -(T + self.delay) % self.hop)).flatten(0, -2)
        spectrum, _ = self.stft.analyse(flat, self.stft.initial_state(len(flat), flat))
        return spectrum.unflatten(0, x.shape[:-1])

    def spectra(self, spectrum):
        """The spectra (B, S, 1, F, N) of the sources in the mixture's (B, 1, F, N), complex."""
        parts = torch.cat([spectrum.real, spectrum.imag], 1)  # (B, 2, F, N)
        parts, _ = self.core(parts, self.core_state(len(spectrum)))
        estimate = torch.complex(parts[:, 0], parts[:, 1])[:, None]  # (B, 1, F, N)
        estimates = [estimate] if len(self.sources) == 1 else [estimate, spectrum - estimate]
        return torch.stack(estimates, 1)

    def synthesise(self, spectra, length):
        """The signals (..., length) of spectra (..., F, N)."""
        flat = spectra.flatten(0, -3)  # (B*S, F, N)
        x, _ = self.stft.synthesise(flat, self.stft.initial_state(len(flat), flat.real))
        return x[:, self.delay : self.delay + length].unflatten(0, spectra.shape[:-2])

    def core_state(self, batch=1):
        """The state of `core` before the first frame."""
        raise NotImplementedError

    def core(self, x, state):
        """Map the mixture's spectrum (B, 2, F, N) to the first source's, and the next state."""
        raise NotImplementedError
