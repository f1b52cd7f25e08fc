"""`sepcli eval`: how good estimates are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sepcli import files, metrics, options
from sepcli.cluster import objects
from sepcli.errors import SepcliError
from sepcli.options.metricnames import Limit, MetricNames

if TYPE_CHECKING:
    from sepcli.samples.sample import Sample
    from sepcli.scoring.evaluate import Row


FORMATS = {".json": "json", ".csv": "csv", ".md": "markdown"}
FRAMEWISE = tuple(name for name, metric in metrics.METRICS.items() if metric.framewise)
MUSEVAL = tuple(n for n, metric in metrics.METRICS.items() if metric.function == metrics.BSS_EVAL)


@click.command()
@click.argument("estimates", required=False, metavar="[SAMPLES|EST")
@click.argument("references", required=False, metavar="REF]")
@click.option("--mix", "mixtures", metavar="MIX", help="Mixtures that belong to EST and REF.")
@click.option(
    "--metrics",
    "names",
    type=MetricNames(),
    help=f"Metrics out of {', '.join(metrics.METRICS)}.  [default: sdr (of stems of music), "
    f"si-sdri (where "
    "there is a mixture), si-sdr and, unless the target's name is not speech, pesq, stoi]",
)
@click.option(
    "--window",
    "window_s",
    type=options.Number(0, 3600, min_open=True),
    default=1.0,
    show_default=True,
    help=f"Length of a frame of {', '.join(FRAMEWISE)} in seconds.",
)
@click.option(
    "--hop",
    "hop_s",
    type=options.Number(0, 3600, min_open=True),
    help="Hop between frames in seconds.  [default: the window, without overlap]",
)
@click.option(
    "--pad",
    is_flag=True,
    help="Append zeros to what is shorter than the longest signal it is scored with.",
)
@click.option(
    "--median-of-median",
    is_flag=True,
    help="Take the median over the frames of an item, then over items, as museval does; scores "
    f"{', '.join(FRAMEWISE)} unless --metrics says which of them.",
)
@click.option(
    "--museval",
    metavar="DIR",
    help=f"Write the frames' {', '.join(MUSEVAL)} to DIR/test/KEY.json in museval's format.",
)
@click.option(
    "--aggregate",
    type=click.Choice(["mean", "median"]),
    help="Statistic to show.  [default: both]",
)
@click.option(
    "--fail-under",
    "limits",
    type=Limit(),
    multiple=True,
    help="Exit with 1 when the mean (or what is shown instead) of a metric is below X, or above "
    "where less is better; repeatable.",
)
@click.option(
    "--compare",
    "old",
    type=click.Path(exists=True, dir_okay=False),
    metavar="OLD.json",
    help="Compare item by item with an earlier report, by what is shown; by the mean if both are.",
)
@click.option(
    "--json", "form", flag_value="json", help="Print every score and the statistics as JSON."
)
@click.option(
    "--csv", "form", flag_value="csv", help="Print every score as CSV, one line per item."
)
@click.option("--markdown", "form", flag_value="markdown", help="Print the table in Markdown.")
@click.option(
    "--html",
    metavar="REPORT",
    help="Also write a report with tables, box plots, spectrograms and listening samples.",
)
@click.option("--title", metavar="TEXT", help="Title of --html.")
@click.option(
    "--model",
    metavar="NAME|FILE|DIR",
    help="The model of the estimates, for --html: its settings and the curves of its training.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Output file; .json, .csv and .md also choose the format.",
)
@click.option(
    "--merge",
    "parts",
    multiple=True,
    metavar="REPORT.json",
    help="Instead of scoring, put the JSON reports of all shards together; a glob, or repeatable.",
)
@options.spread
@options.strict
@options.input_type
@options.progress
@options.quiet
def command(
    estimates: Any,
    references: str | None,
    mixtures: str | None,
    names: Any,
    window_s: float,
    hop_s: float | None,
    pad: bool,
    median_of_median: bool,
    museval: Any,
    aggregate: str | None,
    limits: Any,
    old: Any,
    form: str | None,
    html: Any,
    title: str | None,
    model: str | None,
    output: str | None,
    parts: Any,
    spread: Any,
    strict: bool,
    input_type: str,
    progress: str,
    quiet: bool,
) -> None:
    """Score estimates against their references.

    \b
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -
        $ sepcli eval enhanced/ clean/ --mix noisy/ --metrics si-sdri,pesq,stoi
        $ sepcli eval - --json -o new.json --compare old.json --fail-under si-sdri=5
        $ sepcli eval --median-of-median separated/umx/ musdb/test/ --html report.html
        $ sepcli eval samples/ --shard 1/8 -o part-1.json; sepcli eval --merge 'part-*.json'

    SAMPLES is a stream (-, the default in a pipe), a tar or a folder with est.* and ref.* in every
    sample. EST and REF are two files, or folders in which the same name means the same thing:
    KEY.wav, KEY/est.speech.wav and KEY/ref.speech.wav, or TRACK/vocals.wav.

    A silent reference has no score; such scores are counted as undefined and left out of mean and
    median, as infinite ones are. Signals of different lengths are an error unless --pad is given:
    nothing is cut. Other targets of the sample are scored all the same.

    sdr, isr, sir and sar are those of BSS Eval v4, equal to museval's: all targets of a sample are
    scored together, frame by frame, and a frame in which any of them is silent is left out; the
    score of the sample is the median of its frames. vocals and accompaniment are scored as a pair,
    and a reference "accompaniment" is made of all stems but the vocals where there is none.
    Estimates called accomp, instrumental, no_vocals, or residual beside vocals alone are the
    accompaniment.
    """
    from sepcli.scoring import museval_json, report
    from sepcli.scoring.framewise import Framing
    from sepcli.scoring.gallery import Gallery

    form = form or FORMATS.get(Path(output or "").suffix.lower())
    framing = Framing(window_s, hop_s or window_s)
    if names is None and (median_of_median or museval):
        names = FRAMEWISE
    check_frames(names, median_of_median, museval, aggregate)
    if parts:
        check_merge(estimates, html, museval)
    else:
        check_usage(estimates, references, mixtures, names, limits, old, form)
    check_outputs(output, html, museval, title or model)
    statistic = "median_of_median" if median_of_median else aggregate
    before = report.load(old) if old else None
    gallery, rows = Gallery() if html else None, []
    statistics = [statistic] if statistic else None
    if parts:
        scores = merge(parts, statistics)
    else:
        samples = find(estimates, references, mixtures, strict, input_type)
        settings = {"framing": framing, "pad": pad, "spread": spread}
        rows = collect(score(samples, names, settings, gallery), spread, progress, quiet)
        check_rows(rows, names)
        scores = report.build(rows, statistics, framing, spread.shard)
    if before:
        scores["compared"] = report.compare(scores, before, old, statistic or "mean")
    outputs = {
        output or "-": lambda: show(scores, form, output),
        html: lambda: write_html(html, scores, rows, gallery, title=title, model=model),
        museval: lambda: museval_json.save(museval, rows, framing),
    }
    complaints = write_all(outputs, quiet or progress == "json")
    complaints += report.shortfalls(scores, limits, statistic or "mean")
    if scores["failed"]:
        total = len(scores["failed"]) + len(scores["items"])
        complaints.append(f"{len(scores['failed'])} of {total} could not be scored, see above")
    end(complaints)


def end(complaints: list[str]) -> None:
    """Say what is wrong, and exit with 1 if anything is."""
    for line in complaints:
        click.echo(f"Error: {line}", err=True)
    if complaints:
        sys.exit(1)


def check_frames(
    names: Any, median_of_median: bool, museval: str | None, aggregate: str | None
) -> None:
    """Fail when what was asked of frames does not go with the metrics."""
    if median_of_median and aggregate:
        raise click.UsageError("--median-of-median excludes --aggregate; omit one of them.")
    if median_of_median and not set(names) <= set(FRAMEWISE):
        raise click.UsageError(
            f"--median-of-median is for metrics of frames: {', '.join(FRAMEWISE)}."
        )
    if museval and not set(MUSEVAL) <= set(names):
        raise click.UsageError(f"--museval needs all of {', '.join(MUSEVAL)} in --metrics.")


def check_usage(
    estimates: Any, references: Any, mixtures: Any, names: Any, limits: Any, old: Any, form: Any
) -> None:
    """Fail before any work on what cannot go together."""
    if estimates is None and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("Nothing to score: pipe samples in, or name EST and REF.")
    if mixtures and not references:
        raise click.UsageError("--mix goes with EST and REF; samples bring their own mixtures.")
    if old and form == "csv":
        raise click.UsageError("--csv cannot show --compare; use the table, --json or --markdown.")
    scored = names or [name for name, metric in metrics.METRICS.items() if metric.default_for]
    for name, _ in limits:
        if name not in scored:
            raise click.UsageError(f"--fail-under {name}: add it to --metrics.")


def check_merge(estimates: Any, html: Any, museval: Any) -> None:
    """Fail before any work on what does not go with reports that are put together."""
    if estimates or html or museval:
        what = "takes reports, without samples, --html and --museval."
        raise click.UsageError(f"--merge 'scores-*.json' {what}")


def merge(parts: Iterable[str], statistics: Any) -> dict[str, Any]:
    """The report out of those of all shards; the failures are named again."""
    from sepcli.samples.inputs import expand
    from sepcli.scoring import merging

    paths = sorted({path for part in parts for path in expand(part)})
    merged, failures = merging.merge(paths, statistics), options.Failures()
    for record in merged["failed"]:
        failures.add(record["error"])
    failures.tell_rest()
    return merged


def check_rows(rows: Any, names: Any) -> None:
    """Say what is left out for want of a package; fail where nothing could be scored."""
    from sepcli.scoring.evaluate import left_out

    for name in left_out({row.target for row in rows if not row.error and names is None}):
        reason = "left out because its package is not installed"
        click.echo(f"{name} is {reason}; {metrics.remedy(name)}", err=True)
    if rows and all(row.error for row in rows):
        raise SepcliError(f"none of {len(rows)} could be scored, see above")


def check_outputs(output: str | None, html: str | None, museval: str | None, about: Any) -> None:
    """Fail before any work on what cannot be written after it, or is `about` no report."""
    if about and not html:
        raise click.UsageError("--title and --model are for a report; add --html FILE")
    for path in (output, html):
        if path not in (None, "-") and not objects.is_url(path):
            files.check_place(path)
    if museval:
        files.check_place(museval, folder=True)
    if output in (None, "-"):
        options.check_stdout()


def write_all(outputs: Any, quiet: bool) -> list[Any]:
    """Write {path: function}; what fails does not keep the others from being written.

    Returns the lines that say what failed.
    """
    complaints, written = [], options.Written()
    for path, write in outputs.items():
        if path is None:
            continue
        try:
            write()
        except SepcliError as error:
            complaints.append(str(error))
            continue
        if path != "-":
            written.add(path)
    written.tell(quiet)
    return complaints


def find(
    estimates: Any, references: Any, mixtures: Any, strict: bool, input_type: str
) -> list[Sample] | Iterator[Sample]:
    """The samples that the arguments name."""
    from sepcli.samples.streams import read_samples, to_the_end
    from sepcli.scoring.pairs import pair

    if references:
        return pair(estimates, references, mixtures)
    source = estimates or "-"
    return to_the_end(read_samples(source, strict=strict, input_type=input_type), source)


def score(samples: Any, names: Any, settings: Any, gallery: Any) -> Iterator[Row]:
    """An iterator over the rows of samples, which a gallery, if any, sees, too."""
    from sepcli.scoring.evaluate import evaluate

    if gallery is None:
        yield from evaluate(samples, names, **settings)
        return
    for row in evaluate(gallery.watch(samples), names, **settings):
        gallery.see(row)
        yield row


def write_html(path: str, scores: dict[str, Any], rows: Any, gallery: Any, **about: Any) -> None:
    """Write the report as one page, whole or not at all; `about` is for `html.page`."""
    from sepcli.scoring import html

    files.save(path, html.page(scores, rows, gallery.items(), **about))


def collect(rows: Any, spread: Any, progress: str, quiet: bool) -> list[Any]:
    """The list of rows; on standard error appear the progress and the first failures."""
    collected = []

    def records():
        for row in rows:
            collected.append(row)
            yield {"key": row.key, "target": row.target, "error": row.error}

    failures, bar = options.Failures(), options.Progress("Scoring", progress, quiet, spread)
    for record in bar.watch(records()):
        if record["error"]:
            failures.add(record["error"])
    failures.tell_rest()
    return collected


def show(scores: dict[str, Any], form: str | None, output: str | None) -> None:
    """Print the report, or write it to a file; a terminal gets a table with lines."""
    from sepcli.scoring import tables

    if output is None and form is None and sys.stdout.isatty():
        show_on_terminal(scores)
        return
    text = tables.FORMS[form or "text"](scores)
    if output in (None, "-"):
        click.echo(text, nl=False)
        return
    try:
        objects.save(output, text)
    except SepcliError:
        click.echo(text, nl=False)  # so that the work is not lost
        raise


def show_on_terminal(scores: dict[str, Any]) -> None:
    """Draw the report's tables with rich."""
    from rich.console import Console
    from rich.table import Table

    from sepcli.scoring import tables

    console = Console()
    for header, rows in tables.tables(scores):
        table = Table(*header[:2])
        for title in header[2:]:
            table.add_column(title, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in tables.remarks(scores):
        console.print(line, markup=False, highlight=False)
