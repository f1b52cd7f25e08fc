"""Short-time Fourier transforms without torch: the front ends of exported graphs.

The same numbers as the transforms of models in `nn/filterbank.py` and `nn/spectral.py`, whose
windows they are given. A spectrum is float32 (..., 2, F, N), real and imaginary parts of F
frequencies in N frames.
"""

from collections.abc import Sequence

import numpy as np

FRAMES = 16  # transformed at a time


class ChunkedStft:
    """Transform chunks (B, k*stride), any k >= 1, and back; states are passed in and out.

    window, synthesis_window: (kernel,), of analysis, and of synthesis, where the product of both
    adds up to 1 over frames that lie `stride` samples apart.
    """

    def __init__(
        self, window: Sequence[float], synthesis_window: Sequence[float], stride: int
    ) -> None:
        self.window = np.asarray(window, np.float32)
        self.synthesis_window = np.asarray(synthesis_window, np.float32)
        self.stride, self.kernel = stride, len(self.window)
        self.overlap = self.kernel - stride

    def initial_state(self, batch: int = 1) -> np.ndarray:
        """What came before the first chunk, for both directions: zeros (B, overlap)."""
        return np.zeros((batch, self.overlap), np.float32)

    def analyse(self, x: np.ndarray, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn samples (B, N*stride) into the spectrum (B, 2, F, N), and the next past."""
        x = np.concatenate([past, x], 1)
        B, N = len(x), (x.shape[1] - self.overlap) // self.stride
        frames = np.empty((B, N, self.kernel), np.float32)
        for n in range(N):
            start = n * self.stride
            np.multiply(x[:, start : start + self.kernel], self.window, out=frames[:, n])
        spectrum = np.fft.rfft(frames).swapaxes(1, 2)  # (B, F, N)
        parts = np.empty((B, 2, *spectrum.shape[1:]), np.float32)
        parts[:, 0], parts[:, 1] = spectrum.real, spectrum.imag
        return parts, x[:, x.shape[1] - self.overlap :]

    def synthesise(self, parts: np.ndarray, tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn the spectrum (B, 2, F, N) into samples (B, N*stride), and the next tail."""
        B, _, F, N = parts.shape
        spectrum = np.empty((B, N, F), np.complex64)
        spectrum.real, spectrum.imag = parts.transpose(1, 0, 3, 2)
        frames = np.fft.irfft(spectrum, n=self.kernel) * self.synthesis_window  # (B, N, kernel)
        out = np.zeros((B, N * self.stride + self.overlap), np.float32)
        out[:, : self.overlap] = tail
        for n in range(N):
            out[:, n * self.stride : n * self.stride + self.kernel] += frames[:, n]
        return out[:, : N * self.stride], out[:, N * self.stride :]


class CentredStft:
    """Transform whole signals (..., T) and back; frames are centred, the ends reflected.

    window: (size,), with zeros around it where the transform is longer. hop: samples.
    """

    def __init__(self, window: Sequence[float], hop: int) -> None:
        self.window, self.hop = np.asarray(window, np.float32), hop
        self.size = len(self.window)

    def analyse(self, x: np.ndarray) -> np.ndarray:
        """The spectrum (..., 2, F, N) of samples (..., T), N = 1 + T // hop."""
        half = self.size // 2
        around = [(0, 0)] * (x.ndim - 1)
        x = np.pad(x, [*around, (0, max(0, half + 1 - x.shape[-1]))])
        x = np.pad(x, [*around, (half, half)], mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(x, self.size, -1)[..., :: self.hop, :]
        parts = np.empty((*x.shape[:-1], 2, half + 1, frames.shape[-2]), np.float32)
        for some in _pieces(frames.shape[-2]):
            spectrum = np.fft.rfft(frames[..., some, :] * self.window).swapaxes(-1, -2)
            parts[..., 0, :, some], parts[..., 1, :, some] = spectrum.real, spectrum.imag
        return parts

    def synthesise(self, parts: np.ndarray, length: int) -> np.ndarray:
        """The samples (..., length) of the spectrum (..., 2, F, N)."""
        *shape, _, F, N = parts.shape
        half = self.size // 2
        total = max((N - 1) * self.hop + self.size, half + length)
        y, power = np.zeros((*shape, total), np.float32), np.zeros(total, np.float32)
        for some in _pieces(N):
            spectrum = np.empty((*shape, some.stop - some.start, F), np.complex64)
            spectrum.real = parts[..., 0, :, some].swapaxes(-1, -2)
            spectrum.imag = parts[..., 1, :, some].swapaxes(-1, -2)
            frames = np.fft.irfft(spectrum, n=self.size) * self.window  # (..., n, size)
            for n in range(some.start, some.stop):
                place = slice(n * self.hop, n * self.hop + self.size)
                y[..., place] += frames[..., n - some.start, :]
                power[place] += self.window**2
        kept = slice(half, half + length)
        return y[..., kept] / np.maximum(power[kept], 1e-11)


def _pieces(frames: int) -> list[slice]:
    """Frames, so many at a time that what is computed of them stays in a processor's cache."""
    return [slice(n, min(n + FRAMES, frames)) for n in range(0, frames, FRAMES)]
