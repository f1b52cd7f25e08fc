"""`sepcli mix`: samples of speech in noise."""

import math
import re
from collections.abc import Iterator
from typing import Any

import click

from sepcli import options
from sepcli.errors import SepcliError
from sepcli.mixing.augmentations import AUGMENTATIONS
from sepcli.mixing.specs import PRESETS, MixtureSpec, SpeakerSpec, StemSpec

EXPLAINED = {  # augmentations that do not explain themselves
    "remix": "stems of different songs",
    "pitch": "semitones, at the same tempo",
    "stretch": "tempo, at the same pitch",
    "time-mask": "s",
    "freq-mask": "octaves",
}


GROUPS = {
    "Sources": ("speech", "noise", "rir", "stems", "count", "duration_s", "sample_rate", "preset"),
    "Levels": ("snr_db", "level_db", "mixture_gain_db", "level_of", "min_rms_db", "peak"),
    "Rooms": ("rir_prob", "noise_rir_prob", "target", "rir_decay_s"),
    "Several speakers": (
        "interferers", "sir_db", "target_absent", "speed", "enroll", "enroll_s",
        "enroll_rir_prob", "noisy_enroll", "enroll_snr_db", "speaker_regex",
    ),
    "Music": ("targets", "augment", "downmix"),
    "Output": ("output", "overwrite", "progress", "quiet"),
}  # fmt: skip


def setting(spec: Any, field: str, text: str, flag: str | None = None) -> Any:
    """The option of a field of `spec`, with its default and its limits."""
    about, flag = spec.__dataclass_fields__[field], flag or _flag(field)
    if about.default is False:
        return click.option(flag, field, is_flag=True, help=text)
    shown = {"default": _written(about.default), "show_default": about.default not in (None, "")}
    return click.option(flag, field, type=_kind(about), help=text, **shown)


def _flag(field):
    """--snr of "snr_db": units are in the help."""
    return f"--{re.sub('_(db|s)$', '', field).replace('_', '-')}"


def _kind(about):
    """The type of an option for a field of a spec."""
    if choices := about.metadata.get("choices"):
        return click.Choice(choices)
    limits = about.metadata.get("limits")
    if isinstance(about.default, tuple):
        return options.Range(type(about.default[0]), limits.low, limits.high)
    if isinstance(about.default, int):
        return click.IntRange(limits.low, limits.high)
    if limits:
        high = limits.high if limits.high < math.inf else None
        return options.Number(limits.low, high, min_open=limits.above)
    return str


def _written(value):
    """A value as it would be typed."""
    if isinstance(value, tuple):
        return ":".join(f"{number:g}" for number in dict.fromkeys(value))
    return f"{value:g}" if isinstance(value, float) else value


def _augmentation(name):
    """An augmentation as it would be typed, with its range, and what it is."""
    typed = name + (f"={_written(pair)}" if (pair := AUGMENTATIONS[name]) else "")
    return f"{typed} ({EXPLAINED[name]})" if name in EXPLAINED else typed


def _preset(name):
    """A preset and the options that it stands for."""
    stands_for = (f"{_flag(field)} {_written(value)}" for field, value in PRESETS[name].items())
    return f"{name}: {', '.join(stands_for)}"


def listed(field: str, metavar: str, text: str) -> Any:
    """A repeatable option of a field that is a list of texts."""
    return click.option(f"--{field}", multiple=True, metavar=metavar, help=text)


@click.command(cls=options.Grouped, groups=GROUPS)
@listed(
    "speech",
    "PATH[=WEIGHT]",
    "Clean speech: folder, glob, file, list (.txt, .jsonl), pack (.h5) or sample tar; repeatable.",
)
@listed("noise", "PATH[=WEIGHT]", "Noise, likewise.")
@listed("rir", "PATH[=WEIGHT]", "Room impulse responses, likewise.")
@listed(
    "stems",
    "PATH[=WEIGHT]",
    "Mix music from stems: folders or packs of SONG/STEM.wav, or a folder with vocals/SONG.wav "
    "and accomp/SONG.wav.",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Number of samples; 0 makes samples until the output is closed.",
)
@setting(MixtureSpec, "duration_s", "Duration in seconds: LO:HI or one number.")
@click.option(
    "--sample-rate",
    type=_kind(MixtureSpec.__dataclass_fields__["sample_rate"]),
    default=MixtureSpec.sample_rate,
    help="Sample rate in Hz; recordings are resampled.  "
    f"[default: {MixtureSpec.sample_rate}; {StemSpec.sample_rate} with --stems]",
)
@setting(MixtureSpec, "snr_db", "SNR of the mixture, in dB.")
@setting(MixtureSpec, "level_db", "RMS level of the speech in the mixture, in dBFS.")
@setting(MixtureSpec, "mixture_gain_db", "Additional gain of the whole mixture, in dB.")
@setting(
    MixtureSpec,
    "level_of",
    "Signal that --level and --snr refer to in a room: the reverberant speech, or the --target.",
)
@setting(
    MixtureSpec,
    "rir_prob",
    "Probability that the speech is in a room.  [default: 0.5 with --rir, else 0]",
)
@setting(MixtureSpec, "noise_rir_prob", "Probability that the noise is in a room.")
@setting(
    MixtureSpec,
    "target",
    "Reference of speech in a room: the direct sound alone, the speech in the room shortened by "
    "--rir-decay, or the reverberant speech.",
)
@setting(
    MixtureSpec,
    "rir_decay_s",
    "For --target decayed: time in seconds in which the added decay reaches 60 dB, starting "
    "20 ms after the main tap, as in sepcli rir-decay.",
)
@setting(
    MixtureSpec,
    "min_rms_db",
    "Lowest RMS level of a crop, in dBFS; quieter crops are drawn again. With --stems only when "
    "given.",
)
@setting(
    MixtureSpec,
    "peak",
    "Highest peak of a sample, which is attenuated as a whole to stay below it; 0 means no limit.",
)
@setting(SpeakerSpec, "interferers", "Number of other speakers.")
@setting(SpeakerSpec, "sir_db", "Level of the target relative to each interferer, in dB.")
@setting(SpeakerSpec, "target_absent", "Probability that the target is silent.")
@setting(SpeakerSpec, "speed", "Speed factor of each speaker (changes tempo and pitch).")
@setting(SpeakerSpec, "enroll", "Add enroll.wav, another utterance of the target.")
@setting(SpeakerSpec, "enroll_s", "Duration of the enrolment in seconds.", "--enroll-duration")
@setting(
    SpeakerSpec,
    "enroll_rir_prob",
    "Probability that the enrolment is in a room of its own.  [default: --rir-prob]",
)
@setting(SpeakerSpec, "noisy_enroll", "Probability that the enrolment is noisy.")
@setting(SpeakerSpec, "enroll_snr_db", "SNR of a noisy enrolment, in dB.")
@click.option(
    "--speaker-regex",
    default=SpeakerSpec.speaker_regex,
    metavar="REGEX",
    help="Regular expression whose first group, in a recording's path below its source, names the "
    "speaker.  "
    "[default: the first folder of that path]",
)
@listed(
    "targets",
    "STEM,…",
    "Target stems; accompaniment stands for all others.  [default: all]",
)
@listed(
    "augment",
    "NAME[=LO:HI],…",
    f"Augmentations of music: {', '.join(map(_augmentation, AUGMENTATIONS))}.",
)
@setting(StemSpec, "downmix", "Mix music to mono.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help=f"Set of other defaults. {'; '.join(map(_preset, PRESETS))}.",
)
@options.seed
@options.spread
@options.output
@options.overwrite
@options.progress
@options.quiet
@click.pass_context
def command(
    context: click.Context,
    count: int,
    seed: int,
    spread: Any,
    output: str | None,
    overwrite: bool | None,
    progress: str,
    quiet: bool,
    preset: str | None,
    **settings: Any,
) -> None:
    """Mix speech and noise, several speakers, or music.

    Without recordings, speech and noise are synthetic.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli mix --speech speech/ --noise rain/=0.7 --noise 'street/*.wav' -n 1000 -o mixtures
        $ sepcli mix --rir rooms.txt --target dry -n 1000 -j 4 -o mixtures.tar
        $ sepcli mix --enroll --interferers 1:2 --target-absent 0.2 -o speakers
        $ sepcli mix --stems MUSDB/train --augment swap,gain,remix -o music

    Every sample holds mix.wav, ref.speech.wav and ref.noise.wav (float32) and, in its JSON, all
    that was drawn: files, places, gains, rooms. Sample i is the same whatever -n, -j and --shard
    are. Recordings at other rates are resampled, channels are averaged, files shorter than
    --duration are joined. mix = ref.speech + ref.noise, except in a room with --target dry or
    decayed.

    Any of --interferers, --sir, --target-absent, --speed, --enroll or --speaker-regex makes samples
    of several speakers: mix = ref.speech (the target) + ref.interferers + ref.noise, --level and
    --snr are those of all speech, and speakers are the folders in --speech. With --stems, samples
    are music: mix is the sum of ref.STEM.
    """
    from contextlib import closing
    from functools import partial
    from itertools import count as count_up

    from sepcli.mixing.mixtures import draw_among_good, sample_key
    from sepcli.samples.streams import open_sample_writer, place_of

    given = {name: value for name, value in settings.items() if _is_given(context, name)}
    draw = partial(draw_among_good, _mixer(PRESETS.get(preset or "", {}) | given), seed)
    numbers = spread.shard.of(range(count) if count else count_up())
    total = spread.shard.size(count) if count else None
    faults, written = Faults(), options.Written()
    with open_sample_writer(output, overwrite=overwrite) as writer:
        wanted = (number for number in numbers if not writer.skips(sample_key(number)))
        with closing(spread.each(draw, wanted)) as drawn:
            keys = (sample.key for sample in faults.watch(drawn) if writer.write(sample))
            records = ({"key": key, "outputs": [place_of(key, output)]} for key in keys)
            bar = options.Progress("Mixing", progress, quiet, spread)
            for record in bar.watch(records, total):
                written.add(*record["outputs"])
    faults.tell_rest()
    written.tell(quiet or progress == "json", "sample")
    faults.check()


class Faults(options.Failures):
    """Recordings that could not be read, each named once; others are drawn in their place."""

    def __init__(self) -> None:
        super().__init__()
        self._known = set()

    def watch(self, drawn: Any) -> Iterator[Any]:
        """Pass on the samples in what `draw_among_good` returns; raise its errors."""
        for sample, faults in drawn:
            for recording, reason in faults.items():
                if recording not in self._known:
                    self._known.add(recording)
                    self.add(reason)
            if isinstance(sample, SepcliError):
                raise sample
            yield sample

    def check(self) -> None:
        """Raise SepcliError if there were any."""
        if self.count:
            what = "recordings" if self.count > 1 else "recording"
            raise SepcliError(
                f"{self.count} {what} could not be used, and others were drawn instead; see above"
            )


def _is_given(context, name):
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _mixer(settings):
    """What makes the samples that `settings` are for."""
    from sepcli.mixing.mixtures import Mixer
    from sepcli.mixing.music import StemMixer
    from sepcli.mixing.speakers import SpeakerMixer

    known = {spec: set(spec.__dataclass_fields__) for spec in (MixtureSpec, SpeakerSpec, StemSpec)}
    if settings.keys() & (known[StemSpec] - known[SpeakerSpec]):
        spec, mixer = StemSpec, StemMixer
    elif settings.keys() <= known[MixtureSpec]:
        spec, mixer = MixtureSpec, Mixer
    else:
        spec, mixer = SpeakerSpec, SpeakerMixer
    if others := sorted(settings.keys() - known[spec]):
        names = [parameter.opts[0] for parameter in command.params if parameter.name in others]
        raise click.UsageError(f"{', '.join(names)}: for speech, which music (--stems) is not")
    make: Any = mixer
    return make(spec(**settings))
