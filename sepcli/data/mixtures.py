"""Speech + noise + rooms -> mixtures with their references; item i is a function of (seed, i)."""

from dataclasses import dataclass, fields

import numpy as np

from sepcli.data import synthetic
from sepcli.data.sample import Sample
from sepcli.data.sources import Pool
from sepcli.dsp import level, room
from sepcli.errors import SepcliError

TARGETS = ("dry", "reverb")
VOICES = 1000  # made-up speakers to draw from


@dataclass(frozen=True)
class MixtureSpec:
    """What mixtures are like. A pair is a range to draw from; one number stands for both ends.

    speech, noise, rir: sources of recordings, see `Pool`; empty ones are made up.
    duration_s: length of an item. sample_rate: Hz.
    snr_db: speech re noise, both as they are in the mixture, over the whole item.
    level_db: RMS of the speech in the mixture re full scale, before `mixture_gain_db`.
    mixture_gain_db: gain of everything, after that.
    rir_prob, noise_rir_prob: how often the speech, and the noise, is heard in a room. None means
        half of the time for speech if `rir` names recordings, else never.
    target: what the reference is when there is a room: "dry" is the direct sound alone, "reverb"
        the speech as it is in the mixture.
    min_rms_db: recordings are drawn again where they are quieter than this, re full scale.
    peak: when a sample would exceed it, all signals are scaled down together. 0 means no limit.
    Raises SepcliError for a value that makes no sense.
    """

    speech: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    duration_s: tuple[float, float] = (4.0, 4.0)
    sample_rate: int = 16000
    snr_db: tuple[float, float] = (-5.0, 15.0)
    level_db: tuple[float, float] = (-25.0, -25.0)
    mixture_gain_db: tuple[float, float] = (0.0, 0.0)
    rir_prob: float | None = None
    noise_rir_prob: float = 0.0
    target: str = "reverb"
    min_rms_db: float = -38.0
    peak: float = 0.99

    def __post_init__(self):
        for field in fields(self):
            self._normalise(field.name, field.default)
        if self.rir_prob is None:
            object.__setattr__(self, "rir_prob", 0.5 if self.rir else 0.0)
        _check(
            4000 <= self.sample_rate <= 768_000,
            "sample_rate",
            self.sample_rate,
            "4000 to 768000 Hz",
        )
        _check(self.duration_s[0] >= 0.1, "duration_s", self.duration_s, "0.1 s or longer")
        for name in ("rir_prob", "noise_rir_prob"):
            value = getattr(self, name)
            _check(0 <= value <= 1, name, value, "a probability, 0 to 1")
        _check(self.target in TARGETS, "target", self.target, " or ".join(TARGETS))
        _check(self.peak >= 0, "peak", self.peak, "0 (no limit) or more")

    def _normalise(self, name, default):
        """Turn one number into a range and a single source into a tuple; check ranges."""
        value = getattr(self, name)
        if default == ():
            value = (value,) if isinstance(value, str) else tuple(map(str, value))
        elif isinstance(default, tuple):
            value = (value, value) if np.isscalar(value) else tuple(value)
            _check(value[0] <= value[1], name, value, "LO:HI, the smaller number first")
            _check(np.isfinite(value).all(), name, value, "finite")
        object.__setattr__(self, name, value)


def _check(valid, name, value, what):
    if not valid:
        raise SepcliError(f"{name} must be {what}, not {value}")


@dataclass(frozen=True)
class Mixture:
    """One item.

    mix: float32 (1, T). refs: {"speech": …, "noise": …}, float32 (1, T); the noise and the speech
    as it was heard add up to the mix bit for bit. record: everything that was drawn, for JSON.
    """

    mix: np.ndarray
    refs: dict[str, np.ndarray]
    record: dict
    sample_rate: int


class Mixer:
    """Mixtures by number: `draw(seed, index)` depends on nothing but its arguments."""

    def __init__(self, spec=None):
        """Look up the spec's sources; raises SepcliError where there is no audio."""
        self.spec = spec = spec or MixtureSpec()
        self._speech = Pool(spec.speech, what="speech") if spec.speech else None
        self._noise = Pool(spec.noise, what="noise") if spec.noise else None
        self._rir = Pool(spec.rir, what="impulse response") if spec.rir else None

    def draw(self, seed, index):
        """Item `index` of the stream `seed` (both ints, 0 or more): a `Mixture`."""
        spec = self.spec
        # Separate generators, so that another noise or SNR leaves the speech as it was.
        rng, speech_rng, noise_rng, room_rng = (
            np.random.default_rng([seed, index, k]) for k in (1, 2, 3, 4)
        )
        duration_s, snr_db, level_db, gain_db = (
            float(rng.uniform(*pair))
            for pair in (spec.duration_s, spec.snr_db, spec.level_db, spec.mixture_gain_db)
        )
        samples = round(duration_s * spec.sample_rate)
        dry, speech_record = self._draw_speech(samples, speech_rng)
        speech, speech_record["rir"] = self._in_room(dry, spec.rir_prob, room_rng)
        noise, noise_record = self._draw_noise(samples, noise_rng)
        noise, noise_record["rir"] = self._in_room(noise, spec.noise_rir_prob, room_rng)

        gains = balance(
            speech, noise, snr_db=snr_db, level_db=level_db, gain_db=gain_db, peak=spec.peak
        )
        heard, noise = _scaled(speech, gains.speech), _scaled(noise, gains.noise)
        reference = heard if spec.target == "reverb" else _scaled(dry, gains.speech)
        speech_record["gain_db"] = float(level.gain_db(gains.speech))
        noise_record["gain_db"] = float(level.gain_db(gains.noise))
        record = {
            "targets": ["speech"],
            "snr_db": snr_db,
            "seed": seed,
            "index": index,
            "target": spec.target,
            "level_db": level_db,
            "mixture_gain_db": gain_db,
            "peak_gain_db": float(level.gain_db(gains.peak)),
            "snr_achieved_db": level.rms_db(heard) - level.rms_db(noise),
            "sources": {"speech": speech_record, "noise": noise_record},
        }
        refs = {"speech": reference[None], "noise": noise[None]}  # (1, T)
        return Mixture((heard + noise)[None], refs, record, spec.sample_rate)

    def _draw_speech(self, samples, rng):
        """Speech (T,) and the record of where it comes from."""
        rate = self.spec.sample_rate
        if self._speech:
            signal, pieces = self._speech.crop(samples, rate, rng, min_rms_db=self.spec.min_rms_db)
            return signal, {"files": pieces}
        voice = int(rng.integers(VOICES))
        return synthetic.speech(samples, rate, rng, voice), {"synthetic": "speech", "voice": voice}

    def _draw_noise(self, samples, rng):
        """Noise (T,) and the record of where it comes from."""
        rate = self.spec.sample_rate
        if self._noise:
            signal, pieces = self._noise.crop(samples, rate, rng, min_rms_db=self.spec.min_rms_db)
            return signal, {"files": pieces}
        kind = synthetic.draw_noise_kind(rng)
        return synthetic.noise(samples, rate, rng, kind), {"synthetic": kind}

    def _in_room(self, signal, probability, rng):
        """`signal`, or its sound in a room with the direct sound as loud and as early as before."""
        if rng.random() >= probability:
            return signal, None
        if self._rir:
            rir, path = self._rir.whole(self.spec.sample_rate, rng)
            record = {"path": path}
        else:
            rir, rt60_s = synthetic.rir(self.spec.sample_rate, rng)
            record = {"synthetic": "room", "rt60_s": rt60_s}
        tap = room.main_tap(rir)
        wet = room.convolve(signal, rir / rir[tap], full=True)
        return wet[tap : tap + signal.size], record


@dataclass(frozen=True)
class Gains:
    """Factors for the speech and the noise, each with the peak limit's factor in it."""

    speech: float
    noise: float
    peak: float


def balance(speech, noise, *, snr_db, level_db, gain_db=0.0, peak=0.0):
    """Find the `Gains` that bring two signals of one shape to an SNR and a level, in float64.

    level_db: RMS of the speech re full scale. gain_db: of both, after that. peak: the largest
    |sample| that speech, noise and their sum may have, kept by turning both down; 0: no limit.
    """
    loudness = float(level.multiplier(gain_db))
    speech_gain = level.rms_multiplier(speech, level_db) * loudness
    noise_gain = level.snr_multiplier(noise, speech, snr_db) * speech_gain
    limit = 1.0
    if peak:
        speech, noise = speech * np.float32(speech_gain), noise * np.float32(noise_gain)
        top = max(_peak(speech), _peak(noise), _peak(speech + noise))
        limit = min(1.0, peak / top)
    return Gains(speech_gain * limit, noise_gain * limit, limit)


def _peak(signal):
    return max(float(signal.max()), -float(signal.min()))


def _scaled(signal, factor):
    """`signal` · `factor`, multiplied in float64 and rounded once."""
    return np.multiply(signal, factor, dtype=np.float64).astype(np.float32)


def to_sample(mixture):
    """The `Mixture` as a sample of the stream: mix, references, and its record as JSON."""
    sample = Sample(f"{mixture.record['index']:06d}", dict(mixture.record))
    sample.set_audio("mix", mixture.mix, mixture.sample_rate)
    for name, signal in mixture.refs.items():
        sample.set_audio(f"ref.{name}", signal)
    return sample
