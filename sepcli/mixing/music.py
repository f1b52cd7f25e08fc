"""Music: stems of songs, cut, changed and mixed; item i is a function of (seed, i)."""

import math
import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from scipy import fft

from sepcli.dsp import level
from sepcli.dsp.tempo import change_tempo
from sepcli.errors import SepcliError
from sepcli.mixing.augmentations import AUGMENTATIONS
from sepcli.mixing.mixtures import Mixture, add, keep_memory
from sepcli.mixing.source import Source
from sepcli.mixing.specs import StemSpec
from sepcli.recordings import stored
from sepcli.recordings.pools import TRIES, Faults, Shares, one_of, split_weight
from sepcli.recordings.songs import Song, find_songs, listed, with_targets
from sepcli.samples.stems import ACCOMPANIMENT, stem_order

LOWEST_HZ = 50.0  # where a frequency mask may begin
FADE_S = 0.005  # at both ends of a time mask
_UNCHANGED = {"pitch": (0, 0), "stretch": (1, 1)}  # the ranges that leave a song as it is
_KEYS = {"time-mask": "time_mask_s", "freq-mask": "freq_mask_hz", "gain-db": "gain_db"}
_LENGTH = (0, 0, 1)  # of the generator of lengths: unlike those of items


class StemMixer(Source):
    """Music by number: `draw(seed, index)` depends on nothing but its arguments.

    faults: recordings that could not be read; see `Faults` for what becomes of them.
    """

    faults: Faults

    def __init__(self, spec: StemSpec) -> None:
        """Look up the songs; raises SepcliError where there are none, or they do not fit."""
        self.spec, self._ranges, self.faults = spec, spec.ranges(), Faults()
        self._songs, weights = [], []  # songs of each source
        for source in spec.stems:
            folder, weight = split_weight(source)
            self._songs.append(find_songs(folder, singles="remix" in self._ranges))
            weights.append(weight)
        self._parts = self._instruments()
        self._songs = [list(self._wanted(songs)) for songs in self._songs]
        self._shares, self._headers = Shares(weights), stored.Headers()
        self.names = self._common_names()
        self._having = {
            stem: [[song for song in songs if stem in song.stems] for songs in self._songs]
            for stem in self._stems()
        }

    def recordings(self) -> Iterator[Any]:
        """All stems of all songs."""
        songs = chain.from_iterable(self._songs)
        return chain.from_iterable(chain(*song.stems.values()) for song in songs)

    def _instruments(self):
        """The stems that make up an accompaniment whose instruments are drawn one by one, or ()."""
        targets, layouts = self.spec.targets, list(self._layouts())
        if "remix" not in self._ranges or ACCOMPANIMENT not in targets:
            return ()
        parts = {frozenset(stems) - {*targets} for _, stems in layouts}
        if len(parts) > 1 or any(ACCOMPANIMENT in stems for _, stems in layouts):
            return ()
        found = sorted(parts.pop(), key=stem_order)
        return tuple(found) if len(found) > 1 else ()

    def _layouts(self):
        """Yield (name, stems) of the songs; a source of single stems is as one song of all."""
        for songs in self._songs:
            if any(song.is_single for song in songs):
                name = os.path.commonpath([song.name for song in songs])
                yield name, {stem for song in songs for stem in song.stems}
            else:
                yield from ((song.name, set(song.stems)) for song in songs)

    def _wanted(self, songs):
        """The songs of a source `with_targets`; an accompaniment of `_parts` is left in these."""
        targets = self.spec.targets
        made = ACCOMPANIMENT in targets and not any(ACCOMPANIMENT in song.stems for song in songs)
        for song in songs:
            if song.is_single:
                [(stem, paths)] = song.stems.items()
                if stem in (*targets, *self._parts) or ACCOMPANIMENT not in targets:
                    yield song
                elif made:  # of the one instrument that it consists of
                    yield Song(song.name, {ACCOMPANIMENT: paths})
            elif self._parts:
                kept = {*with_targets(song, targets).stems, *self._parts}
                yield Song(song.name, {n: x for n, x in song.stems.items() if n in kept})
            else:
                yield with_targets(song, targets)

    def _common_names(self):
        """The names of the stems, which are those of every song."""
        (name, stems), *others = self._layouts()
        for other, found in others:
            if found != stems:
                raise SepcliError(
                    f"{other} has {listed(found)}, but {name} {listed(stems)}; "
                    "name targets that all have, such as vocals,accompaniment"
                )
        targets = self.spec.targets
        if missing := {*targets} - stems - ({ACCOMPANIMENT} if self._parts else set()):
            raise SepcliError(f"{name}: no {listed(missing)}, but {listed(stems)}")
        return [*targets, *sorted(stems - {*targets, *self._parts}, key=stem_order)]

    def _parts_of(self, name):
        """The stems that a signal of `names` is the sum of, each of them drawn by itself."""
        return self._parts if self._parts and name == ACCOMPANIMENT else (name,)

    def draw(self, seed: int, index: int, step: int | None = None) -> Mixture:
        """Item `index` of the stream `seed` (both ints, 0 or more): a `Mixture`, (C, T) each."""
        keep_memory()
        spec = self.spec

        def generator(*part):  # one for each part, so that none depends on the others
            return np.random.default_rng([seed, index, *part])

        rng = generator(1)
        duration_s, gain_db = (
            float(rng.uniform(*p)) for p in (spec.duration_s, spec.mixture_gain_db)
        )
        if step is not None:  # one length for all that may be in a batch
            rng = np.random.default_rng([seed, step, *_LENGTH])
            duration_s = float(rng.uniform(*spec.duration_s))
        samples = round(duration_s * spec.sample_rate)
        if "remix" in self._ranges:  # every stem has a place of its own
            places = [([name], partial(generator, 2, n)) for n, name in enumerate(self._stems())]
        else:
            places = [(self.names, partial(generator, 2, 0))]
        stems = {}
        for names, place in places:
            stems |= self._heard(names, samples, place)
        parts, gains, sources = {}, {}, {}
        for number, (name, (signal, record)) in enumerate(stems.items()):
            drawn = self._drawn(generator, number, duration_s)
            gain = drawn.get("gain", 1.0) * (-1 if drawn.get("polarity") else 1)
            gain *= float(level.multiplier(drawn.get("gain-db", 0.0)))
            parts[name] = self._changed(signal, drawn)
            gains[name] = gain * float(level.multiplier(gain_db))
            sources[name] = record | {_KEYS.get(k, k): value for k, value in drawn.items()}
        refs, mix, limit = self._add(*zip(*self._joined(parts, gains), strict=True))
        for name, gain in gains.items():
            sources[name]["factor"] = gain * limit
        record = {
            "targets": list(spec.targets or self.names),
            "seed": seed,
            "index": index,
            "mixture_gain_db": gain_db,
            "peak_gain_db": float(level.gain_db(limit)),
            "sources": sources,
        }
        return Mixture(mix, dict(zip(self.names, refs, strict=True)), record, spec.sample_rate)

    def _stems(self):
        """The names of all that is drawn."""
        return [part for name in self.names for part in self._parts_of(name)]

    def _joined(self, parts, gains):
        """Yield (signal, gain) of each of `names`; a sum of several has its gains in it."""
        for name in self.names:
            own = self._parts_of(name)
            if len(own) == 1:
                yield parts[own[0]], gains[own[0]]
            else:
                yield self._add([parts[p] for p in own], [gains[p] for p in own], peak=0)[1], 1.0

    def _add(self, parts, gains, peak=None):
        """As `mixtures.add`: the parts and their sum, and the factor that all were limited by."""
        return add(parts, gains, self.spec.peak if peak is None else peak)

    def _drawn(self, generator, stem, duration_s):
        """{augmentation: what was drawn} for one stem, of those that change a signal."""
        drawn = {}
        for number, name in enumerate(AUGMENTATIONS):
            if name in self._ranges and name not in ("remix", *_UNCHANGED):
                drawn[name] = self._draw(name, generator(3, stem, number), duration_s)
        return drawn

    def _draw(self, name, rng, duration_s):
        """What is drawn for one augmentation: yes or no, an amount, or the two ends of a mask."""
        if AUGMENTATIONS[name] is None:
            return bool(rng.random() < 0.5)
        amount = float(rng.uniform(*self._ranges[name]))
        if name == "time-mask":
            return _span(rng, amount, duration_s)
        if name == "freq-mask":
            return _band(rng, amount, self.spec.sample_rate / 2)
        return amount

    def _heard(self, names, samples, place):
        """{stem: (stretch, where it is from)} of one place, drawn again while a target is quiet.

        Also where a recording cannot be read, if such `faults` are spared.
        place: makes the generator of the first try, and of its number that of each later one.
        """
        least, targets = self.spec.min_rms_db, self.spec.targets or self.names
        for tried in range(TRIES):
            again = (tried,) if tried else ()
            try:
                stems = {name: self._stem(name, samples, place(*again)) for name in names}
            except SepcliError as error:
                self.faults.add_error(error)
                failed = error
                continue
            failed = None
            quiet = [n for n in names if n in targets and least is not None]
            quiet = [n for n in quiet if not self._level_db(stems[n][0]) >= (least or 0.0)]
            if not quiet:
                return stems
        raise failed or SepcliError(
            f"{', '.join(quiet)}: quieter than {least:g} dB re full scale {TRIES} times in a row; "
            "lower min_rms_db, or name other songs"
        )

    def _level_db(self, stem):
        """The RMS of a stem re full scale, all channels together."""
        return level.rms_db(stem, dtype=np.float32)

    def _stem(self, name, samples, rng):
        """A stretch (C, T) of a stem of a song that `rng` draws, and where it is from."""
        spec = self.spec
        song, place = self._song(rng, name), rng.random()
        ranges = _UNCHANGED | self._ranges
        drawn = {name: float(rng.uniform(*ranges[name])) for name in _UNCHANGED}
        rate = round(spec.sample_rate / 2 ** (drawn["pitch"] / 12))  # as if it was sampled slower
        wanted = max(1, round(samples * drawn["stretch"] * rate / spec.sample_rate))
        start_s = place * max(0.0, self._seconds(song) - wanted / rate)
        signal = np.zeros((1 if spec.downmix else 2, wanted), np.float32)
        pieces = []
        for path in song.stems[name]:
            frames, file_rate = self._headers[path]
            start = round(start_s * file_rate)
            stop = min(frames, start + math.ceil(wanted * file_rate / rate))
            sound, _ = stored.read(path, start=start, stop=stop, sample_rate=rate)
            sound = self._channels(sound, path)[:, :wanted]
            signal[:, : sound.shape[1]] += sound
            pieces.append({"path": str(path), "start": start, "stop": stop})
        if wanted != samples:
            signal = change_tempo(signal, samples, spec.sample_rate)
        drawn = {name: value for name, value in drawn.items() if name in self._ranges}
        return signal, {"song": song.name, "files": pieces, **drawn}

    def _song(self, rng, stem):
        """A song that has the stem: a source by weight, then one of its songs."""
        return one_of(self._having[stem][self._shares.draw(rng)], rng)

    def _seconds(self, song):
        """How long all stems of a song go on."""
        headers = [self._headers[path] for paths in song.stems.values() for path in paths]
        return min(frames / rate for frames, rate in headers)

    def _channels(self, sound, path):
        """Any (C, T) as mono, or as stereo."""
        if self.spec.downmix:
            return sound.mean(axis=0, keepdims=True)
        if len(sound) > 2:
            raise SepcliError(f"{path}: {len(sound)} channels; mix them down by --downmix")
        return sound

    def _changed(self, signal, drawn):
        """`signal` (C, T) with channels swapped and parts masked, as drawn."""
        if drawn.get("swap"):
            signal = signal[::-1]
        if "time-mask" in drawn:
            signal = signal * _hole(signal.shape[1], self.spec.sample_rate, *drawn["time-mask"])
        if "freq-mask" in drawn:
            signal = _notched(signal, self.spec.sample_rate, *drawn["freq-mask"])
        return signal


def _span(rng, length_s, duration_s):
    """(start s, stop s) of a mask."""
    start_s = rng.random() * max(0.0, duration_s - length_s)
    return start_s, start_s + length_s


def _band(rng, octaves, highest_hz):
    """(from Hz, to Hz) of a mask, every octave as likely as any other."""
    top = max(LOWEST_HZ, highest_hz / 2**octaves)
    low = LOWEST_HZ * (top / LOWEST_HZ) ** rng.random()
    return low, low * 2**octaves


def _hole(samples, sample_rate, start_s, stop_s):
    """A gain (samples,) float32 that is 0 from `start_s` to `stop_s`."""
    if start_s == stop_s:
        return np.ones(samples, np.float32)
    knots = start_s - FADE_S, start_s, stop_s, stop_s + FADE_S
    return np.interp(np.arange(samples) / sample_rate, knots, (1, 0, 0, 1)).astype(np.float32)


def _notched(signal, sample_rate, low_hz, high_hz):
    """`signal` (C, T) without what is between two frequencies."""
    n = fft.next_fast_len(signal.shape[1], real=True)
    spectrum = fft.rfft(signal, n)  # (C, n/2 + 1)
    low, high = (math.ceil(hz * n / sample_rate) for hz in (low_hz, high_hz))
    spectrum[:, low:high] = 0
    return fft.irfft(spectrum, n)[:, : signal.shape[1]]
