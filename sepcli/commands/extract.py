"""`sepcli extract`: one speaker out of a mixture, by a recording of that speaker."""

import json
from typing import Any

import click

from sepcli import options


@click.command("extract")
@click.argument("inputs", nargs=-1, metavar="[FILE|DIR|-]...")
@click.option(
    "--ref",
    "references",
    multiple=True,
    metavar="FILE",
    help="Recording of the speaker, at least 0.5 s; several of the same speaker help.  "
    "[default: enroll of every sample]",
)
@options.model
@click.option(
    "--absent-threshold",
    type=options.Number(0, 1),
    default=0.0,
    show_default=True,
    help="Silence where the presence of the speaker, from 0 to 1, is below this.",
)
@click.option(
    "--confusion-check",
    is_flag=True,
    help="Where the rest of the mixture is more like the references than the estimate is, output "
    "the rest; for models that tell voices apart.",
)
@click.option(
    "--residual", is_flag=True, help="Also write the residual: the mixture minus the speaker."
)
@options.separation
@options.as_json
@options.progress
@options.quiet
def command(
    inputs: tuple[str, ...],
    model: str | None,
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
    as_json: bool,
    quiet: bool,
    progress: str,
    **choices: Any,
) -> None:
    """Extract one speaker, of whom there is a recording.

    The output has the sample rate, the channels and the whole band of the input.

    \b
        $ sepcli extract meeting.wav --ref anna.wav -o anna-alone.wav
        $ sepcli extract meetings/*.wav --ref anna.wav --residual --json -o anna/
        $ sepcli mix --interferers 1 --enroll --target-absent 0.2 | sepcli extract - | sepcli eval -

    Audio files become one file, or a folder TRACK/speech.wav. Samples get est.speech, and the
    presence in their JSON; their reference is enroll.wav unless --ref names others.

    The presence says how sure it is that the speaker is in the recording at all, from 0 to 1; with
    --json it is printed for every recording, as a whole and for stretches of about 4 s.
    """
    from sepcli.inference.blockwise import Method
    from sepcli.jobs.batch import Separation
    from sepcli.jobs.extract import MODEL, UNSURE, Extracting
    from sepcli.jobs.outputs import Form, Models, Part

    if as_json and output in (None, "-"):
        raise click.UsageError("--json takes standard output; name a file or folder with -o")
    given: dict[str, Any] = {"segment_s": segment_s, "overlap": overlap}
    method = Method(**{name: value for name, value in given.items() if value is not None})
    bar = options.Progress("Extracting", progress, quiet, spread)
    work = Extracting(
        Models((model or MODEL,), device, method, spread.threads(threads)),
        part=Part(start_s, duration_s),
        form=Form(template, container, subtype),
        tell=bar.within,
        **choices,
    )
    job = Separation(work, output, overwrite, input_type, spread)
    job.find(inputs or ("-",))

    def tell(record):
        if as_json:
            click.echo(json.dumps(record))
        elif not quiet and record.get("presence", 1) < UNSURE:
            click.echo(unsure(record), err=True)

    options.carry_out(job, bar, quiet=quiet, verb="extracted from", tell=tell)


def unsure(record: dict[str, Any]) -> str:
    """The line on a recording in which the speaker is probably not."""
    presence = f"presence {record['presence']:.2f}"
    return f"{record['input']}: {presence}, the speaker is probably not there"
