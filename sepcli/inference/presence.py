"""Whether the speaker who is extracted is there at all, and was not taken for another one."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli.dsp import level
from sepcli.inference.blockwise import Separates, with_mixture
from sepcli.signals.resampling import resample

STRETCH_S = 4.0  # that is judged by itself
FADE_S = 0.02  # between stretches that are treated differently
# Of models that cannot tell voices apart, the level of the estimate re the mixture decides:
LIKELY_DB, SLOPE_DB = -12.0, 2.0
# Of others, what resembles the references is the likelier to be there the louder it came out:
USUAL_DB, ODDS_PER_DB = -7.0, 0.36  # re the mixture; fitted to two speakers and noise
SILENT_DB = -60.0  # re the mixture: nobody is there, whatever the noise that is left resembles


@dataclass(frozen=True)
class Stretch:
    """A part of a recording: where it is in seconds, and how sure it is that the speaker is there.

    energy: of the estimate. swapped: whether the rest of the mixture took its place.
    """

    start_s: float
    end_s: float
    presence: float
    energy: float
    swapped: bool = False


class Watched(Separates):
    """A separator of one source that judges every stretch of its estimate, for one recording.

    model: the separator that was given the references. trust: from 0 to 1, what a presence is
        multiplied by, as for references that are not speech. absent_threshold: stretches of a lower
        presence are made silent. confusion_check: where the rest of the mixture is more likely to
        be the speaker than the estimate, it takes its place: Zhao et al., "Target confusion in
        end-to-end speaker extraction", Interspeech 2022. Only models that tell voices apart can.

    After `blocks`, `stretches` says what was found.
    """

    def __init__(
        self,
        separator: Separates,
        model: Any,
        *,
        trust: float = 1.0,
        absent_threshold: float = 0.0,
        confusion_check: bool = False,
    ) -> None:
        self.separator, self.model, self.sources = separator, model, separator.sources
        self._trust, self._threshold, self._check = trust, absent_threshold, confusion_check
        self.stretches: list[Stretch] = []

    @property
    def presence(self) -> float:
        """How sure it is that the speaker is in the recording: the mean, louder stretches more."""
        energy = sum(each.energy for each in self.stretches)
        return sum(each.energy * each.presence for each in self.stretches) / energy if energy else 0

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`, with a stretch or more at a time."""
        self.stretches, before = [], None
        for mixture, estimate in self._in_stretches(blocks, sample_rate, channels):
            rest = _without(mixture, estimate)
            stretch = self._judge(mixture, estimate, rest, sample_rate)
            self.stretches.append(stretch)
            present = stretch.presence >= self._threshold
            shares = np.array([present and not stretch.swapped, present and stretch.swapped], float)
            before = shares if before is None else before
            yield _mixed(estimate, rest, before, shares, round(FADE_S * sample_rate))[None]
            before = shares

    def _in_stretches(self, blocks, sample_rate, channels):
        """Stretches of mixture and estimate (C, n); the last has up to half as much more.

        They begin at multiples of a length, whatever blocks come in.
        """
        size = max(1, round(STRETCH_S * sample_rate))
        heard = np.zeros((2, channels, 0), np.float32)
        for mixture, (estimate,) in with_mixture(self.separator, blocks, sample_rate, channels):
            heard = np.concatenate([heard, [mixture, estimate]], -1)
            while heard.shape[-1] >= 1.5 * size:
                yield heard[..., :size]
                heard = heard[..., size:]
        if heard.shape[-1]:
            yield heard

    def _judge(self, mixture, estimate, rest, sample_rate):
        """The `Stretch` of a mixture, an estimate and the rest (C, n)."""
        start = self.stretches[-1].end_s if self.stretches else 0.0
        place = start, start + mixture.shape[1] / sample_rate
        likely, swapped = self._likely(mixture, estimate, sample_rate), False
        if self._check and (other := self._likely(mixture, rest, sample_rate)) > likely:
            estimate, likely, swapped = rest, other, True
        if self.model.compares:
            likely = _louder_is_likelier(likely, _level_db(mixture, estimate))
        energy = level.mean_square(estimate) * estimate.size
        return Stretch(*place, self._trust * likely, energy, swapped)

    def _likely(self, mixture, signal, sample_rate):
        """How likely `signal` (C, n) is the speaker."""
        level_db = _level_db(mixture, signal)
        if not self.model.compares:
            return _logistic((level_db - LIKELY_DB) / SLOPE_DB)
        if level_db < SILENT_DB:
            return 0.0
        audio = resample(signal.mean(0, keepdims=True), sample_rate, self.model.sample_rate)
        return self.model.resemblance(audio)


def _level_db(mixture, signal):
    """The level of a signal re the mixture (C, n); -inf where that is silent."""
    there = level.mean_square(mixture)
    if not there:
        return -math.inf
    return level.to_db(level.mean_square(signal) / there, least=level.TINY)


def _louder_is_likelier(likely, level_db):
    """A probability whose odds grow with the level."""
    if not 0 < likely < 1:
        return likely
    return _logistic(math.log(likely / (1 - likely)) + ODDS_PER_DB * (level_db - USUAL_DB))


def _logistic(x):
    return 1 / (1 + math.exp(min(700.0, -x)))


def _without(mixture, estimate):
    """The mixture without the estimate (C, n), as loud as it is in there.

    The gain that leaves least of the mixture: models that learned by SI-SDR alone have any.
    """
    energy = np.sum(estimate * estimate, dtype=float)
    gain = np.sum(mixture * estimate, dtype=float) / energy if energy else 0.0
    return mixture - np.float32(gain) * estimate


def _mixed(estimate, rest, before, after, fade):
    """Shares of the estimate (C, n) and of the rest: first `before`, after a fade `after`."""
    if before[0] == after[0] == 1:
        return estimate
    rising = np.clip((np.arange(estimate.shape[1]) + 0.5) / max(1, fade), 0, 1)
    shares = before[:, None] + (after - before)[:, None] * rising  # (2, n)
    return (shares[0] * estimate + shares[1] * rest).astype(np.float32)
