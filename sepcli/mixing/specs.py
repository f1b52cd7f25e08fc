"""What mixtures are like: settings with their defaults and limits, for Python, YAML and `mix`.

Nothing heavy is imported here: the command line takes the defaults of its options from these.
"""

import math
from dataclasses import dataclass, field, fields
from numbers import Real
from os import PathLike, fspath
from typing import Any, cast

from sepcli.errors import SepcliError
from sepcli.mixing.augmentations import augmentation

# Sets of defaults. poconet: rooms for half of the speech and half of the noise, partial
# dereverberation, levels of the target and far apart, after Isik et al., "PoCoNet: better speech
# enhancement with frequency-positional embeddings, semi-supervised conversational data, and biased
# loss", 2020.
PRESETS = {
    "poconet": {
        "rir_prob": 0.5,
        "noise_rir_prob": 0.5,
        "target": "decayed",
        "level_of": "target",
        "level_db": (-20.0, -20.0),
        "snr_db": (-5.0, 5.0),
        "mixture_gain_db": (-25.0, 5.0),
    },
}

TARGETS = ("dry", "decayed", "reverb")


class Limits:
    """The least and the most that a setting may be; `above`: the least itself is too little."""

    def __init__(self, low: float, high: float = math.inf, above: bool = False) -> None:
        self.low, self.high, self.above = low, high, above

    def hold(self, value: Any) -> bool:
        """Whether `value` keeps to them."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self):
        if self.above:
            return f"above {self.low:g}" + (f", {self.high:g} at most" * math.isfinite(self.high))
        if math.isfinite(self.high):
            return f"{self.low:g} to {self.high:g}"
        return f"{self.low:g} or more"


def limited(default: Any, low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """A field with `Limits`, which each end of a range keeps to."""
    return field(default=default, metadata={"limits": Limits(low, high, above)})


def choice(default: Any, choices: Any) -> Any:
    """A field that is one of several texts."""
    return field(default=default, metadata={"choices": choices})


def probability(default: float | None = 0.0) -> Any:
    """A field that says how often something happens."""
    return limited(default, 0, 1)


def decibels(low: Any, high: Any) -> Any:
    """A field that is a range of levels or gains. All three of a mixture fit into float32."""
    return limited((float(low), float(high)), -200, 200)


def seconds(default: Any) -> Any:
    """A field that is a range of durations."""
    return limited((default, default), 0.1, 3600)


def rate(default: Any) -> Any:
    """A field that is a sample rate in Hz."""
    return limited(default, 4000, 768_000)


class Spec:
    """A frozen dataclass of settings whose pairs of numbers are ranges and `()` lists of texts."""

    def __post_init__(self):
        each: Any
        for each in fields(cast(Any, self)):
            value = self._normalised(each.name, each.default)
            object.__setattr__(self, each.name, value)
            self._check_limits(each.name, value, each.metadata)

    def _normalised(self, name, default):
        """One number as a range, and a single source as a tuple; ranges are checked, -0 is 0."""
        value = getattr(self, name)
        if default == ():
            value = (value,) if isinstance(value, str | PathLike) else value
            return tuple(fspath(path) for path in value)
        if not isinstance(default, tuple):
            return value
        pair: tuple[Any, ...] = (value, value) if isinstance(value, Real) else tuple(value)
        numbers = len(pair) == 2 and all(isinstance(n, Real) and math.isfinite(n) for n in pair)
        self._check(name, numbers, "LO:HI or one number")
        self._check(name, pair[0] <= pair[1], "LO:HI, the smaller number first")
        if all(isinstance(number, int) for number in default):
            whole = all(float(number).is_integer() for number in pair)
            self._check(name, whole, "whole numbers")
            return int(pair[0]), int(pair[1])
        return pair[0] + 0, pair[1] + 0

    def _check_limits(self, name, value, metadata):
        if limits := metadata.get("limits"):
            ends = value if isinstance(value, tuple) else (value,)
            valid = all(number is None or limits.hold(number) for number in ends)
            self._check(name, valid, str(limits))
        if choices := metadata.get("choices"):
            self._check(name, value in choices, " or ".join(choices))

    def _check(self, name, valid, what):
        if not valid:
            raise SepcliError(f"{name} must be {what}, not {getattr(self, name)}")


@dataclass(frozen=True)
class MixtureSpec(Spec):
    """What mixtures are like. A pair is a range to draw from; one number stands for both ends.

    speech, noise, rir: sources of recordings, see `Pool`; empty ones are synthetic.
    duration_s: length of an item. sample_rate: Hz.
    snr_db: speech re noise, both as they are in the mixture, over the whole item.
    level_db: RMS of the speech in the mixture re full scale, before `mixture_gain_db`.
    mixture_gain_db: gain of everything, after that.
    level_of: what level_db and snr_db are of: the speech as it is "heard" in the mixture, or the
        "target", which is less than that in a room where `target` is "dry" or "decayed".
    rir_prob, noise_rir_prob: how often the speech, and the noise, is heard in a room. None means
        half of the time for speech if `rir` names recordings, else never.
    target: what the reference is when there is a room: "dry" is the direct sound alone, "decayed"
        what is left of the speech in the mixture when its room is shortened, "reverb" all of it.
    rir_decay_s: the `rt60_s` of `decay.decay_rir`, which shortens that room.
    min_rms_db: recordings are drawn again where they are quieter than this, re full scale.
    peak: when a sample would exceed it, all signals are scaled down together. 0 means no limit.
    Raises SepcliError for a value that makes no sense.
    """

    speech: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    duration_s: tuple[float, float] = seconds(4.0)
    sample_rate: int = rate(16000)
    snr_db: tuple[float, float] = decibels(-5, 15)
    level_db: tuple[float, float] = decibels(-25, -25)
    mixture_gain_db: tuple[float, float] = decibels(0, 0)
    level_of: str = choice("heard", ("heard", "target"))
    rir_prob: float | None = probability(None)
    noise_rir_prob: float = probability()
    target: str = choice("reverb", TARGETS)
    rir_decay_s: float = limited(0.3, 0, above=True)
    min_rms_db: float = limited(-38.0, -200, 200)
    peak: float = limited(0.99, 0)

    def __post_init__(self):
        super().__post_init__()
        if self.rir_prob is None:
            object.__setattr__(self, "rir_prob", 0.5 if self.rir else 0.0)


@dataclass(frozen=True)
class SpeakerSpec(MixtureSpec):
    """What mixtures of speakers are like: as in `MixtureSpec`, where speech is now all voices.

    speaker_regex: its first group (or all of its match) in a recording's path below its source is
        the speaker; "" means the first folder of that path. Packs know the speakers.
    interferers: how many others there are. sir_db: target re each of them.
    target_absent: how often the target says nothing; the reference is zeros then.
    speed: tempo and pitch of each speaker re the recording.
    enroll: whether there is an enrolment, another utterance of the target: from a recording of
        which nothing is in the mixture, at the target's speed and level.
    enroll_s: its length. enroll_rir_prob: how often it is heard in a room, which is not that of the
        mixture; None means as often as all speech. noisy_enroll: how often it has noise,
        `enroll_snr_db` below it.
    noisy_enroll_ramp: steps of a training during which noisy_enroll rises from 0 to its value.
    target_absent_from: the first step in which the target may be absent.
    Raises SepcliError for a value that makes no sense.
    """

    speaker_regex: str = ""
    interferers: tuple[int, int] = limited((1, 3), 0)
    sir_db: tuple[float, float] = decibels(-5, 5)
    target_absent: float = probability()
    speed: tuple[float, float] = limited((1.0, 1.0), 0.25, 4)
    enroll: bool = False
    enroll_s: tuple[float, float] = seconds(4.0)
    enroll_rir_prob: float | None = probability(None)
    noisy_enroll: float = probability()
    enroll_snr_db: tuple[float, float] = decibels(0, 20)
    noisy_enroll_ramp: tuple[int, int] = limited((0, 0), 0)
    target_absent_from: int = limited(0, 0)

    def __post_init__(self):
        super().__post_init__()
        if self.enroll_rir_prob is None:
            object.__setattr__(self, "enroll_rir_prob", self.rir_prob)


@dataclass(frozen=True)
class StemSpec(Spec):
    """What music is like. A pair is a range to draw from; one number stands for both ends.

    stems: sources (=WEIGHT) of songs. Either SONG/STEM.wav, as in MUSDB, to any depth in folders,
        or in packs of those; or folders of STEM/SONG.wav with known names of stems (vocals,
        accomp, drums, …).
    targets: stems to be found; () means all. "accompaniment", where there is none, is the sum of
        all that is no other target, each of its own song with "remix" where all songs have the
        same stems. Further stems are in the mixture too, as references.
    augment: names in `AUGMENTATIONS`, each with a range of its own if it has one: "gain=0.5:2".
    duration_s: length of an item, in training of all items of a step; shorter songs are followed
        by silence. sample_rate: Hz.
    mixture_gain_db: gain of everything. downmix: to mono, by the mean.
    min_rms_db: stretches are drawn again where a target is quieter than this, re full scale. None
        takes all, silence too, of which songs have much; so do instruments of a remix.
    peak: when a sample would exceed it, all signals are scaled down together. 0 means no limit.
    Raises SepcliError for a value that makes no sense.
    """

    stems: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    augment: tuple[str, ...] = ()
    duration_s: tuple[float, float] = seconds(4.0)
    sample_rate: int = rate(44100)
    mixture_gain_db: tuple[float, float] = decibels(0, 0)
    downmix: bool = False
    min_rms_db: float | None = limited(None, -200, 200)
    peak: float = limited(0.99, 0)

    def __post_init__(self):
        super().__post_init__()
        for name in ("targets", "augment"):  # a,b is as good as (a, b)
            entries = ",".join(getattr(self, name)).split(",")
            object.__setattr__(self, name, tuple(entry for entry in entries if entry))
        self._check("stems", self.stems, "folders or packs of songs")
        self.ranges()

    def ranges(self) -> dict[Any, tuple[float, float]]:
        """{augmentation: its range, or None} of those that are asked for."""
        return dict(map(augmentation, self.augment))
