"""Train a model from a configuration."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sepcli import config as configuration
from sepcli import files, options
from sepcli.errors import SepcliError

GAINS = ("improvement_db", "si_sdr_db", "si_sdri_db", "loss_drop")  # of scores.json


class Limit(click.ParamType):
    """`NAME=NUMBER` for a number of scores.json, as a pair."""

    name = "NAME=X"

    def convert(self, value: Any, param: Any, ctx: click.Context) -> tuple[str, float]:
        name, _, number = value.partition("=")
        try:
            limit = float(number)
        except ValueError:
            self.fail(f"{value!r} is not NAME=NUMBER, such as improvement_db=3", param, ctx)
        if name not in GAINS:
            self.fail(f"There is no score {name!r}. Known: {', '.join(GAINS)}", param, ctx)
        return name, limit


@click.command("train")
@click.argument("config", type=click.Path(exists=True, dir_okay=False))
@options.settings
@click.option("-o", "--output", metavar="DIR", help="Run folder.  [default: runs/NAME-OF-CONFIG]")
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint of the run folder.")
@click.option(
    "--init", metavar="NAME|FILE|DIR", help="Start from the weights of this model: train.init."
)
@options.overwrite
@click.option(
    "--notify",
    envvar="SEPCLI_NOTIFY",
    metavar="URL",
    help="Web hook that gets a message at the start, after validations, and at the end; Slack's, "
    "Discord's, WeCom's, or any that takes JSON. Also $SEPCLI_NOTIFY, which no other user sees.",
)
@click.option("--dry-run", is_flag=True, help="Do two steps and a validation, and write nothing.")
@click.option(
    "--overfit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train on the same N items, to see whether the model can fit them.",
)
@click.option(
    "--fail-under",
    "limits",
    type=Limit(),
    multiple=True,
    help=f"Exit with 1 when a score ends below X: {', '.join(GAINS)}.",
)
@options.seed
@options.device
@options.threads
@options.progress
@options.quiet
@click.pass_context
def command(
    ctx: click.Context,
    config: str,
    overrides: tuple[str, ...],
    output: str | None,
    notify: str | None,
    overfit: int | None,
    limits: Any,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Train a model from a configuration.

    CONFIG is a YAML file. The path of the best model is printed.

    \b
        $ sepcli train recipes/tasnet-toy/config.yaml --set train.steps=200 -o runs/toy
        $ sepcli train recipes/tasnet-toy/config.yaml --set train.steps=400 -o runs/toy --resume
        $ sepcli train recipes/tasnet-toy/config.yaml --init runs/toy -o runs/other

    The run folder gets metrics.jsonl and TensorBoard's events, the best and the last model, and
    scores.json with the validation before and after. The graph of the best model goes into the
    cache at the end, so that stream and separate start without torch. Ctrl-C or SIGTERM saves and
    stops; on a CPU --resume reaches the same weights, bit for bit, as an uninterrupted run. With
    more train.steps (or train.epochs) it makes a run longer, finished or not: from there on, the
    learning rate is that of a run of the new length.

    \b
        $ torchrun --nproc-per-node 2 --max-restarts 3 -m sepcli train CONFIG --resume

    trains in several processes, which share every batch; there, --resume starts a run if there
    is none yet.
    """
    import torch

    from sepcli.inference.separate import pick_device
    from sepcli.runs import runs
    from sepcli.runs.trial import dry_run
    from sepcli.training import ranks

    if ctx.get_parameter_source("seed") is not ParameterSource.DEFAULT:
        overrides = (*overrides, f"train.seed={seed}")
    if flags["init"] and flags["resume"]:
        raise click.UsageError("--init is for a new run; one that is resumed has its weights")
    if flags["init"]:
        overrides = (*overrides, f"train.init={json.dumps(flags['init'])}")
    settings = runs.resolve(configuration.load(config, overrides))
    settings = runs.overfit(settings, overfit) if overfit else settings
    if threads:
        torch.set_num_threads(threads)
    chosen = {"device": pick_device(device), "command": typed(notify)}
    if flags["dry_run"]:
        click.echo(json.dumps(dry_run(settings, **chosen), indent=1))
        return
    folder = Path(output or default_folder(config))
    with ranks.joined(chosen["device"]) as among:
        chosen |= {"device": among.device, "ranks": among}
        in_folder(ctx, folder, settings, limits, {**flags, "notify": notify}, chosen)


def in_folder(
    ctx: click.Context,
    folder: Path,
    settings: dict[str, Any],
    limits: Any,
    flags: dict[str, Any],
    chosen: dict[str, Any],
) -> None:
    """Train in `folder`, anew or on, in one of the processes `chosen["ranks"]`."""
    from sepcli.graphs.cached import keep
    from sepcli.models import modelfile
    from sepcli.runs import runfolder, runs
    from sepcli.runs.notify import Notifier
    from sepcli.training import ranks

    among = chosen["ranks"]
    is_there, is_begun = among.share((runfolder.is_run(folder), runfolder.is_begun(folder)))
    quiet = flags["quiet"] or not among.first
    if flags["overwrite"] is False and is_there:
        if among.first:
            click.echo(f"{folder}: holds a training run; left as it is", err=True)
    else:
        files.check_place(folder, folder=True)
        notifier = Notifier(flags["notify"] if among.first else None, folder.resolve().name)
        if flags["resume"] and (is_begun or not ranks.is_launched()):
            run = runs.resume(settings, folder, **chosen)
        else:  # what a launcher starts again may have been killed before there was a checkpoint
            overwrite = bool(flags["overwrite"] or flags["resume"])
            run = runs.start(settings, folder, overwrite=overwrite, **chosen)
        if run.initial and not quiet:
            click.echo(run.initial, err=True)
        with notifier:
            stopped = train(run, flags["progress"], quiet, notifier)
        if stopped:
            ctx.exit(128 + stopped)
        if among.first:
            keep(modelfile.locate(folder))
        check_limits(run.scores(), limits)
    if among.first:
        click.echo(modelfile.locate(folder))


def default_folder(config: str) -> Path:
    """`runs/` and the configuration's name, or its folder's where it is only called config."""
    path = Path(config).resolve()
    return Path("runs") / (path.parent.name if path.stem == "config" else path.stem)


def typed(secret: str | None) -> str:
    """The command line, without a secret that is in it."""
    words = [word.replace(secret, "***") if secret else word for word in sys.argv[1:]]
    return shlex.join(["sepcli", *words])


def train(run: Any, progress: str, quiet: bool, notifier: Any) -> int:
    """Run to the end, or until a signal, whose number is returned, else 0.

    What happens is shown on standard error, and told to the notifier.
    """
    notifier.tell("start", f"starts at step {run.state.step} of {run.settings.steps}")
    try:
        with signals() as received, display(run, progress, quiet) as show:
            for record in run.records():
                show(record)
                notifier.see(record)
                stop = bool(received)
                if run.ranks.size > 1:  # all after the same step
                    stop = record["event"] == "step" and run.ranks.any(stop)
                if stop:
                    received = received or [signal.SIGTERM]
                    run.save()
                    break
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SepcliError(
            f"{run.folder}: cannot be written ({error}); make room and resume with --resume"
        ) from None
    at = f"step {run.state.step} of {run.settings.steps}"
    if received:
        name = signal.Signals(received[0]).name
        notifier.tell("stopped", f"stopped by {name} at {at}")
        if run.ranks.first:
            click.echo(f"Stopped by {name} and saved at {at}; resume with --resume", err=True)
        return received[0]
    notifier.tell("end", f"ended at {at}", run.scores())
    return 0


@contextmanager
def signals() -> Iterator[list[Any]]:
    """Collect SIGINT and SIGTERM in a list; a second one acts as it always does."""
    received = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def display(run: Any, progress: str, quiet: bool) -> Any:
    """A context with a function that shows a record on standard error."""
    if quiet or progress == "none":
        return nullcontext(lambda record: None)
    if progress == "json":
        return nullcontext(show_json)
    return bar(run) if sys.stderr.isatty() else nullcontext(show_line)


def show_json(record: dict[str, Any]) -> None:
    from sepcli.runs.runlog import plain

    if record["event"] in ("train", "valid", "warning"):
        click.echo(json.dumps(plain(record)), err=True)


def show_line(record: dict[str, Any]) -> None:
    if record["event"] == "valid":
        click.echo(validation_line(record), err=True)
    elif record["event"] == "warning":
        click.echo(record["message"], err=True)


def validation_line(record: dict[str, Any]) -> str:
    left_out = [f"{record[name]} {name}" for name in ("silent", "clean") if record[name]]
    return (
        f"step {record['step']}: validation SI-SDR {record['si_sdr_db']:.2f} dB, "
        f"{record['si_sdri_db']:+.2f} dB over the mixture, loss {record['loss']:.4g}"
        + (f"; left out: {' and '.join(left_out)} references" if left_out else "")
        + (" (best)" if record["best"] else "")
    )


@contextmanager
def bar(run: Any) -> Any:
    """A progress bar with loss and speed; validations are lines above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        steps = progress.add_task("training", total=run.settings.steps, text="")
        items = progress.add_task("validation", text="", visible=False)

        def show(record):
            step = record.get("step", run.state.step)
            if record["event"] == "validating":
                done, total = record["done"], record["items"]
                progress.update(items, completed=done, total=total, visible=True)
            elif record["event"] == "valid":
                progress.update(items, visible=False)
                progress.console.print(validation_line(record), highlight=False)
            elif record["event"] == "warning":
                progress.console.print(record["message"], highlight=False, markup=False)
            elif record["event"] == "step":
                text = f"{step}/{run.settings.steps} loss {record['loss']:.4g}"
                progress.update(steps, completed=step, text=text)

        yield show


def check_limits(scores: dict[str, Any], limits: Any) -> None:
    """Raise SepcliError when a score is below its limit, or NaN."""
    short = [f"{name} {scores[name]:.3f} < {x:g}" for name, x in limits if not scores[name] >= x]
    if short:
        raise SepcliError(f"below the limit: {', '.join(short)}; see scores.json")
