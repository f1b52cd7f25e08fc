"""A short-time Fourier transform in chunks, without torch: the front end of exported graphs.

The same numbers as `sepcli.nn.filterbank.Stft`, whose windows it is given. A spectrum is float32
(B, 2, F, N), real and imaginary parts of F = kernel/2 + 1 frequencies in N frames.
"""

from collections.abc import Sequence

import numpy as np


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
