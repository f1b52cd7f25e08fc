"""A short-time Fourier transform in chunks, without torch: the front end of exported graphs.

The same numbers as `sepcli.nn.filterbank.Stft`, whose windows it is given. A spectrum is float32
(B, 2, F, N), real and imaginary parts of F = kernel/2 + 1 frequencies in N frames.
"""

import numpy as np


class ChunkedStft:
    """Transform chunks (B, k*stride), any k >= 1, and back; states are passed in and out.

    window, synthesis_window: (kernel,), of analysis, and of synthesis, where the product of both
    adds up to 1 over frames that lie `stride` samples apart.
    """

    def __init__(self, window, synthesis_window, stride):
        self.window = np.asarray(window, np.float32)
        self.synthesis_window = np.asarray(synthesis_window, np.float32)
        self.stride, self.kernel = stride, len(self.window)
        self.overlap = self.kernel - stride

    def initial_state(self, batch=1):
        """What came before the first chunk, for both directions: zeros (B, overlap)."""
        return np.zeros((batch, self.overlap), np.float32)

    def analyse(self, x, past):
        """Turn samples (B, N*stride) into the spectrum (B, 2, F, N), and the next past."""
        x = np.concatenate([past, x], 1)
        frames = np.lib.stride_tricks.sliding_window_view(x, self.kernel, 1)[:, :: self.stride]
        spectrum = np.fft.rfft(frames * self.window).swapaxes(1, 2)  # (B, F, N)
        parts = np.stack([spectrum.real, spectrum.imag], 1, dtype=np.float32, casting="same_kind")
        return parts, x[:, x.shape[1] - self.overlap :]

    def synthesise(self, parts, tail):
        """Turn the spectrum (B, 2, F, N) into samples (B, N*stride), and the next tail."""
        spectrum = (parts[:, 0] + 1j * parts[:, 1]).swapaxes(1, 2)  # (B, N, F)
        frames = np.fft.irfft(spectrum, n=self.kernel) * self.synthesis_window  # (B, N, kernel)
        N = frames.shape[1]
        out = np.pad(tail, ((0, 0), (0, N * self.stride)))
        for n in range(N):
            out[:, n * self.stride : n * self.stride + self.kernel] += frames[:, n]
        return out[:, : N * self.stride], out[:, N * self.stride :]
