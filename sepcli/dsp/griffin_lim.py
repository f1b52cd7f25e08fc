"""Griffin-Lim: samples whose spectrogram has given magnitudes, from a first guess of the phase.

Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984; with the
momentum of Perraudin, Balazs and Søndergaard, "A fast Griffin-Lim algorithm", 2013. Where the
magnitudes are those of no signal, phase and magnitudes are a compromise.
"""

import torch
from torch.nn import functional as F

BLOCK = 64  # frames at a time: what is computed of them stays in the processor's cache


def griffin_lim(
    spectrum: torch.Tensor,
    window: torch.Tensor,
    hop: int,
    length: int,
    *,
    iterations: int = 32,
    momentum: float = 0.99,
    pad: str = "reflect",
) -> torch.Tensor:
    """The samples (..., length) of a spectrum (..., F, N) whose phases are only a first guess.

    window: (L,), L = 2 (F - 1), of a centred transform of N = 1 + length // hop frames whose ends
        are padded as `pad` says: `reflect`, as `nn.spectral.CentredStft`, or `constant`.
    momentum: how far to go beyond every step, 0 for not at all; from 1 on it may not converge.
    """
    F_, N = spectrum.shape[-2:]
    if len(window) != 2 * (F_ - 1) or 1 + length // hop != N:
        raise ValueError(
            f"{F_} bins and {N} frames do not fit a window of {len(window)} and {length} samples"
        )
    flat = spectrum.reshape(-1, F_, N)
    samples = [
        _Signal(each.T.contiguous(), window, hop, length, pad).improve(iterations, momentum)
        for each in flat
    ]
    return torch.stack(samples).reshape(*spectrum.shape[:-2], length)


class _Signal:
    """One signal on its way: its target magnitudes (N, F), and the last iteration's spectrum."""

    def __init__(self, spectrum, window, hop, length, pad):
        self.window, self.hop, self.length, self.pad = window, hop, length, pad
        self.margin = len(window) // 2
        self.target = spectrum.abs()
        self.previous = torch.zeros_like(spectrum)
        N = len(spectrum)
        envelope = self._buffer(N)
        squares = window.square().expand(min(N, BLOCK), -1)
        for at in range(0, N, BLOCK):
            self._add(envelope, at, squares[: N - at])
        tiny = torch.finfo(window.dtype).tiny
        self.envelope = torch.where(envelope > tiny, envelope, 1)
        total = self._buffer(N)
        for at in range(0, N, BLOCK):
            self._add(total, at, self._frames(spectrum[at : at + BLOCK]))
        self.samples = self._finish(total)

    def improve(self, iterations, momentum):
        for _ in range(iterations):
            self._step(momentum / (1 + momentum))
        return self.samples

    def _step(self, inertia):
        """Take the phases of the samples' spectrum, and the samples of these with the target."""
        N, L, tiny = len(self.target), len(self.window), torch.finfo(self.window.dtype).tiny
        x = F.pad(self.samples[None], (self.margin, self.margin), mode=self.pad)[0]
        total = self._buffer(N)
        for at in range(0, N, BLOCK):
            n = min(BLOCK, N - at)
            frames = x[at * self.hop :].unfold(0, L, self.hop)[:n] * self.window  # (n, L)
            rebuilt = torch.fft.rfft(frames)  # (n, F)
            previous = self.previous[at : at + n]
            ahead = rebuilt - inertia * previous
            previous.copy_(rebuilt)
            real, imaginary = torch.view_as_real(ahead).unbind(-1)
            power = torch.addcmul(real * real, imaginary, imaginary)  # abs takes 3 times as long
            ahead *= self.target[at : at + n] * power.clamp_(min=tiny).rsqrt_()
            self._add(total, at, self._frames(ahead))
        self.samples = self._finish(total)

    def _frames(self, spectrum):
        """Windowed frames (n, L) of a spectrum (n, F)."""
        return torch.fft.irfft(spectrum, n=len(self.window)) * self.window

    def _buffer(self, N):
        return self.window.new_zeros((N - 1 + -(-len(self.window) // self.hop)) * self.hop)

    def _add(self, total, at, frames):
        """Overlap-add frames (n, L), the first of which has the number `at`."""
        n, L = frames.shape
        for k in range(0, L, self.hop):
            start = at * self.hop + k
            part = frames[:, k : k + self.hop]
            total[start : start + n * self.hop].view(n, self.hop)[:, : part.shape[1]] += part

    def _finish(self, total):
        samples = (total / self.envelope)[self.margin :][: self.length]
        return F.pad(samples, (0, self.length - len(samples)))
