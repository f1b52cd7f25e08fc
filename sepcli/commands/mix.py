"""`sepcli mix`: samples of speech in noise."""

import click

from sepcli import options


def sources(name, text):
    """A repeatable option that names recordings."""
    return click.option(f"--{name}", multiple=True, metavar="PATH[=WEIGHT]", help=text)


def ranged(name, field, default, text, **limits):
    """An option that is a range to draw from."""
    kind = options.Range(**limits)
    return click.option(
        f"--{name}", field, type=kind, default=default, show_default=True, help=text
    )


def probability(name, field, text):
    """An option that says how often something happens, by default never."""
    kind = click.FloatRange(0, 1)
    return click.option(f"--{name}", field, type=kind, default=0, show_default=True, help=text)


@click.command()
@sources(
    "speech",
    "Clean speech: folder, glob, file, list (.txt, .jsonl), pack (.h5) or sample tar; repeatable.",
)
@sources("noise", "Noise, likewise.")
@sources("rir", "Room impulse responses, likewise.")
@sources(
    "stems",
    "Music instead: folders or packs of SONG/STEM.wav, or a folder of vocals/SONG.wav, accomp/….",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many samples; 0 makes them until nobody reads on.",
)
@click.option(
    "--duration",
    "duration_s",
    type=options.Range(minimum=0.1, maximum=3600),
    default="4",
    show_default=True,
    help="Seconds, LO:HI or one number.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(4000, 768_000),
    default=16000,
    help="Hz; recordings are resampled.  [default: 16000; 44100 with --stems]",
)
@click.option(
    "--snr",
    "snr_db",
    type=options.Range(),
    default="-5:15",
    show_default=True,
    help="Speech above noise, as both are in the mixture, in dB.",
)
@click.option(
    "--level",
    "level_db",
    type=options.Range(),
    default="-25",
    show_default=True,
    help="RMS of the speech in the mixture, in dB re full scale.",
)
@click.option(
    "--mixture-gain",
    "mixture_gain_db",
    type=options.Range(),
    default="0",
    show_default=True,
    help="Gain of everything on top of that, in dB.",
)
@click.option(
    "--rir-prob",
    type=click.FloatRange(0, 1),
    help="How often the speech is heard in a room.  [default: 0.5 with --rir, else 0]",
)
@click.option(
    "--noise-rir-prob",
    type=click.FloatRange(0, 1),
    default=0,
    show_default=True,
    help="How often the noise is.",
)
@click.option(
    "--target",
    type=click.Choice(["dry", "decayed", "reverb"]),
    default="reverb",
    show_default=True,
    help="The reference in a room: the direct sound alone, the speech in the room shortened by "
    "--rir-decay, or as it is heard.",
)
@click.option(
    "--rir-decay",
    "rir_decay_s",
    type=click.FloatRange(min=0, min_open=True),
    default=0.3,
    show_default=True,
    help="For --target decayed: the seconds in which the room falls by 60 dB more than it did, "
    "from 20 ms behind the main tap on, as sepcli rir-decay does it.",
)
@click.option(
    "--min-rms",
    "min_rms_db",
    type=float,
    default=-38,
    show_default=True,
    help="Recordings are drawn again where they are quieter, in dB re full scale.",
)
@click.option(
    "--peak",
    type=click.FloatRange(min=0),
    default=0.99,
    show_default=True,
    help="Turn a sample down as a whole rather than exceed this; 0 is no limit.",
)
@ranged("interferers", "interferers", "1:3", "Other speakers at once.", number=int, minimum=0)
@ranged("sir", "sir_db", "-5:5", "The target above each of them, in dB.")
@probability("target-absent", "target_absent", "How often only the others speak.")
@ranged("speed", "speed", "1", "Tempo and pitch of each speaker.", minimum=0.25, maximum=4)
@click.option("--enroll", is_flag=True, help="Add enroll.wav, the target in another recording.")
@ranged("enroll-duration", "enroll_s", "4", "Its seconds.", minimum=0.1, maximum=3600)
@click.option(
    "--enroll-rir-prob",
    type=click.FloatRange(0, 1),
    help="How often it is heard in a room of its own.  [default: --rir-prob]",
)
@probability("noisy-enroll", "noisy_enroll", "How often it has noise.")
@ranged("enroll-snr", "enroll_snr_db", "0:20", "It above that noise, in dB.")
@click.option(
    "--speaker-regex",
    default="",
    metavar="REGEX",
    help="Its first group, in a recording's path below its source, is the speaker.  "
    "[default: the first folder of that path]",
)
@click.option(
    "--targets",
    multiple=True,
    metavar="STEM,…",
    help="Stems to be found; accompaniment may be all others.  [default: all]",
)
@click.option(
    "--augment",
    multiple=True,
    metavar="NAME[=LO:HI],…",
    help="Of music: swap, polarity, remix (stems of different songs), gain=0.25:1.25, pitch=-2:2 "
    "(semitones, at the same tempo), stretch=0.9:1.1 (tempo, at the same pitch), "
    "time-mask=0:0.5 (s), freq-mask=0:1 (octaves).",
)
@click.option("--downmix", is_flag=True, help="Music in mono.")
@click.option(
    "--preset",
    type=click.Choice(["poconet"]),
    help="Other defaults. poconet: half of the speech and noise in rooms, --target decayed, "
    "--level -20, --snr -5:5, --mixture-gain -25:5.",
)
@options.seed
@options.jobs
@options.output
@options.overwrite
@options.progress
@options.quiet
@click.pass_context
def command(context, count, seed, jobs, output, overwrite, progress, quiet, preset, **settings):
    """Mix speech and noise, speakers, or music; without recordings, made-up speech and noise.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli mix --speech speech/ --noise rain/=0.7 --noise 'street/*.wav' -n 1000 -o mixtures
        $ sepcli mix --rir rooms.txt --target dry -n 1000 -j 4 -o mixtures.tar
        $ sepcli mix --enroll --interferers 1:2 --target-absent 0.2 -o speakers
        $ sepcli mix --stems MUSDB/train --augment swap,gain,remix -o music

    Every sample holds mix.wav, ref.speech.wav and ref.noise.wav (float32) and, in its JSON, all
    that was drawn: files, places, gains, rooms. Sample i is the same whatever -n and -j are.
    Recordings at other rates are resampled, channels are averaged, files shorter than --duration
    are joined. mix = ref.speech + ref.noise, except in a room with --target dry or decayed.

    Any of --interferers, --sir, --target-absent, --speed, --enroll or --speaker-regex makes samples
    of several speakers: mix = ref.speech (the target) + ref.interferers + ref.noise, --level and
    --snr are those of all speech, and speakers are the folders in --speech. With --stems, samples
    are music: mix is the sum of ref.STEM.
    """
    from contextlib import closing
    from functools import partial
    from itertools import count as count_up

    from sepcli.mixing.mixtures import PRESETS, draw_sample, sample_key
    from sepcli.samples.streams import open_sample_writer
    from sepcli.samples.workers import in_order

    given = {name: value for name, value in settings.items() if _is_given(context, name)}
    draw = partial(draw_sample, _mixer(PRESETS.get(preset, {}) | given), seed)
    numbers = range(count) if count else count_up()
    with open_sample_writer(output, overwrite=overwrite) as writer:
        wanted = (number for number in numbers if not writer.skips(sample_key(number)))
        with closing(in_order(draw, wanted, jobs=jobs)) as samples:
            records = ({"key": sample.key} for sample in samples if writer.write(sample))
            for _ in options.watch(records, "Mixing", progress, quiet, total=count or None):
                pass


def _is_given(context, name):
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _mixer(settings):
    """What makes the samples that `settings` are for."""
    from sepcli.mixing.mixtures import Mixer, MixtureSpec
    from sepcli.mixing.music import StemMixer, StemSpec
    from sepcli.mixing.speakers import SpeakerMixer, SpeakerSpec

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
    return mixer(spec(**settings))
