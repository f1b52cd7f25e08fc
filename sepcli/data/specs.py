"""What whole batches of excerpts in memory are like: settings, their defaults and limits."""

from dataclasses import dataclass

from sepcli.mixing.specs import TARGETS, Spec, choice, decibels, limited, probability, rate


@dataclass(frozen=True)
class ExcerptSpec(Spec):
    """What is kept in memory, and what is made of it. A pair is a range to draw from.

    In memory, drawn once:
    speech, noise, rir: sources of recordings, see `Pool`; empty ones are synthetic.
    speech_minutes, noise_minutes: of sound, in excerpts of `excerpt_s`. min_rms_db: stretches are
        drawn again where they are quieter than this, re full scale.
    made_noise: share of noise that is synthetic where `noise` names recordings. repeat_prob: how
        often an excerpt of noise is of one recording alone; a short one sounds again and again,
        with pauses of `pause_s`.
    rooms: responses, of `rir_s` at most; made_rooms: the share of synthetic ones where `rir` names
        recordings, of which shorten_prob are shortened to an RT60 of `shorten_s`.

    Anew for every item:
    duration_s: its length. sample_rate: Hz.
    speed, noise_speed: how much faster it is played, with probability speed_prob, noise_speed_prob.
    equaliser_db, noise_equaliser_db: standard deviation of the gains of a random equaliser, with
        probability equaliser_prob, noise_equaliser_prob.
    varying_db, noise_varying_db: largest standard deviation of gains that vary smoothly over time
        and frequency, with probability varying_prob, noise_varying_prob.
    low_pass_hz: cutoff of a low-pass filter, with probability low_pass_prob on everything, and
        speech_low_pass_prob on the speech alone.
    second_noise: how often there are two noises, the second `second_noise_db` re the first.
    babble: how often a noise is that of `babble_voices` voices.
    late_speech: how often the speech begins in the middle. noise_change: how often the noise does,
        or ends there; it is 10 to 60 dB softer on the other side.
    rir_prob, noise_rir_prob: how often the speech, and the noise, is in a room.
    target: what the reference of speech in a room is, see `MixtureSpec`; rir_decay_s likewise.
    snr_db: speech as it is heard re noise. level_db: RMS of the mixture re full scale, or of
        `wide_level_db` with probability wide_level_prob.
    clip_prob: how often the mixture, but not the reference, is softly clipped at `clip` times its
        peak.
    Raises SepcliError for a value that makes no sense.
    """

    speech: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    speech_minutes: float = limited(60.0, 0, above=True)
    noise_minutes: float = limited(60.0, 0, above=True)
    excerpt_s: float = limited(8.0, 0.01, 3600)
    min_rms_db: float = limited(-45.0, -200, 200)
    made_noise: float = probability()
    repeat_prob: float = probability(0.5)
    pause_s: tuple[float, float] = limited((0.0, 1.0), 0, 3600)
    rooms: int = limited(200, 1)
    rir_s: float = limited(1.0, 0, above=True)
    made_rooms: float = probability(0.5)
    shorten_prob: float = probability(0.5)
    shorten_s: tuple[float, float] = limited((0.2, 1.0), 0, above=True)
    duration_s: float = limited(4.0, 0.01, 3600)
    sample_rate: int = rate(16000)
    speed: tuple[float, float] = limited((1.0, 1.0), 0.25, 4)
    speed_prob: float = probability(0.5)
    noise_speed: tuple[float, float] = limited((1.0, 1.0), 0.25, 4)
    noise_speed_prob: float = probability(0.5)
    equaliser_db: float = limited(0.0, 0, 60)
    equaliser_prob: float = probability(0.5)
    noise_equaliser_db: float = limited(0.0, 0, 60)
    noise_equaliser_prob: float = probability(0.5)
    varying_db: float = limited(0.0, 0, 60)
    varying_prob: float = probability()
    noise_varying_db: float = limited(0.0, 0, 60)
    noise_varying_prob: float = probability()
    low_pass_hz: tuple[float, float] = limited((3000.0, 7500.0), 1)
    low_pass_prob: float = probability()
    speech_low_pass_prob: float = probability()
    second_noise: float = probability()
    second_noise_db: tuple[float, float] = decibels(-16, 0)
    babble: float = probability()
    babble_voices: tuple[int, int] = limited((2, 6), 1, 20)
    late_speech: float = probability()
    noise_change: float = probability()
    rir_prob: float = probability()
    noise_rir_prob: float = probability()
    target: str = choice("reverb", TARGETS)
    rir_decay_s: float = limited(0.3, 0, above=True)
    snr_db: tuple[float, float] = decibels(-5, 15)
    level_db: tuple[float, float] = decibels(-38, -14)
    wide_level_db: tuple[float, float] = decibels(-62, -12)
    wide_level_prob: float = probability()
    clip_prob: float = probability()
    clip: tuple[float, float] = limited((0.2, 0.7), 0, above=True)

    def __post_init__(self):
        super().__post_init__()
        longest = self.duration_s * max(self.speed[1], self.noise_speed[1])
        fits = f"at least {longest:g}, duration_s times the speed"
        self._check("excerpt_s", self.excerpt_s >= longest, fits)
        for name in ("speech_minutes", "noise_minutes"):
            self._check(name, 60 * getattr(self, name) >= self.excerpt_s, "an excerpt or more")


@dataclass(frozen=True)
class VoiceSpec(ExcerptSpec):
    """Several people at once, out of memory: as in `ExcerptSpec`, where speech is one voice each.

    In memory: of each speaker the same number of excerpts, half of them to be heard in mixtures
    while the others are enrolments, which no recording of the first half is heard in.

    speaker_regex, interferers, sir_db, target_absent, enroll, enroll_s, noisy_enroll and
    enroll_snr_db: see `SpeakerSpec`; but enroll_s is one number, and `snr_db` is that of all
    voices. noise_prob: how often there is noise.
    """

    speaker_regex: str = ""
    interferers: tuple[int, int] = limited((1, 2), 0, 3)
    sir_db: tuple[float, float] = decibels(-5, 5)
    target_absent: float = probability()
    enroll: bool = False
    enroll_s: float = limited(4.0, 0.5, 3600)
    noisy_enroll: float = probability()
    enroll_snr_db: tuple[float, float] = decibels(0, 20)
    noise_prob: float = probability(1.0)

    def __post_init__(self):
        super().__post_init__()
        longest = self.enroll_s * self.speed[1]
        fits = f"at least {longest:g}, enroll_s times the speed"
        self._check("excerpt_s", self.excerpt_s >= longest, fits)
