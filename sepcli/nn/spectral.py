"""What spectral models that are not causal share: a centred STFT, and what acts in it."""

from abc import abstractmethod

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.nn.filterbank import check_overlap
from sepcli.nn.model import Condition, Model

SMALLEST = 1e-12  # magnitude of a bin that has no phase


class CentredStft(nn.Module):
    """Short-time Fourier transform (..., T) to complex (..., F, N) and back, F = window/2 + 1.

    Frame n is centred at sample n * hop, N = 1 + T // hop, the ends are reflected, and the window
    is a periodic Hann window: what `torch.stft` does unless told otherwise.

    window, hop: samples. n_fft: of the transform, with zeros around a shorter window.
    """

    window: torch.Tensor

    def __init__(self, window: int, hop: int, *, n_fft: int | None = None) -> None:
        super().__init__()
        if not 1 <= hop <= window // 2:
            raise ValueError(f"a Hann window needs window >= 2 * hop, not {window} and {hop}")
        check_overlap(window, hop)
        around = (n_fft or window) - window
        if around < 0:
            raise ValueError(f"n_fft {n_fft} is less than the window of {window}")
        self.hop = hop
        padded = F.pad(torch.hann_window(window), (around // 2, around - around // 2))
        self.register_buffer("window", padded, persistent=False)

    @property
    def size(self) -> int:
        """Samples of the transform, and of the window with the zeros around it."""
        return len(self.window)

    def analyse(self, x: torch.Tensor) -> torch.Tensor:
        """The spectrum (..., F, N) of samples (..., T) (zeros follow too few to reflect)."""
        T = x.shape[-1]
        x = F.pad(x, (0, max(0, self.size // 2 + 1 - T)))
        flat = x.reshape(-1, x.shape[-1])  # (B*C, T)
        spectrum = torch.stft(flat, self.size, self.hop, window=self.window, return_complex=True)
        return spectrum.reshape(*x.shape[:-1], *spectrum.shape[-2:])  # (B, C, F, N)

    def synthesise(self, spectrum: torch.Tensor, length: int) -> torch.Tensor:
        """The samples (..., length) of a spectrum (..., F, N)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])  # (B*S*C, F, N)
        x = torch.istft(flat, self.size, self.hop, window=self.window, length=length)
        return x.reshape(*spectrum.shape[:-2], length)


class OfflineSpectralModel(Model):
    """A separator between a centred STFT and its inverse that needs the whole signal.

    A subclass sets `stft`, and has `spectra`. Wiener filters and Griffin-Lim act between that and
    the synthesis.
    """

    stft: CentredStft
    spectral: bool = True

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.stft.hop

    def forward(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """Separate whole signals (B, C, T), any T >= 1, into (B, S, C, T).

        Of their spectra (B, C, F, N), complex, into those of the sources, (B, S, C, F, N).
        """
        if x.is_complex():
            return self.spectra(x, *condition)
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(f"expected (batch, {self.channels}, samples), got {tuple(x.shape)}")
        return self.synthesise(self.spectra(self.analyse(x), *condition), x.shape[-1])

    def analyse(self, x: torch.Tensor) -> torch.Tensor:
        """The spectra (..., F, N), complex, of whole signals (..., T)."""
        return self.stft.analyse(x)

    def synthesise(self, spectra: torch.Tensor, length: int) -> torch.Tensor:
        """The signals (..., length) of spectra (..., F, N)."""
        return self.stft.synthesise(spectra, length)

    @abstractmethod
    def spectra(self, spectrum: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """The spectra (B, S, C, F, N) of the sources in the mixture's (B, C, F, N), complex."""
        raise NotImplementedError


def with_phase(magnitude: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """`magnitude`, (..., F, N), with the phase of the complex `spectrum`; 0 where that is 0."""
    return magnitude * (spectrum / spectrum.abs().clamp(min=SMALLEST))
