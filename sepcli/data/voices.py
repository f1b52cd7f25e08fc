"""Batches of several people at once, one of them the target, and enrolments of the target.

They are made on the device that trains, as in `excerpts`, from excerpts of each speaker in memory.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sepcli.data import batched, excerpts, memory
from sepcli.data.excerpts import Excerpts
from sepcli.data.specs import VoiceSpec
from sepcli.dsp import level
from sepcli.mixing.speakers import cast_of

# Further parts of an item with numbers of their own; from OTHERS on, two for each of the others.
CAST, ENROL, ENROL_GAINS, ENROL_NOISE, OTHERS = range(excerpts.PARTS, excerpts.PARTS + 5)


class Voices(Excerpts):
    """Mixtures of speakers by number, and whole batches of them on any device."""

    settings = VoiceSpec

    def __init__(self, spec: VoiceSpec | None = None) -> None:
        """Look up the spec's sources; raises SepcliError where there are too few speakers."""
        super().__init__(spec)
        self._cast = cast_of(self._sources["speech"], self.spec)

    def _load(self, seed):
        return memory.load_voices(self.spec, self._sources, self._cast, seed)

    def draw_many(self, seed: int, indices: Sequence[int], device: str = "cpu") -> tuple[Any, ...]:
        """Items of the stream `seed`: (mix (B, 1, T), refs by name (B, 1, T)), and enrolments.

        The refs are "speech", the target, "interferers" and "noise"; the enrolments, where there
        are any, (B, 1, T'). On a CPU the same bits for the same arguments.
        """
        spec = self.spec
        last = OTHERS + 2 * int(spec.interferers[1])
        kept, draws = self._begun(seed, indices, device, last)
        cast = _Cast(draws[CAST], kept, spec)
        mix, refs = _Mixtures(spec, kept, draws, self.samples).of(cast)
        refs = {name: x[:, None] for name, x in refs.items()}
        if not spec.enroll:
            return mix[:, None], refs
        samples = round(spec.enroll_s * spec.sample_rate)
        enroll = _Enrolments(spec, kept, draws, samples).of(cast)
        return mix[:, None], refs, enroll[:, None]


class _Cast:
    """Who is heard in each item, (B,) each: rows of the memory, speeds, whether it is absent."""

    def __init__(self, draws, kept, spec):
        each, speakers = kept.each, len(kept.speech) // (2 * kept.each)
        low, high = map(int, spec.interferers)
        self.count = draws.whole(low, high)
        self.absent = draws.happens(spec.target_absent)
        target, half = draws.whole(0, kept.targets - 1), draws.whole(0, 1)
        self.target = (2 * target + half) * each + draws.whole(0, each - 1)
        self.enrolled = (2 * target + 1 - half) * each + draws.whole(0, each - 1)
        self.speeds = np.where(draws.happens(spec.speed_prob), draws.uniform(*spec.speed), 1.0)
        self.others, taken = [], [target]
        for _ in range(high):
            other = draws.whole(0, speakers - 1 - len(taken))
            for name in np.sort(taken, axis=0):  # count past those who are there already
                other = other + (other >= name)
            taken.append(other)
            self.others.append(2 * each * other + draws.whole(0, 2 * each - 1))


class _Mixtures(excerpts._Batch):
    """Signals are (B, T), of one number for each item (B, 1)."""

    def of(self, cast):
        """(mixture, {name: reference})."""
        spec, draws = self.spec, self.draws[excerpts.MIX]
        channel = self._low_pass(draws, spec.low_pass_prob)
        heard, wanted = self._voice(
            cast.target,
            cast.speeds,
            channel,
            self.draws[excerpts.VOICE],
            self.draws[excerpts.VOICE_GAINS],
        )
        present = self._tensor(np.where(cast.absent, 0.0, 1.0))
        heard, wanted = heard * present, wanted * present
        others = self._others(cast, channel)
        everyone = heard + others
        power = batched.power(everyone)
        noise, noisy = self._noise(channel), draws.happens(spec.noise_prob)
        ratio = (power / batched.power(noise)).sqrt()
        multiplier = level.multiplier(-draws.uniform(*spec.snr_db)) * noisy
        noise = noise * ratio * self._tensor(multiplier)
        mix, level_db = everyone + noise, draws.uniform(*spec.level_db)
        gain = self._tensor(level.multiplier(level_db)) / batched.power(mix).sqrt()
        refs = {"speech": wanted, "interferers": others, "noise": noise}
        return self._clipped(gain * mix, draws), {name: gain * x for name, x in refs.items()}

    def _others(self, cast, channel):
        """The sum of all that the others say."""
        total = 0.0
        for k, rows in enumerate(cast.others):
            draws, gains = self.draws[OTHERS + 2 * k], self.draws[OTHERS + 2 * k + 1]
            sir_db = draws.uniform(*self.spec.sir_db)
            speeds = self._speeds(draws, self.spec.speed, self.spec.speed_prob)
            heard, _ = self._voice(rows, speeds, channel, draws, gains)
            total = total + heard * self._tensor(level.multiplier(-sir_db) * (k < cast.count))
        return total

    def _voice(self, rows, speeds, channel, draws, gains):
        """One voice as it is heard, with the mean power 1, and what the model shall make of it."""
        starts = draws.uniform()
        spectrum = batched.spectra(self.kept.speech, rows, starts, self.samples, speeds)
        heard, wanted = self._spoken(spectrum, channel, draws, gains)
        scale = batched.power(heard).rsqrt()
        return heard * scale, wanted * scale


class _Enrolments(_Mixtures):
    def of(self, cast):
        """Enrolments (B, T')."""
        spec, draws = self.spec, self.draws[ENROL]
        channel = self._low_pass(draws, spec.low_pass_prob)
        heard, _ = self._voice(cast.enrolled, cast.speeds, channel, draws, self.draws[ENROL_GAINS])
        noisy, snr_db = draws.happens(spec.noisy_enroll), draws.uniform(*spec.enroll_snr_db)
        if noisy.any():
            noise = self._one_noise(self.draws[ENROL_NOISE])
            noise = self._filtered(self._loud(noise), np.ones((1, batched.CURVE)))
            heard = heard + noise * self._tensor(level.multiplier(-snr_db) * noisy)
        gain = self._tensor(level.multiplier(draws.uniform(*spec.level_db)))
        return heard * gain / batched.power(heard).sqrt()
