"""Recordings with parts of their spectrograms missing, and the whole of them as the reference.

What a network learns by filling these in needs no stems: reconstruction as in He et al., "Masked
Autoencoders Are Scalable Vision Learners", CVPR 2022.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from sepcli.dsp import level
from sepcli.mixing.source import Drawn, Source
from sepcli.mixing.specs import Spec, limited, rate
from sepcli.recordings import stored
from sepcli.recordings.pools import TRIES, Faults, Pool

LOWEST_HZ = 50.0  # where a patch may begin


@dataclass(frozen=True)
class MaskedSpec(Spec):
    """Which recordings, and what is missing of them. A pair is a range to draw from.

    recordings: sources of recordings, see `Pool`. duration_s: length of an item; shorter recordings
        are followed by silence. sample_rate: Hz. channels: 1, the mean of all, or 2.
    patches: how many are missing. patch_s, patch_octaves: their extents.
    min_rms_db: stretches are drawn again where they are quieter, re full scale.
    Raises SepcliError for a value that makes no sense.
    """

    recordings: tuple[str, ...] = ()
    duration_s: float = limited(3.0, 0.1, 3600)
    sample_rate: int = rate(44100)
    channels: int = limited(2, 1, 2)
    patches: tuple[int, int] = limited((4, 16), 0, 1000)
    patch_s: tuple[float, float] = limited((0.1, 0.6), 0.001, 3600)
    patch_octaves: tuple[float, float] = limited((0.5, 3.0), 0, 20)
    min_rms_db: float = limited(-60.0, -200, 200)

    def __post_init__(self):
        super().__post_init__()
        self._check("recordings", self.recordings, "folders, lists or packs of recordings")


class Masked(Source):
    """Items by number: `mixture` is the recording, of which the mix lacks patches."""

    faults: Faults

    def __init__(self, spec: MaskedSpec) -> None:
        self.spec, self.faults = spec, Faults()
        self._pool = Pool(spec.recordings, what="recordings", faults=self.faults)
        self._headers = stored.Headers()

    def recordings(self) -> Iterator[Any]:
        return self._pool.recordings()

    def draw(self, seed: int, index: int, step: int | None = None) -> Drawn:
        """Item `index` of the stream `seed`."""
        rng = np.random.default_rng([seed, index])
        whole = self._stretch(rng)
        mix = whole.copy()
        for _ in range(rng.integers(*self.spec.patches, endpoint=True)):
            self._remove(mix, rng)
        return Drawn(mix, {"mixture": whole})

    def _stretch(self, rng):
        """A stretch (C, T) of a recording that is loud enough."""
        spec = self.spec
        samples = round(spec.duration_s * spec.sample_rate)
        for _ in range(TRIES):
            place = rng.random()
            _, sound = self._pool.draw_for(
                lambda path, at=place: self._read(path, samples, at), rng
            )
            if level.rms_db(sound, dtype=np.float32) >= spec.min_rms_db:
                return sound
        raise self._pool.too_quiet(spec.min_rms_db)

    def _read(self, path, samples, place):
        spec = self.spec
        frames, file_rate = self._headers[path]
        count = min(frames, math.ceil(samples * file_rate / spec.sample_rate))
        start = int(place * (frames - count + 1))
        sound, _ = stored.read(path, start=start, stop=start + count, sample_rate=spec.sample_rate)
        if spec.channels == 1 or len(sound) > 2:
            sound = sound.mean(axis=0, keepdims=True)
        out = np.zeros((spec.channels, samples), np.float32)
        out[:, : sound.shape[1]] = sound[:, :samples]
        return out

    def _remove(self, mix, rng):
        """Take a patch of the spectrogram out of `mix` (C, T)."""
        spec, T = self.spec, mix.shape[1]
        size = min(T, max(2, round(rng.uniform(*spec.patch_s) * spec.sample_rate)))
        start = int(rng.random() * (T - size + 1))
        octaves = rng.uniform(*spec.patch_octaves)
        top = max(LOWEST_HZ, spec.sample_rate / 2 / 2**octaves)
        low_hz = LOWEST_HZ * (top / LOWEST_HZ) ** rng.random()
        fade = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 0.25  # short at both ends
        spectrum = fft.rfft(mix[:, start : start + size] * fade.astype(np.float32))
        low, high = (
            math.ceil(hz * size / spec.sample_rate) for hz in (low_hz, low_hz * 2**octaves)
        )
        spectrum[:, :low] = 0
        spectrum[:, high:] = 0
        mix[:, start : start + size] -= fft.irfft(spectrum, size).astype(np.float32)
