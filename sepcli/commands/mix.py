"""`sepcli mix`: samples of speech in noise."""

import click

from sepcli import options


def sources(name, text):
    """A repeatable option that names recordings."""
    return click.option(f"--{name}", multiple=True, metavar="PATH[=WEIGHT]", help=text)


@click.command()
@sources("speech", "Clean speech: a folder, glob, file or list (.txt, .jsonl); repeatable.")
@sources("noise", "Noise, likewise.")
@sources("rir", "Room impulse responses, likewise.")
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
    show_default=True,
    help="Hz; recordings are resampled.",
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
@options.seed
@options.jobs
@options.output
@options.overwrite
@options.progress
@options.quiet
def command(count, seed, jobs, output, overwrite, progress, quiet, **spec):
    """Mix speech and noise; without recordings, made-up ones are mixed.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli mix --speech speech/ --noise rain/=0.7 --noise 'street/*.wav' -n 1000 -o mixtures
        $ sepcli mix --rir rooms.txt --target dry -n 1000 -j 4 -o mixtures.tar

    Every sample holds mix.wav, ref.speech.wav and ref.noise.wav (float32) and, in its JSON, all
    that was drawn: files, places, gains, rooms. Sample i is the same whatever -n and -j are.
    Recordings at other rates are resampled, channels are averaged, files shorter than --duration
    are joined. mix = ref.speech + ref.noise, except in a room with --target dry or decayed.
    """
    from contextlib import closing
    from functools import partial
    from itertools import count as count_up

    from sepcli.data.mixtures import Mixer, MixtureSpec, draw_sample, sample_key
    from sepcli.data.samples import open_sample_writer
    from sepcli.data.workers import in_order

    draw = partial(draw_sample, Mixer(MixtureSpec(**spec)), seed)
    numbers = range(count) if count else count_up()
    with open_sample_writer(output, overwrite=overwrite) as writer:
        wanted = (number for number in numbers if not writer.skips(sample_key(number)))
        with closing(in_order(draw, wanted, jobs=jobs)) as samples:
            records = ({"key": sample.key} for sample in samples if writer.write(sample))
            for _ in options.watch(records, "Mixing", progress, quiet, total=count or None):
                pass
