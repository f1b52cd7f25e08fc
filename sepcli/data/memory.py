"""Excerpts of recordings and impulse responses of rooms, read once and kept in memory.

What is kept is a function of the settings and the seed. int16 takes 1.9 MB per minute at 16 kHz.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from sepcli.data.specs import ExcerptSpec, VoiceSpec
from sepcli.dsp import decay, room
from sepcli.errors import SepcliError
from sepcli.mixing import synthetic
from sepcli.mixing.mixtures import VOICES
from sepcli.recordings import stored
from sepcli.recordings.pools import Pool

PEAK = 0.9  # of an excerpt: what is loud enough for int16 says nothing of how loud it will be
SPEECH, NOISE, ROOMS, VOICES_OF_CAST = (
    1,
    2,
    3,
    4,
)  # generators of their own, so that none depends on the others


@dataclass(frozen=True)
class Memory:
    """speech, noise: int16 (M, L). rooms: float32 (K, V, R), V = 1 or 2.

    The first of a room's responses has its direct sound at sample 0, the second, where there is
    one, is the first with a shorter decay.
    each, targets: of speech by speakers, how many excerpts there are of each half of what each
    says, and how many of the speakers, which come first, have two halves.
    """

    speech: torch.Tensor
    noise: torch.Tensor
    rooms: torch.Tensor
    each: int = 0
    targets: int = 0

    def to(self, device: str | torch.device) -> Self:
        """The same on another device."""
        kept = {name: getattr(self, name).to(device) for name in ("speech", "noise", "rooms")}
        return replace(self, **kept)


def find(spec: ExcerptSpec) -> dict[str, Pool | None]:
    """{"speech", "noise", "rir": the `Pool` of an `ExcerptSpec`, None for what is synthetic}.

    Raises SepcliError where there is no audio.
    """
    sources = {"speech": spec.speech, "noise": spec.noise, "rir": spec.rir}
    return {what: Pool(paths, what=what) if paths else None for what, paths in sources.items()}


def load(spec: ExcerptSpec, pools: dict[str, Pool | None], seed: int) -> Memory:
    """The `Memory` of an `ExcerptSpec` and what `find` has found for it."""
    count = [round(60 * m / spec.excerpt_s) for m in (spec.speech_minutes, spec.noise_minutes)]
    rooms = spec.rooms if spec.rir_prob or spec.noise_rir_prob else 0
    generators = [np.random.default_rng([seed, part]) for part in (SPEECH, NOISE, ROOMS)]
    return Memory(
        _excerpts(_speech_maker(spec, pools["speech"]), count[0], generators[0]),
        _excerpts(_noise_maker(spec, pools["noise"]), count[1], generators[1]),
        _rooms(spec, pools["rir"], rooms, generators[2]),
    )


def load_voices(spec: VoiceSpec, pools: dict[str, Pool | None], cast: Any, seed: int) -> Memory:
    """The `Memory` of a `VoiceSpec`: excerpts by speaker, in halves of as many each.

    cast: the speakers. Those who have one recording alone come last; see `Memory.targets`.
    """
    kept = load(replace(spec, speech=(), speech_minutes=spec.excerpt_s / 60), pools, seed)
    rng = np.random.default_rng([seed, VOICES_OF_CAST])
    halves = [cast.utterances(name, rng) for name in cast.names()]
    halves.sort(key=lambda pair: pair[1] == [])
    targets = sum(enrolled != [] for _, enrolled in halves)
    each = max(1, round(60 * spec.speech_minutes / spec.excerpt_s / (2 * len(halves))))
    samples = round(spec.excerpt_s * spec.sample_rate)

    def says(half):
        return lambda rng: cast.say(half, samples, spec.sample_rate, rng, 0)[0]

    rows = [
        _excerpts(says(half), each, rng)
        for said, enrolled in halves
        for half in (said, said if enrolled == [] else enrolled)
    ]
    return replace(kept, speech=torch.cat(rows), each=each, targets=targets)


def _excerpts(make, count, rng):
    """`count` of what `make` makes, int16 (count, L)."""
    rows = []
    for _ in range(count):
        signal = make(rng)  # (L,)
        signal = signal * (32767 * PEAK / max(1e-9, np.abs(signal).max()))
        rows.append(torch.from_numpy(np.round(signal).astype(np.int16)))
    return torch.stack(rows)


def _speech_maker(spec, pool):
    samples, rate = round(spec.excerpt_s * spec.sample_rate), spec.sample_rate
    if pool is None:
        return lambda rng: synthetic.speech(samples, rate, rng, int(rng.integers(VOICES)))
    return lambda rng: pool.crop(samples, rate, rng, min_rms_db=spec.min_rms_db)[0]


def _noise_maker(spec, pool):
    samples, rate = round(spec.excerpt_s * spec.sample_rate), spec.sample_rate

    def make(rng):
        if pool is None or rng.random() < spec.made_noise:
            kind = synthetic.draw_noise_kind(rng)
            return synthetic.noise(samples, rate, rng, kind)
        if rng.random() < spec.repeat_prob:
            return _repeated(pool, samples, rng, spec)
        return pool.crop(samples, rate, rng, min_rms_db=spec.min_rms_db)[0]

    return make


def _repeated(pool, samples, rng, spec):
    """One recording (L,), and if that is short again and again, with pauses."""
    recording = pool.draw(rng)
    frames, rate = stored.header(recording)
    length = min(samples, max(1, frames * spec.sample_rate // rate))
    quietest = {"min_rms_db": spec.min_rms_db, "among": [recording]}
    sound, _ = pool.crop(length, spec.sample_rate, rng, **quietest)
    if length == samples:
        return sound
    out, at = np.zeros(samples, np.float32), -int(rng.integers(length))
    while at < samples:
        start, stop = max(0, at), min(samples, at + length)
        out[start:stop] = sound[start - at : stop - at]
        at += length + round(rng.uniform(*spec.pause_s) * spec.sample_rate)
    return out


def _rooms(spec, pool, count, rng):
    """Impulse responses (count, V, R), the second of each with a shorter decay if it is wanted."""
    taps = round(spec.rir_s * spec.sample_rate)
    views = 2 if spec.target == "decayed" else 1
    out = np.zeros((count, views, taps), np.float32)
    for rows in out:
        if pool is None or rng.random() < spec.made_rooms:
            rir, _ = synthetic.rir(spec.sample_rate, rng)
        else:
            rir = _recorded(pool, spec, rng)
        responses = [rir]
        if views == 2:
            responses.append(decay.decay_rir(rir, spec.sample_rate, rt60_s=spec.rir_decay_s))
        for row, response in zip(rows, responses, strict=True):
            row[: len(response)] = response[:taps]
    return torch.from_numpy(out)


def _recorded(pool, spec, rng):
    """A recorded response (R,) from its direct sound on, which is 1; shortened or not."""
    path = pool.draw(rng)
    rir = stored.read(path, sample_rate=spec.sample_rate)[0][0]
    if not rir.any():
        raise SepcliError(f"{path}: silent, so it is not an impulse response; remove it")
    tap = room.main_tap(rir)
    rir = rir[tap:] / rir[tap]
    if rng.random() < spec.shorten_prob:
        return decay.decay_rir(rir, spec.sample_rate, rt60_s=float(rng.uniform(*spec.shorten_s)))
    return rir
