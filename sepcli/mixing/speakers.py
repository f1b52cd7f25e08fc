"""Several people talking at once, one of them the target, and another utterance of the target."""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sepcli.dsp import level
from sepcli.errors import SepcliError
from sepcli.mixing import synthetic
from sepcli.mixing.mixtures import VOICES, Mixer, Mixture, add, keep_memory, scaled
from sepcli.mixing.specs import SpeakerSpec
from sepcli.recordings.packing import speaker_of
from sepcli.recordings.pools import Pool, one_of
from sepcli.recordings.stored import PackRecording

PREROLL_S = 1.0  # of what was said before an item starts, for the rooms to ring with


@dataclass(frozen=True)
class _Voice:
    """What someone says: `heard` in the mixture, `wanted` as its reference, both float64 (T,).

    levelled: the one of them that levels and SNRs are of.
    """

    heard: np.ndarray
    wanted: np.ndarray
    levelled: np.ndarray
    record: dict


class SpeakerMixer(Mixer):
    """Mixtures of speakers by number: `draw(seed, index)` depends on nothing but its arguments."""

    spec: SpeakerSpec

    def __init__(self, spec: SpeakerSpec | None = None) -> None:
        """Look up the spec's sources; raises SepcliError where there are too few speakers."""
        super().__init__(spec or SpeakerSpec())
        self._cast = cast_of(self._speech, self.spec)

    def draw(self, seed: int, index: int, step: int | None = None) -> Mixture:
        """Item `index` of the stream `seed` (both ints, 0 or more): a `Mixture`.

        step: of the training that it is for; None means after all of them.
        Its refs are "speech", the target; "interferers", the sum of the others; "noise". The
        target as it was heard, the others and the noise add up to the mix in that order, bit for
        bit.
        """
        return self.faults.until_good(partial(self._draw, seed, index, step))

    def _draw(self, seed, index, step, attempt):
        """The item, or, in later attempts, others in its place."""
        keep_memory()
        spec, again = self.spec, [attempt] if attempt else []

        def generator(*part):  # one for each part, so that none depends on the others
            return np.random.default_rng([seed, index, *part, *again])

        rng, cast_rng = generator(1), generator(5)
        duration_s, snr_db, level_db, gain_db = (
            float(rng.uniform(*pair))
            for pair in (spec.duration_s, spec.snr_db, spec.level_db, spec.mixture_gain_db)
        )
        samples = round(duration_s * spec.sample_rate)
        early = step is not None and step < spec.target_absent_from
        absent = cast_rng.random() < spec.target_absent and not early
        low, high = map(int, spec.interferers)
        names = self._cast.draw(1 + int(cast_rng.integers(low, high, endpoint=True)), cast_rng)
        said, enrolled = self._cast.utterances(names[0], cast_rng)
        speed = float(cast_rng.uniform(*spec.speed))

        voices = [self._other(name, samples, generator(7, k)) for k, name in enumerate(names[1:])]
        silence = np.zeros(samples)
        others = sum((voice.heard for voice in voices), silence)
        target = self._voice(said, samples, speed, 0.0, generator(2))
        heard = silence if absent else target.heard
        noise_record: dict[str, Any]
        dry_noise, noise_record = self._draw_noise(samples, generator(3))
        noise, noise_record["rir"] = self._in_room(dry_noise, spec.noise_rir_prob, generator(4))

        everyone = silence if absent else target.levelled
        everyone = everyone + sum((voice.levelled for voice in voices), silence)
        loudness_db = level_db + gain_db
        gain = level.rms_multiplier(everyone, loudness_db) if everyone.any() else 0.0
        noise_gain = level.rms_multiplier(noise[0], loudness_db - snr_db)
        gains = gain, gain, noise_gain
        (heard, others, noise), mix, limit = add((heard, others, noise[0]), gains, spec.peak)
        wanted = heard if absent else scaled(target.wanted, gain * limit)
        noise_record["gain_db"] = float(level.gain_db(noise_gain * limit))
        for voice in (target, *voices):
            voice.record["gain_db"] += float(level.gain_db(gain * limit))
        sources = {
            "speech": None if absent else target.record,
            "interferers": [voice.record for voice in voices],
            "noise": noise_record,
        }
        enroll = None
        if spec.enroll:
            enroll, sources["enroll"] = self._enrol(
                enrolled, step, speed, level_db, generator(6), generator(8)
            )
        record = {
            "targets": ["speech"],
            "snr_db": snr_db,
            "seed": seed,
            "index": index,
            "target": spec.target,
            "target_present": not absent,
            "speaker": names[0],
            "level_db": level_db,
            "mixture_gain_db": gain_db,
            "peak_gain_db": float(level.gain_db(limit)),
            "snr_achieved_db": level.rms_db(heard + others) - level.rms_db(noise),
            "sources": sources,
        }
        if spec.level_of == "target":
            record["level_of"] = "target"
            everyone = scaled(everyone, gain * limit)
            record["snr_achieved_db"] = level.rms_db(everyone) - level.rms_db(noise)
        refs = {"speech": wanted[None], "interferers": others[None], "noise": noise[None]}
        return Mixture(mix[None], refs, record, spec.sample_rate, enroll)

    def _other(self, name, samples, rng):
        """The `_Voice` of an interferer, by as much as is drawn below the target."""
        sir_db, speed = (float(rng.uniform(*pair)) for pair in (self.spec.sir_db, self.spec.speed))
        voice = self._voice(self._cast.all_of(name), samples, speed, -sir_db, rng)
        return replace(voice, record={"speaker": name, "sir_db": sir_db, **voice.record})

    def _voice(self, said, samples, speed, level_db, rng):
        """`samples` of an utterance in a room or not, at an RMS of `level_db`: a `_Voice`."""
        spec = self.spec
        before = self._preroll(spec.rir_prob)
        dry, record = self._say(said, samples, speed, rng, before)
        decay_s = spec.rir_decay_s if spec.target == "decayed" else None
        wet, record["rir"] = self._in_room(dry, spec.rir_prob, rng, decay_s)
        heard, wanted = wet[0, before:], (dry if spec.target == "dry" else wet[-1])[before:]
        of_target = spec.level_of == "target"
        multiplier = level.rms_multiplier(wanted if of_target else heard, level_db)
        record["gain_db"] = float(level.gain_db(multiplier))
        heard, wanted = (multiplier * signal.astype(float) for signal in (heard, wanted))
        return _Voice(heard, wanted, wanted if of_target else heard, record)

    def _say(self, said, samples, speed, rng, before=0):
        """Dry speech (before + samples,) at `speed`, and its record."""
        rate = round(self.spec.sample_rate / speed)  # played faster than it was sampled
        signal, record = self._cast.say(said, samples, rate, rng, before)
        return signal, {"speed": speed, **record}

    def _preroll(self, rir_prob):
        """Samples of what comes before, for a room that there may be."""
        return round(PREROLL_S * self.spec.sample_rate) if rir_prob else 0

    def _enrol(self, said, step, speed, level_db, rng, room_rng):
        """The enrolment, float32 (1, T'), and its record."""
        spec = self.spec
        samples = round(rng.uniform(*spec.enroll_s) * spec.sample_rate)
        noisy = rng.random() < spec.noisy_enroll * _ramp(step, *spec.noisy_enroll_ramp)
        snr_db = float(rng.uniform(*spec.enroll_snr_db))
        before = self._preroll(spec.enroll_rir_prob)
        dry, record = self._say(said, samples, speed, rng, before)
        heard, record["rir"] = self._in_room(dry, spec.enroll_rir_prob, room_rng)
        speech = heard[0, before:]
        gain, noise, noise_gain = level.rms_multiplier(speech, level_db), np.zeros(samples), 0.0
        record["noise"] = None
        if noisy:
            noise, record["noise"] = self._draw_noise(samples, rng)
            noise_gain = level.rms_multiplier(noise, level_db - snr_db)
            record["snr_db"] = snr_db
        _, mix, _ = add((speech, noise), (gain, noise_gain), spec.peak)
        return mix[None], record


def cast_of(pool: Pool | None, spec: Any) -> "_Recorded | _MadeUp":
    """Who may speak: those of a pool of speech, or synthetic ones.

    Raises SepcliError where there are too few for the spec, or where it is unknown who speaks.
    """
    return _Recorded(pool, spec) if pool else _MadeUp(spec)


def _ramp(step, start, stop):
    """0 before step `start`, 1 from step `stop` on, and a line in between; 1 after all of them."""
    if step is None or step >= stop:
        return 1.0
    return max(0.0, step - start) / max(1, stop - start)


class _MadeUp:
    """Synthetic speakers. An utterance is the number of its voice: the generator varies it."""

    def __init__(self, spec):
        self.sample_rate = spec.sample_rate

    def names(self):
        """All speakers."""
        return list(range(VOICES))

    def draw(self, count, rng):
        """The names of `count` speakers, all different, as voice numbers; the target first."""
        return [int(number) for number in rng.choice(VOICES, count, replace=False)]

    def utterances(self, voice, _rng):
        """What the target says in the mixture, and for the enrolment."""
        return voice, voice

    def all_of(self, voice):
        """What an interferer may say."""
        return voice

    def say(self, voice, samples, rate, rng, before):
        """(before + samples,) at `rate` Hz, of which the first are silent, and the record."""
        signal = synthetic.speech(samples, rate, rng, voice)
        return np.pad(signal, (before, 0)), {"synthetic": "speech", "voice": voice}


class _Recorded:
    """Speakers of the recordings of a pool. An utterance is a list of recordings to draw from."""

    def __init__(self, pool, spec):
        self._pool, self._min_rms_db = pool, spec.min_rms_db
        self._places = {}  # speaker -> (source, number) of all recordings
        self._speakers = []  # of each source
        seen = set()  # the same recording in two sources is not another utterance
        for source, files in enumerate(pool.files):
            found = {}
            names = _speakers(pool.sources[source], files, spec.speaker_regex)
            for number, name in enumerate(names):
                if (where := os.path.abspath(str(files[number]))) not in seen:
                    seen.add(where)
                    found[name] = None
                    self._places.setdefault(name, []).append((source, number))
            self._speakers.append(list(found))
        enough = 2 if spec.enroll else 1
        self._targets = [
            [name for name in names if len(self._places[name]) >= enough]
            for names in self._speakers
        ]
        self._check(1 + int(spec.interferers[1]), spec.enroll)

    def _check(self, wanted, enroll):
        if len(self._places) < wanted:
            raise SepcliError(
                f"speech: {len(self._places)} speaker(s), but a mixture has {wanted}; lower "
                "--interferers, name more, or identify the speakers with --speaker-regex"
            )
        if not any(self._targets):
            raise SepcliError(
                "speech: no speaker has two recordings, one for the mixture and one to enrol; name "
                "more, or identify the speakers with --speaker-regex"
            )

    def draw(self, count, rng):
        """The names of `count` speakers, all different; the target first."""
        names = [self._draw(self._targets, rng)]
        while len(names) < count:
            name = self._draw(self._speakers, rng)
            if name not in names:
                names.append(name)
        return names

    def names(self):
        """All speakers."""
        return list(self._places)

    def _draw(self, speakers, rng):
        """One of the names in `speakers`, lists by source: a source by weight, then a name."""
        while not (names := speakers[self._pool.draw_source(rng)]):
            pass
        return one_of(names, rng)

    def utterances(self, name, rng):
        """What the target says in the mixture, and for the enrolment: not the same recordings.

        Two halves of what there is; who has one recording, and is not to enrol, says that.
        """
        recordings = self.all_of(name)
        order = rng.permutation(len(recordings))
        half = len(order) // 2
        return [recordings[k] for k in order[half:]], [recordings[k] for k in order[:half]]

    def all_of(self, name):
        """What an interferer may say."""
        return [self._pool.files[source][number] for source, number in self._places[name]]

    def say(self, recordings, samples, rate, rng, before):
        """(before + samples,) at `rate` Hz, as the recordings go on, and the record."""
        signal, pieces = self._pool.crop(
            samples, rate, rng, min_rms_db=self._min_rms_db, among=recordings, before=before
        )
        return signal, {"files": pieces}


def _name(recording):
    """The path or URL of a recording, or its name in a pack or tar."""
    is_file = isinstance(recording, str)
    return str(recording) if is_file else getattr(recording, "name", str(recording))


def _speakers(source, recordings, regex):
    """Yield who speaks in each of `recordings`; the same folder in two sources is two speakers."""
    root, names = source, list(map(_name, recordings))
    if not os.path.isdir(source) and not all(name.startswith(f"{source}/") for name in names):
        root = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names])
    for recording in recordings:
        if isinstance(recording, PackRecording):  # knows it
            who = recording.speaker
            speaker = os.path.join(source, recording.group, who)
        else:
            name = os.path.relpath(_name(recording), root)
            who = speaker_of(name, regex or None)
            speaker = who if regex else os.path.join(source, who).rstrip(os.sep)
        if not who and (regex or isinstance(recording, PackRecording)):
            raise SepcliError(
                f"{recording}: the speaker is unknown; put the name into the path, "
                "and match it with --speaker-regex"
            )
        yield speaker
