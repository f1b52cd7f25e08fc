"""Batches of mixtures made on the device that trains, from excerpts that are kept in memory.

Every step pairs other excerpts, at other places, speeds, levels, through other equalisers and
rooms.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sepcli.data import batched, memory
from sepcli.data.kept import Kept, Making
from sepcli.data.specs import ExcerptSpec
from sepcli.dsp import level

VOICE, NOISE, SECOND, BABBLE, ROOM, MIX, VOICE_GAINS, NOISE_GAINS = range(
    8
)  # parts of an item with numbers of their own
PARTS = 8


class Excerpts(Kept):
    """Mixtures by number, and whole batches of them on any device."""

    settings, memory = ExcerptSpec, memory

    def draw_many(
        self, seed: int, indices: Sequence[int], device: str = "cpu"
    ) -> tuple[Any, dict[str, Any]]:
        """Items of the stream `seed`: (mix (B, 1, T), {"speech", "noise"}: (B, 1, T)).

        On a CPU the same bits for the same arguments, on other devices up to rounding.
        """
        kept, draws = self._begun(seed, indices, device, PARTS)
        mix, wanted, noise = _Batch(self.spec, kept, draws, self.samples).make()
        return mix[:, None], {"speech": wanted[:, None], "noise": noise[:, None]}


class _Batch(Making):
    """One batch in the making: signals are (B, T), of one number for each item (B, 1)."""

    def __init__(self, spec, kept, draws, samples):
        super().__init__(spec, kept, draws, samples, kept.speech.device)
        self.time = torch.arange(samples, device=self.device) / samples  # 0 to 1

    def make(self):
        """(mixture, reference of the speech, noise)."""
        spec, draws = self.spec, self.draws[MIX]
        channel = self._low_pass(draws, spec.low_pass_prob)
        heard, wanted = self._speech(channel)
        noise = self._noise(channel)
        snr_db, level_db = draws.uniform(*spec.snr_db), draws.uniform(*spec.level_db)
        wide_db = draws.uniform(*spec.wide_level_db)
        level_db = np.where(draws.happens(spec.wide_level_prob), wide_db, level_db)
        sign = np.where(draws.happens(0.5), -1, 1)
        ratio = (batched.power(heard) / batched.power(noise)).sqrt()
        noise = noise * (ratio * self._tensor(sign * level.multiplier(-snr_db)))
        mix = heard + noise
        gain = self._tensor(level.multiplier(level_db)) / batched.power(mix).sqrt()
        return self._clipped(gain * mix, draws), gain * wanted, gain * noise

    def _clipped(self, mix, draws):
        """Mixtures, some of them softly clipped."""
        spec = self.spec
        clipped, share = draws.happens(spec.clip_prob), draws.uniform(*spec.clip)
        if not clipped.any():
            return mix
        rows = self._rows(clipped)
        bent = batched.soft_clipped(mix[rows], self._tensor(share[clipped]))
        return mix.index_copy(0, rows, bent)

    def _speech(self, channel):
        """Speech as it is heard, and what the model shall make of it."""
        spec, draws = self.spec, self.draws[VOICE]
        spectrum = self._crop(self.kept.speech, draws, spec.speed, spec.speed_prob)
        return self._spoken(spectrum, channel, draws, self.draws[VOICE_GAINS])

    def _spoken(self, spectrum, channel, draws, gain_draws):
        """The same of transforms (B, F) of speech."""
        spec = self.spec
        curve = self._equaliser(draws, spec.equaliser_db, spec.equaliser_prob)
        curve = channel * curve * self._low_pass(draws, spec.speech_low_pass_prob)
        speech = self._filtered(spectrum, curve)
        late = draws.uniform() * draws.happens(spec.late_speech)
        if late.any():
            speech *= self.time >= self._tensor(late)
        speech = self._varied(speech, gain_draws, spec.varying_db, spec.varying_prob)
        return self._in_room(speech, spec.rir_prob, spec.target)

    def _noise(self, channel):
        """One noise or two, as they are heard."""
        spec, draws, second = self.spec, self.draws[NOISE], self.draws[SECOND]
        noise = self._one_noise(draws, self.draws[BABBLE])
        both, softer_db = second.happens(spec.second_noise), second.uniform(*spec.second_noise_db)
        if both.any():
            rows, gain = self._rows(both), self._tensor(level.multiplier(softer_db[both]))
            other = self._one_noise(second.of(both))
            noise[rows] = self._loud(noise[rows]) + gain * self._loud(other)
        curve = self._equaliser(draws, spec.noise_equaliser_db, spec.noise_equaliser_prob)
        noise = self._changed(self._filtered(noise, channel * curve), draws)
        gains = self.draws[NOISE_GAINS], spec.noise_varying_db, spec.noise_varying_prob
        noise = self._varied(noise, *gains)
        return self._in_room(noise, spec.noise_rir_prob)[0]

    def _one_noise(self, draws, babble=None):
        """The transforms (B, F) of one noise for each item, here and there of voices."""
        spec = self.spec
        noise = self._crop(self.kept.noise, draws, spec.noise_speed, spec.noise_speed_prob)
        if babble is not None and (voices := babble.happens(spec.babble)).any():
            noise[self._rows(voices)] = self._babble(babble.of(voices))
        return noise

    def _babble(self, draws):
        """The sum of some voices, of which some are up to 10 dB softer."""
        low, high = map(int, self.spec.babble_voices)
        count, total = draws.whole(low, high), 0.0
        for k in range(high):
            voice = self._crop(self.kept.speech, draws)
            gain = level.multiplier(draws.uniform(-10, 0)) * (k < count)
            total = total + voice * self._tensor(gain)
        return total

    def _changed(self, noise, draws):
        """Noise that begins or ends somewhere, now and then."""
        changes, place = draws.happens(self.spec.noise_change), draws.uniform()
        softer = np.where(changes, level.multiplier(draws.uniform(-60, -10)), 1)
        begins = draws.happens(0.7)
        if not changes.any():
            return noise
        before, after = np.where(begins, softer, 1), np.where(begins, 1, softer)
        early = self.time < self._tensor(place)
        return noise * torch.where(early, self._tensor(before), self._tensor(after))

    def _crop(self, stored, draws, speed=(1.0, 1.0), probability=0.0):
        """The transforms (B, F) of crops of what is stored."""
        rows, starts = draws.whole(0, len(stored) - 1), draws.uniform()
        speeds = self._speeds(draws, speed, probability)
        return batched.spectra(stored, rows, starts, self.samples, speeds)

    def _speeds(self, draws, speed, probability):
        """How much faster each is played, (B,)."""
        speeds = np.ones(len(draws))
        if probability:
            speeds = np.where(draws.happens(probability), draws.uniform(*speed), speeds)
        return speeds

    def _loud(self, spectrum):
        """A transform with the mean power 1."""
        return spectrum / batched.mean_power(spectrum, self.samples).sqrt()

    def _filtered(self, spectrum, curve):
        """The signals of transforms (B, F) that go through frequency responses (B, CURVE)."""
        if (curve != 1).any():
            spectrum *= batched.resized(self._tensor(curve)[:, 0], spectrum.shape[1])
        return torch.fft.irfft(spectrum, self.samples)

    def _in_room(self, signal, probability, target="reverb"):
        """Signals as they are heard, some of them in rooms, and their references."""
        draws, responses = self.draws[ROOM], self.kept.rooms
        inside, room = draws.happens(probability), draws.whole(0, max(0, len(responses) - 1))
        if not inside.any():
            return signal, signal
        rows = self._rows(inside)
        chosen = responses[torch.from_numpy(room[inside]).to(self.device)]  # (B', V, R)
        size = batched.fast_size(self.samples + chosen.shape[-1])
        spectrum = torch.fft.rfft(signal[rows], size)[:, None] * torch.fft.rfft(chosen, size)
        wet = torch.fft.irfft(spectrum, size)[..., : self.samples]
        heard = signal.index_copy(0, rows, wet[:, 0])
        if target == "decayed":
            return heard, signal.index_copy(0, rows, wet[:, 1])
        return heard, signal if target == "dry" else heard
