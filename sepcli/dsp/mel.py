"""Mel spectrograms and the way back: bands from magnitudes, and magnitudes from bands.

The scale is Slaney's, linear up to 1 kHz and logarithmic above, with triangles of equal area, as in
M. Slaney, "Auditory Toolbox", 1998, and as librosa and most neural vocoders have it.
"""

import numpy as np
import torch

HZ_PER_MEL, BREAK_HZ = 200 / 3, 1000.0  # below the break
LOG_STEP = np.log(6.4) / 27  # of a mel above it
ITERATIONS = 30


def _mel(hz):
    above = BREAK_HZ / HZ_PER_MEL + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / HZ_PER_MEL, above)


def _hz(mel):
    knee = BREAK_HZ / HZ_PER_MEL
    return np.where(mel < knee, mel * HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mel - knee)))


def mel_filters(sample_rate: int, window: int, bands: int) -> torch.Tensor:
    """The weights (M, F) float32 of every bin in `bands` bands from 0 Hz to half the sample rate.

    window: samples of the transform, F = window/2 + 1.
    """
    edges = _hz(np.linspace(0, _mel(np.array(sample_rate / 2)), bands + 2))
    hz = np.fft.rfftfreq(window, 1 / sample_rate)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling))  # (M, F)
    return torch.from_numpy(weights * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def magnitudes_of(
    mel: torch.Tensor, filters: torch.Tensor, *, iterations: int = ITERATIONS
) -> torch.Tensor:
    """Magnitudes (..., F, N) >= 0 whose bands are nearly `mel` (..., M, N), with filters (M, F).

    Least squares by multiplicative updates (Lee and Seung, "Algorithms for non-negative matrix
    factorization", 2001), from the pseudoinverse on, whose negative magnitudes are taken away.
    """
    *shape, M, N = mel.shape
    flat = mel.reshape(-1, M, N).movedim(1, 0).reshape(M, -1)  # (M, B*N)
    down, up = filters.to_sparse(), filters.T.contiguous().to_sparse()  # a bin is in two bands
    found = torch.linalg.pinv(filters) @ flat
    wanted = up @ flat
    tiny = 1e-10
    found = found.clamp(min=1e-3 * float(flat.mean()) + tiny)  # what is 0 would stay so
    for _ in range(iterations):
        found *= wanted / (up @ (down @ found) + tiny)
    F = len(found)
    return found.reshape(F, -1, N).movedim(0, 1).reshape(*shape, F, N)
