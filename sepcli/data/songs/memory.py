"""Excerpts of songs, of voices and of music, read once and kept in memory.

What is kept is a function of the settings and the seed. int16 takes 11 MB per minute of stereo at
44.1 kHz.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from sepcli.data.masked import Masked, MaskedSpec
from sepcli.data.songs.spec import SongSpec
from sepcli.mixing import synthetic
from sepcli.mixing.mixtures import VOICES
from sepcli.mixing.music import StemMixer
from sepcli.mixing.specs import StemSpec
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS

PEAK = 0.9  # of an excerpt, of a song that of its mixture
SONGS, VOCALS_ALONE, MUSIC_ALONE, HALLS = range(1, 5)  # streams of their own
DIRECT_S = 0.02  # before a hall answers


@dataclass(frozen=True)
class Memory:
    """vocals, music: int16 (M, 2, L); the first `songs` of both are of the same songs.

    halls: float32 (K, 2, R), of an energy of 1 in each channel.
    """

    vocals: torch.Tensor
    music: torch.Tensor
    halls: torch.Tensor
    songs: int

    def to(self, device: str | torch.device) -> Self:
        """The same on another device."""
        kept = {name: getattr(self, name).to(device) for name in ("vocals", "music", "halls")}
        return replace(self, **kept)


def find(spec: SongSpec) -> dict[str, Any]:
    """{"songs", "vocals", "music": the `Source` of such excerpts} of those that are named.

    Raises SepcliError where there is no audio.
    """
    found = {}
    common: dict[str, Any] = {"duration_s": spec.excerpt_s, "sample_rate": spec.sample_rate}
    if spec.songs:
        targets = (VOCALS, ACCOMPANIMENT)
        stems = StemSpec(stems=spec.songs, targets=targets, peak=PEAK, **common)
        found["songs"] = StemMixer(stems)
    for name in ("vocals", "music"):
        if recordings := getattr(spec, name):
            alone = {"recordings": recordings, "min_rms_db": spec.min_rms_db, "patches": 0}
            found[name] = Masked(MaskedSpec(**alone, **common))
    return found


def load(spec: SongSpec, sources: dict[str, Any], seed: int) -> Memory:
    """The `Memory` of a `SongSpec` and what `find` has found for it."""
    if not sources:
        return _made(spec, seed)
    vocals, music = [], []
    for index in range(_count(spec, "songs") if "songs" in sources else 0):
        drawn = sources["songs"].draw(seed, index).refs
        pair = np.stack([drawn[VOCALS], drawn[ACCOMPANIMENT]])
        pair = _stored(pair, np.abs(pair).sum(0).max())
        vocals.append(pair[0])
        music.append(pair[1])
    songs = len(vocals)
    for name, rows in (("vocals", vocals), ("music", music)):
        for index in range(_count(spec, name) if name in sources else 0):
            alone = sources[name].draw(seed, index).refs["mixture"]
            rows.append(_stored(alone, np.abs(alone).max()))
    return Memory(torch.stack(vocals), torch.stack(music), _halls(spec, seed), songs)


def _count(spec, name):
    """How many excerpts there are."""
    return max(1, round(60 * getattr(spec, f"{name}_minutes") / spec.excerpt_s))


def _stored(x, peak):
    """x as int16, `peak` becoming PEAK of full scale."""
    return torch.from_numpy(np.round(x * (32767 * PEAK / max(1e-9, peak))).astype(np.int16))


def _made(spec, seed):
    """Synthetic voices, and noises for music."""
    samples, rate = round(spec.excerpt_s * spec.sample_rate), spec.sample_rate

    def voice(rng):
        return synthetic.speech(samples, rate, rng, int(rng.integers(VOICES)))

    def noise(rng):
        return synthetic.noise(samples, rate, rng, synthetic.draw_noise_kind(rng))

    rows = []
    for name, make, stream in (("vocals", voice, VOCALS_ALONE), ("music", noise, MUSIC_ALONE)):
        rng = np.random.default_rng([seed, stream])
        made = [np.stack([make(rng)] * 2) for _ in range(_count(spec, name))]
        rows.append(torch.stack([_stored(x, np.abs(x).max()) for x in made]))
    vocals, music = rows
    return Memory(vocals, music, _halls(spec, seed), 0)


def _halls(spec, seed):
    """Responses (K, 2, R) of halls without their direct sound: noise that dies away, and its highs
    faster.
    """
    rng = np.random.default_rng([seed, HALLS])
    time = np.arange(round(spec.hall_s * spec.sample_rate)) / spec.sample_rate
    halls = np.zeros((spec.halls, 2, len(time)), np.float32)
    for hall in halls:
        rt60 = np.exp(rng.uniform(*np.log(spec.rt60_s)))
        for share in (1.0, 0.4):  # a dull part, and a bright one that dies sooner
            noise = rng.standard_normal((2, len(time)))
            part = np.diff(noise, prepend=0) if share < 1 else _smoothed(noise)
            hall += part * 10 ** (-3 * time / (rt60 * share))
        hall[:, : round(rng.uniform(0.1, 1) * DIRECT_S * spec.sample_rate)] = 0
        hall /= np.sqrt((hall**2).sum(1, keepdims=True)) + 1e-9
    return torch.from_numpy(halls)


def _smoothed(noise):
    """(2, T) without most of its highs."""
    kernel = np.hanning(18)[1:-1]
    return np.stack([np.convolve(row, kernel / kernel.sum(), "same") for row in noise])
