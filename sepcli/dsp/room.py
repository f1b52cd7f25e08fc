"""Rooms: convolution with impulse responses (RIRs), and responses with a known decay."""

import numpy as np

from sepcli.dsp import wrapped
from sepcli.dsp.level import multiplier

BLOCK = 80_000  # samples made at a time, or BLOCK_TAPS per tap of a longer response: a transform
BLOCK_TAPS = 5  # of them stays in the cache, and its spectrum has 24 bytes per tap
PREDELAY_S = 0.002  # from the direct sound to the first reflection
MIXING_S = 0.04  # when reflections are too many to be told apart, in a room of everyday size
STRONGEST = 0.7  # amplitude of an early reflection re the direct sound


class Response:
    """RIRs (..., R) made ready for any number of signals (..., T) of one length `samples` = T.

    Calling it gives the signal as heard through the RIRs, (..., T), from sample `start` on, or all
    T + R - 1 samples when `full`. Leading axes broadcast and the signal is transformed once, so
    (C, T) with (K, 1, R) gives the same sound in K rooms, (K, C, T), for little more than the
    price of one. float32 gives float32 (115 dB and better against float64), float64 stays float64.
    """

    def __init__(
        self, rirs: np.ndarray, samples: int, *, start: int = 0, full: bool = False
    ) -> None:
        self.start, self.taps = start, rirs.shape[-1]
        self.samples, self.length = samples, samples + self.taps - 1 if full else samples
        # Overlap-save: a block reads n samples and yields the last n - taps + 1.
        self.blocks = max(1, round(self.length / max(BLOCK, BLOCK_TAPS * self.taps)))
        self.n = wrapped.fast_size(-(-self.length // self.blocks) + self.taps - 1)
        self.step = self.n - self.taps + 1
        padded = np.zeros((*rirs.shape[:-1], 1, self.n), rirs.dtype)  # (..., 1 block, n)
        padded[..., 0, : self.taps] = rirs
        self.spectra = wrapped.forward(padded)

    def __call__(self, signal):
        if signal.shape[-1] != self.samples:
            raise ValueError(f"made for {self.samples} samples, got {signal.shape[-1]}")
        spectra = wrapped.forward(self._blocks(signal))  # of (..., blocks, n)
        shape = np.broadcast_shapes(spectra.shape, self.spectra.shape)
        place = spectra if shape == spectra.shape else None  # no new memory is a tenth of the time
        spectra = np.multiply(spectra, self.spectra, out=place)
        wet = wrapped.inverse(spectra, self.taps - 1)
        return wet.reshape(*wet.shape[:-2], -1)[..., : self.length]

    def _blocks(self, signal):
        """What each block reads of `signal` (..., T), with zeros around it: (..., blocks, n)."""
        out = np.zeros((*signal.shape[:-1], self.blocks, self.n), signal.dtype)
        for k in range(self.blocks):
            first = k * self.step + self.start - (self.taps - 1)
            part = signal[..., max(0, first) : max(0, first + self.n)]
            out[..., k, max(0, -first) :][..., : part.shape[-1]] = part
        return out


def convolve(
    signal: np.ndarray, rirs: np.ndarray, *, start: int = 0, full: bool = False
) -> np.ndarray:
    """`signal` (..., T) heard through `rirs` (..., R), cropped to (..., T); see `Response`."""
    return Response(rirs, signal.shape[-1], start=start, full=full)(signal)


def main_tap(rir: np.ndarray) -> int:
    """Index of the largest |sample| of one RIR (R,): where the direct sound arrives."""
    return int(np.argmax(np.abs(rir)))


def synthetic_rir(
    rt60_s: float,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    direct_to_reverberant_db: float = 0.0,
) -> np.ndarray:
    """A RIR (R,) float32 whose tail falls by exactly 60 dB per `rt60_s` seconds, until -70 dB.

    The direct sound is 1.0 at sample 0. From `PREDELAY_S` on, sparse and strong reflections
    thicken within `MIXING_S` into noise of random signs, not random sizes: its decay is the
    exponential itself, not an estimate of it. rng: np.random.Generator.
    """
    if not rt60_s > 0:
        raise ValueError(f"rt60_s must be above 0 s, got {rt60_s}")
    start = max(1, round(PREDELAY_S * sample_rate))
    t = np.arange(int(rt60_s * sample_rate * 70 / 60) + 1) / sample_rate
    decay = 10 ** (-3 * t / rt60_s)
    decay *= multiplier(-direct_to_reverberant_db) / np.sqrt(np.sum(decay**2))
    # One tap in 1/density, louder by its root: the power stays the exponential on average.
    density = np.clip(np.maximum((t / MIXING_S) ** 2, (decay / STRONGEST) ** 2), 0.01, 1)
    signs = np.where(rng.random(t.size) < 0.5, -1.0, 1.0)
    tail = signs * decay * (rng.random(t.size) < density) / np.sqrt(density)
    return np.concatenate([[1.0], np.zeros(start - 1), tail]).astype(np.float32)
