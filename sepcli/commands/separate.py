"""`sepcli separate`: mixtures in, stems out."""

from typing import Any

import click

from sepcli import options

GL_ITERATIONS = 32


@click.command("separate")
@click.argument("inputs", nargs=-1, metavar="[FILE|DIR|-]...")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FILE|DIR",
    help="A shipped model, a model file or a run folder; the estimates of several are averaged.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Source to write; repeatable.  [default: the targets of a sample; all sources of audio]",
)
@click.option(
    "--residual",
    is_flag=True,
    help="Also write the residual: the mixture minus the written sources.",
)
@click.option(
    "--wiener",
    type=click.IntRange(0, 100),
    metavar="N",
    help="Iterations of a multichannel Wiener filter, for models that estimate spectra, such as "
    "open_unmix.  [default: 0]",
)
@click.option(
    "--griffin-lim",
    is_flag=True,
    help="Estimate the phase by Griffin-Lim instead of keeping the mixture's; for models "
    "that estimate "
    "spectra.",
)
@click.option(
    "--gl-iters",
    type=click.IntRange(1, 10_000),
    help=f"Iterations of --griffin-lim.  [default: {GL_ITERATIONS}]",
)
@click.option(
    "--gl-init",
    type=click.Choice(["mix", "random"]),
    help="Initial phase of --griffin-lim: the mixture's, or random, which leads to a "
    "negative SDR.  "
    "[default: mix]",
)
@click.option(
    "--vocoder",
    metavar="mel|FILE.onnx",
    help="Synthesise from the mel bands of the estimates: with magnitudes fitted to 128 "
    "bands (mel; add "
    "--griffin-lim), or with an ONNX graph from bands to samples.",
)
@click.option(
    "--full-band",
    is_flag=True,
    help="Keep the band above the model's in recordings of a higher sample rate, with the gain at "
    "the top of the model's band; for speech.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="For models that need the whole signal, on a CPU: auto runs the graph beside the weights "
    "or in the cache, which takes less time and memory, where there is one; onnx makes one, once.",
)
@options.separation
@options.progress
@options.quiet
def command(
    inputs: tuple[str, ...],
    models: Any,
    wiener: int | None,
    vocoder: str | None,
    griffin_lim: bool,
    gl_iters: int | None,
    gl_init: str | None,
    full_band: bool,
    engine: str,
    segment_s: float | None,
    overlap: float | None,
    start_s: Any,
    duration_s: Any,
    template: str,
    container: str | None,
    subtype: str | None,
    output: str | None,
    overwrite: bool | None,
    input_type: str,
    spread: Any,
    device: str,
    threads: int | None,
    quiet: bool,
    progress: str,
    **choices: Any,
) -> None:
    """Separate mixtures into their sources.

    The output has the sample rate and the channels of the input.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli separate -m denoise noisy/*.wav --target speech -o clean/
        $ ffmpeg -i x.mp4 -f wav - | sepcli separate -m denoise --target speech - > speech.wav
        $ sepcli separate -m denoise --full-band interview-48k.wav --target speech -o clean.wav
        $ sepcli separate -m umx/ song.flac --target vocals --residual --format flac

    Audio files, folders and globs ('songs/*.wav') become stems in a folder, by default
    separated/MODEL/TRACK/STEM.wav, or one file when -o ends like one and --target names one
    source; songs of MUSDB (TRACK/mixture.wav, TRACK.stem.mp4) do so where -o is a folder, and
    their accompaniment comes with them. Tracks of the same name keep their folders. An input that
    cannot be separated is named, and the others are done. Samples (from sepcli mix, a tar, or
    folders KEY/mix.wav) get their estimates added and go on to -o, or to standard output. The
    default model is denoise for samples that ask for speech, and vocals for those that ask for
    vocals and for audio files.

    Files may be of any length: they are read, separated and written piece by piece. A stereo model
    takes the channels of other files in pairs.
    """
    from sepcli.inference.blockwise import Method
    from sepcli.jobs.batch import Separation
    from sepcli.jobs.outputs import Form, Models, Part
    from sepcli.jobs.work import Work

    if not griffin_lim and (gl_iters or gl_init):
        raise click.UsageError("--gl-iters and --gl-init go with --griffin-lim; add it.")
    if griffin_lim and vocoder not in (None, "mel"):
        raise click.UsageError("a vocoder has phases of its own; omit --griffin-lim.")
    given = {
        "segment_s": segment_s,
        "overlap": overlap,
        "wiener": wiener,
        "vocoder": vocoder,
        "griffin_lim": (gl_iters or GL_ITERATIONS) if griffin_lim else None,
        "gl_init": gl_init,
        "full_band": full_band,
    }
    method = Method(**{name: value for name, value in given.items() if value is not None})
    bar = options.Progress("Separating", progress, quiet, spread)
    work = Work(
        Models(models, device, method, spread.threads(threads), engine),
        part=Part(start_s, duration_s),
        form=Form(template, container, subtype),
        tell=bar.within,
        **choices,
    )
    job = Separation(work, output, overwrite, input_type, spread)
    job.find(inputs or ("-",))
    options.carry_out(job, bar, quiet=quiet, verb="separated")
