"""`sepcli separate`: mixtures in, stems out."""

import click

from sepcli import options
from sepcli.errors import SepcliError


@click.command("separate")
@click.argument("inputs", nargs=-1, metavar="[FILE|DIR|-]...")
@options.model
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A source to write; repeatable. [default: what a sample asks for; all of audio]",
)
@options.output
@click.option(
    "--filename",
    "template",
    default="{track}/{stem}.{ext}",
    show_default=True,
    help="Names of the stems below the output folder; {model} is known, too.",
)
@click.option("--subtype", metavar="NAME", help="E.g. PCM_16, PCM_24, FLOAT. [default: FLOAT]")
@options.overwrite
@options.device
@options.threads
@options.strict
@options.input_type
@options.progress
@options.quiet
def command(inputs, model, device, threads, template, quiet, progress, **choices):
    """Separate mixtures into their sources, at the rate and channels of the input.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli separate -m denoise noisy/*.wav --target speech -o clean/
        $ ffmpeg -i x.mp4 -f wav - | sepcli separate -m denoise --target speech - > speech.wav

    Audio files become stems in a folder, by default separated/MODEL/TRACK/STEM.wav, or one file
    when -o names one and --target one source. Samples (from sepcli mix, a tar, or folders
    KEY/mix.wav) get their estimates added and go on to -o, or to standard output. The default
    model is denoise for samples that ask for speech, and vocals for audio files.
    """
    from sepcli.engine.stems import Models, Separation

    if threads:
        import torch

        torch.set_num_threads(threads)
    job = Separation(Models(model, device), template=template, **choices)
    failed = 0
    for record in options.watch(job.run(inputs or ("-",)), "Separating", progress, quiet):
        if "error" in record:
            failed += 1
            click.echo(f"Failed: {record['error']}", err=True)
        elif not quiet:
            for note in record["notes"]:
                click.echo(note, err=True)
    if failed:
        raise SepcliError(f"{failed} of {job.count} could not be separated, see above")
