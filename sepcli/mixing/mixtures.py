"""Speech + noise + rooms -> mixtures with their references; item i is a function of (seed, i)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from itertools import chain
from typing import Any

import numpy as np

from sepcli.dsp import decay, level, room
from sepcli.errors import SepcliError
from sepcli.mixing import synthetic
from sepcli.mixing.source import Source
from sepcli.mixing.specs import MixtureSpec
from sepcli.recordings import stored
from sepcli.recordings.pools import Faults, Pool
from sepcli.samples.sample import Sample

VOICES = 1000  # synthetic speakers to draw from


@cache
def keep_memory() -> None:
    """Let the memory of an item be kept for the next one, in this process.

    glibc hands large blocks back to the system at once, unless a larger one has been freed before
    (mallopt(3), M_MMAP_THRESHOLD; at most 32 MiB). Without this, which touches no memory, every
    item faults in 800 pages anew, and takes twice as long.
    """
    np.empty(31 << 20, np.uint8)


@dataclass(frozen=True)
class Mixture:
    """One item.

    mix: float32 (1, T). refs: {"speech": …, "noise": …}, float32 (1, T); the noise and the speech
    as it was heard add up to the mix bit for bit. record: everything that was drawn, for JSON.
    enroll: another utterance of the target, float32 (1, T'), where one is asked for.
    """

    mix: np.ndarray
    refs: dict[str, np.ndarray]
    record: dict
    sample_rate: int
    enroll: np.ndarray | None = None


class Mixer(Source):
    """Mixtures by number: `draw(seed, index)` depends on nothing but its arguments.

    faults: recordings that could not be read; see `Faults` for what becomes of them.
    """

    faults: Faults

    def __init__(self, spec: MixtureSpec | None = None) -> None:
        """Look up the spec's sources; raises SepcliError where there is no audio."""
        self.spec = spec = spec or MixtureSpec()
        self.faults = Faults()
        self._speech = self._pool(spec.speech, "speech")
        self._noise = self._pool(spec.noise, "noise")
        self._rir = self._pool(spec.rir, "rir")

    def recordings(self) -> Iterator[Any]:
        """All of the speech, the noise and the rooms."""
        pools = filter(None, (self._speech, self._noise, self._rir))
        return chain.from_iterable(pool.recordings() for pool in pools)

    def _pool(self, sources, what):
        return Pool(sources, what=what, faults=self.faults) if sources else None

    def draw(self, seed: int, index: int, step: int | None = None) -> Mixture:
        """Item `index` of the stream `seed` (both ints, 0 or more): a `Mixture`."""
        keep_memory()
        spec = self.spec
        # Separate generators, so that another noise or SNR leaves the speech as it was.
        rng, speech_rng, noise_rng, room_rng = (
            np.random.Generator(np.random.PCG64([seed, index, k])) for k in (1, 2, 3, 4)
        )
        duration_s, snr_db, level_db, gain_db = (
            float(rng.uniform(*pair))
            for pair in (spec.duration_s, spec.snr_db, spec.level_db, spec.mixture_gain_db)
        )
        samples = round(duration_s * spec.sample_rate)
        speech_record: dict[str, Any]
        noise_record: dict[str, Any]
        dry, speech_record = self._draw_speech(samples, speech_rng)
        decay_s = spec.rir_decay_s if spec.target == "decayed" else None
        heard, speech_record["rir"] = self._in_room(dry, spec.rir_prob, room_rng, decay_s)
        speech = heard[0].astype(np.float64)  # once, while it is in the cache
        wanted = dry if spec.target == "dry" else heard[-1]
        levelled = wanted if spec.level_of == "target" else speech
        speech_gain = level.rms_multiplier(levelled, level_db + gain_db)
        noise, noise_record = self._draw_noise(samples, noise_rng)
        heard_noise, noise_record["rir"] = self._in_room(noise, spec.noise_rir_prob, room_rng)
        noise = heard_noise[0].astype(np.float64)
        noise_gain = level.rms_multiplier(noise, level_db + gain_db - snr_db)

        (speech, noise), mix, limit = add((speech, noise), (speech_gain, noise_gain), spec.peak)
        target = speech if spec.target == "reverb" else scaled(wanted, speech_gain * limit)
        speech_record["gain_db"] = float(level.gain_db(speech_gain * limit))
        noise_record["gain_db"] = float(level.gain_db(noise_gain * limit))
        record: dict[str, Any] = {
            "targets": ["speech"],
            "snr_db": snr_db,
            "seed": seed,
            "index": index,
            "target": spec.target,
            "level_db": level_db,
            "mixture_gain_db": gain_db,
            "peak_gain_db": float(level.gain_db(limit)),
            "snr_achieved_db": _measured_snr_db(
                target if spec.level_of == "target" else speech, noise
            ),
            "sources": {"speech": speech_record, "noise": noise_record},
        }
        if spec.level_of == "target":
            record["level_of"] = "target"
        refs = {"speech": target[None], "noise": noise[None]}  # (1, T)
        return Mixture(mix[None], refs, record, spec.sample_rate)

    def _draw_speech(self, samples, rng):
        """Speech (T,) and the record of where it comes from."""
        if self._speech:
            return self._crop(self._speech, samples, rng)
        voice = int(rng.integers(VOICES))
        speech = synthetic.speech(samples, self.spec.sample_rate, rng, voice)
        return speech, {"synthetic": "speech", "voice": voice}

    def _draw_noise(self, samples, rng):
        """Noise (T,) and the record of where it comes from."""
        if self._noise:
            return self._crop(self._noise, samples, rng)
        kind = synthetic.draw_noise_kind(rng)
        return synthetic.noise(samples, self.spec.sample_rate, rng, kind), {"synthetic": kind}

    def _crop(self, pool, samples, rng):
        spec = self.spec
        signal, pieces = pool.crop(samples, spec.sample_rate, rng, min_rms_db=spec.min_rms_db)
        return signal, {"files": pieces}

    def _in_room(self, signal, probability, rng, decay_s=None):
        """`signal` as heard in a room, or as it is: (1, T), and the record of the room.

        The direct sound is as loud and as early as before. With `decay_s`, (2, T): the second row
        is the sound in that room shortened, for little more than the price of the first.
        """
        if rng.random() >= probability:
            return signal[None], None
        rate = self.spec.sample_rate
        if self._rir:
            path, response = self._rir.draw_for(
                lambda path: _room(path, stored.state(path), rate, signal.size, decay_s), rng
            )
            record = {"path": str(path)}
        else:
            rir, rt60_s = synthetic.rir(rate, rng)
            response = room.Response(_with_shortened(rir, rate, decay_s), signal.size)
            record = {"synthetic": "room", "rt60_s": rt60_s}
        if decay_s is not None:
            record["decay_s"] = decay_s
        return response(signal), record


@lru_cache(maxsize=64)  # 400 kB each for 5 s at 16 kHz and 1 s of response
def _room(path, _of, sample_rate, samples, decay_s):
    """The first channel of a recorded RIR, as a `Response` in which the direct sound is 1 at 0."""
    rir = stored.read(path, sample_rate=sample_rate)[0][0]
    if not rir.any():
        raise SepcliError(f"{path}: silent, so it is not an impulse response; remove it")
    tap = room.main_tap(rir)
    rirs = _with_shortened(rir / rir[tap], sample_rate, decay_s)
    return room.Response(rirs, samples, start=tap)


def _with_shortened(rir, sample_rate, decay_s):
    """(1, R): the RIR; with `decay_s`, (2, R): and its early part with that decay."""
    if decay_s is None:
        return rir[None]
    return np.stack([rir, decay.decay_rir(rir, sample_rate, rt60_s=decay_s)])


def add(
    signals: Sequence[np.ndarray], gains: Sequence[float], peak: float, limit: float = 1.0
) -> tuple[list[np.ndarray], np.ndarray, float]:
    """Scale and add signals of one shape: (signals, mix, limit), all float32.

    limit: the factor that had to be applied to all of them to keep them within `peak`, unless 0.
    """
    parts = [scaled(signal, g * limit) for signal, g in zip(signals, gains, strict=True)]
    mix = reduce(np.add, parts)
    tops = [_top(part) for part in parts]
    top = max(tops) if sum(tops) < peak else max(*tops, _top(mix))
    if peak and top > peak and limit == 1:
        return add(signals, gains, peak, limit=peak / top)
    return parts, mix, limit


def _measured_snr_db(speech, noise):
    """How much louder the one float32 signal is than the other, right to some 1e-5 dB."""
    return level.rms_db(speech, dtype=np.float32) - level.rms_db(noise, dtype=np.float32)


def _top(signal):
    """The largest |sample|."""
    return max(float(signal.max()), -float(signal.min()))


def scaled(signal: np.ndarray, factor: Any) -> np.ndarray:
    """`signal` · `factor`, multiplied in float64 and rounded to float32 once."""
    out = np.empty(signal.shape, np.float32)  # in one pass, piece by piece
    return np.multiply(signal, factor, out=out, dtype=np.float64, casting="same_kind")


def sample_key(index: int) -> str:
    """What item `index` is called in a stream of samples."""
    return f"{index:06d}"


def draw_among_good(
    mixer: Any, seed: int, index: int
) -> tuple[Sample | SepcliError, dict[Any, Any]]:
    """What `draw_sample` makes of recordings that can be read; or its SepcliError.

    Returns (sample or error, {recording: why it cannot be read}).
    """
    mixer.faults.spared = True
    try:
        made = draw_sample(mixer, seed, index)
    except SepcliError as error:
        made = error
    return made, mixer.faults.take()


def draw_sample(mixer: Any, seed: int, index: int) -> Sample:
    """Item `index` as a `Sample`: mix, references, and its record as JSON."""
    mixture = mixer.draw(seed, index)
    sample = Sample(sample_key(index), dict(mixture.record))
    sample.set_audio("mix", mixture.mix, mixture.sample_rate)
    for name, signal in mixture.refs.items():
        sample.set_audio(f"ref.{name}", signal)
    if mixture.enroll is not None:
        sample.set_audio("enroll", mixture.enroll)
    return sample
