"""Batches of songs made on the device that trains, from excerpts that are kept in memory.

Every step sets other voices over other music, at other places, speeds and levels, through other
equalisers and halls. Item i is a function of (seed, i), as everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sepcli.data import batched
from sepcli.data.kept import Kept, Making
from sepcli.data.songs import memory
from sepcli.data.songs.spec import SongSpec
from sepcli.dsp import level
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS

VOICE, SECOND, MUSIC, HALL, MIX, VOICE_GAINS, MUSIC_GAINS = range(7)  # parts of an item
PARTS = 7
LATER = 0.04  # of what a voice may begin later than itself, of all places there are
DETUNED = 0.012  # largest difference in speed of such a voice


class Songs(Kept):
    """Songs by number, and whole batches of them on any device."""

    settings, memory = SongSpec, memory

    def draw_many(
        self, seed: int, indices: Sequence[int], device: str = "cpu"
    ) -> tuple[Any, dict[str, Any]]:
        """Items of the stream `seed`: (mix (B, 2, T), {"vocals", "accompaniment"}: (B, 2, T)).

        On a CPU the same bits for the same arguments, on other devices up to rounding.
        """
        kept, draws = self._begun(seed, indices, device, PARTS)
        vocals, music = _Batch(self.spec, kept, draws, self.samples).make()
        return vocals + music, {VOCALS: vocals, ACCOMPANIMENT: music}


class _Batch(Making):
    """One batch in the making: signals are (B, 2, T), their transforms (B, 2, F)."""

    axes = 2

    def __init__(self, spec, kept, draws, samples):
        super().__init__(spec, kept, draws, samples, kept.vocals.device)

    def make(self):
        """(vocals, accompaniment)."""
        spec, kept, draws = self.spec, self.kept, self.draws[MIX]
        voice, music = self.draws[VOICE], self.draws[MUSIC]
        rows, starts = voice.whole(0, len(kept.vocals) - 1), voice.uniform()
        speeds = self._speeds(voice, spec.speed)
        together = draws.happens(spec.together) & (rows < kept.songs)
        music_rows = music.whole(0, len(kept.music) - 1)
        music_starts, music_speeds = music.uniform(), self._speeds(music, spec.music_speed)
        music_rows = np.where(together, rows, music_rows)
        music_starts = np.where(together, starts, music_starts)
        music_speeds = np.where(together, speeds, music_speeds)
        vocals = self._crop(kept.vocals, rows, starts, speeds)
        played = self._crop(kept.music, music_rows, music_starts, music_speeds)
        before = self._mean_power(played)
        channel = self._low_pass(draws, spec.low_pass_prob)
        vocals = self._sung(vocals, channel, rows, starts, speeds)
        played = self._played(played, channel)
        return self._balanced(vocals, played, together, before)

    def _balanced(self, vocals, music, together, before):
        """Both at the levels that they have in the mixture."""
        spec, draws = self.spec, self.draws[MIX]
        own = self._tensor(level.multiplier(draws.uniform(*spec.gain_db)))
        wanted = self._tensor(level.multiplier(draws.uniform(*spec.vocals_db)))
        ratio = (_power(vocals) / _power(music)).sqrt()
        as_it_was = own * (before / _power(music)).sqrt()  # what equalisers did to it is undone
        music = music * torch.where(self._tensor(together) > 0, as_it_was, ratio / wanted)
        absent, alone = draws.happens(spec.instrumental), draws.happens(spec.alone)
        vocals = vocals * self._tensor(~absent)
        music = music * self._tensor(~(alone & ~absent))
        vocals = vocals * self._pauses(draws)
        level_db = draws.uniform(*spec.level_db)
        gain = self._tensor(level.multiplier(level_db)) / _power(vocals + music).sqrt()
        return gain * vocals, gain * music

    def _pauses(self, draws):
        """Gains (B, 1, T), of which some are 0 before or after a place."""
        place, first = self._tensor(draws.uniform()), self._tensor(draws.happens(0.5))
        paused = self._tensor(draws.happens(self.spec.pause_prob))
        time = torch.arange(self.samples, device=self.device) / self.samples
        silent = torch.where(first > 0, time < place, time > place)
        return torch.where(silent, 1 - paused, 1.0)

    def _sung(self, spectrum, channel, rows, starts, speeds):
        """Vocals as they are heard: one voice or two, panned, in a hall."""
        spec, voice, second = self.spec, self.draws[VOICE], self.draws[SECOND]
        spectrum = self._panned(spectrum, voice)
        others = second.happens(spec.second_prob)
        if others.any():
            chosen = second.of(others)
            doubled = chosen.happens(spec.doubled_prob)
            row = np.where(doubled, rows[others], chosen.whole(0, len(self.kept.vocals) - 1))
            later = np.clip(starts[others] + LATER * chosen.uniform(), 0, 1)
            start = np.where(doubled, later, chosen.uniform())
            speed = np.clip(speeds[others] * (1 + chosen.uniform(-DETUNED, DETUNED)), *spec.speed)
            other = self._panned(self._crop(self.kept.vocals, row, start, speed), chosen)
            gain = self._tensor(level.multiplier(chosen.uniform(*spec.second_db)))
            at = self._rows(others)
            gain = gain * (self._mean_power(spectrum[at]) / self._mean_power(other)).sqrt()
            spectrum[at] = spectrum[at] + gain * other
        curve = self._equaliser(voice, spec.equaliser_db, spec.equaliser_prob)
        vocals = self._filtered(spectrum, channel * curve)
        gains = self.draws[VOICE_GAINS], spec.varying_db, spec.varying_prob
        return self._in_hall(self._varied(vocals, *gains))

    def _played(self, spectrum, channel):
        """The accompaniment as it is heard."""
        spec, draws = self.spec, self.draws[MUSIC]
        middle, side = spectrum.sum(1) / 2, (spectrum[:, 0] - spectrum[:, 1]) / 2
        side = side * self._tensor(draws.uniform(*spec.width))[:, 0]
        spectrum = self._swapped(torch.stack([middle + side, middle - side], 1), draws)
        curve = self._equaliser(draws, spec.music_equaliser_db, spec.equaliser_prob)
        gains = self.draws[MUSIC_GAINS], spec.varying_db, spec.varying_prob
        return self._varied(self._filtered(spectrum, channel * curve), *gains)

    def _crop(self, stored, rows, starts, speeds):
        """The transforms (B, 2, F) of crops of what is stored (M, 2, L)."""
        lines = np.stack([2 * rows, 2 * rows + 1], 1).ravel()
        starts, speeds = np.repeat(starts, 2), np.repeat(speeds, 2)
        found = batched.spectra(stored.flatten(0, 1), lines, starts, self.samples, speeds)
        return found.unflatten(0, (-1, 2))

    def _speeds(self, draws, speed):
        """How much faster each is played, (B,)."""
        changed = draws.happens(self.spec.speed_prob)
        return np.where(changed, draws.uniform(*speed), 1.0)

    def _panned(self, spectrum, draws):
        """Voices with other gains in both channels, and these swapped."""
        most = self.spec.pan_db / 2
        gains = level.multiplier(draws.uniform(-most, most))
        gains = torch.cat([self._tensor(gains), self._tensor(1 / gains)], 1)
        return self._swapped(spectrum * gains, draws)

    def _swapped(self, x, draws):
        """(B, 2, F) with left and right swapped, half of them."""
        swapped = self._tensor(draws.happens(0.5) & self.spec.swap) > 0
        return torch.where(swapped, x.flip(1), x)

    def _filtered(self, spectrum, curve):
        """The signals of transforms (B, 2, F) that go through frequency responses (B, CURVE)."""
        if (curve != 1).any():
            curve = torch.from_numpy(curve.astype(np.float32)).to(self.device)
            spectrum = spectrum * batched.resized(curve, spectrum.shape[-1])[:, None]
        return torch.fft.irfft(spectrum, self.samples)

    def _in_hall(self, signal):
        """Voices, some of them with what a hall adds to them."""
        spec, draws, halls = self.spec, self.draws[HALL], self.kept.halls
        inside, hall = draws.happens(spec.hall_prob), draws.whole(0, len(halls) - 1)
        gain = level.multiplier(draws.uniform(*spec.hall_db))[inside]
        if not inside.any():
            return signal
        rows = self._rows(inside)
        dry, chosen = signal[rows], halls[torch.from_numpy(hall[inside]).to(self.device)]
        size = batched.fast_size(self.samples + halls.shape[-1])
        wet = torch.fft.irfft(torch.fft.rfft(dry, size) * torch.fft.rfft(chosen, size), size)
        return signal.index_copy(0, rows, dry + self._tensor(gain) * wet[..., : self.samples])

    def _mean_power(self, spectrum):
        """Mean squares (B, 1, 1) of the signals with these transforms (B, 2, F)."""
        flat = batched.mean_power(spectrum.flatten(0, 1), self.samples)
        return flat.unflatten(0, (-1, 2)).mean(1, keepdim=True)


def _power(x):
    """Mean squares (B, 1, 1) of signals (B, 2, T), not below TINY."""
    return x.square().mean((1, 2), keepdim=True).clamp(min=batched.TINY)
