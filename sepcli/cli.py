"""The `sepcli` command: a table of names, each one module in sepcli/commands."""

import contextlib
import io
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from sepcli.errors import SepcliError, UsageError, print_notes
from sepcli.version import __version__


def let_waiting_threads_sleep() -> None:
    """Set OMP_WAIT_POLICY, which the OpenMP runtime reads when torch is imported, if it is not set.

    Threads of torch that wait for each other spin by default: when the other commands of a pipe
    want the same cores, a small model then runs a hundred times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


let_waiting_threads_sleep()

COMMANDS = {  # and the first line of each one's help: `--help` imports none of them
    "mix": "Mix speech and noise, several speakers, or music.",
    "rir-decay": "Shorten room impulse responses.",
    "rt60": "Measure the reverberation of room impulse responses.",
    "separate": "Separate mixtures into their sources.",
    "extract": "Extract one speaker, of whom there is a recording.",
    "stream": "Separate live audio and output one source.",
    "eval": "Score estimates against their references.",
    "train": "Train a model from a configuration.",
    "pack": "Pack recordings or samples into one file for training.",
    "quantize": "Quantise a causal model to 8-bit integers.",
    "export": "Write a model as an ONNX graph or a torch.export program.",
    "export-max78000": "Write what runs a model on Analog Devices' MAX78000.",
    "serve": "Serve separation over HTTP and WebSocket, and a page.",
    "download": "Download published weights into the cache.",
    "info": "Show the cards of models.",
    "doctor": "Show versions, devices, threads and what is missing.",
}


class Commands(click.Group):
    """Import a command's module only when asked for; turn our errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: click.Context, name: str) -> Any:
        if name not in COMMANDS:
            raise click.NoSuchCommand(name, possibilities=COMMANDS, ctx=ctx)
        return import_module(f"sepcli.commands.{name.replace('-', '_')}").command

    def main(self, *args: Any, **settings: Any) -> NoReturn:
        open_standard_streams()
        try:
            return super().main(*args, **settings)
        except OSError as error:  # printing help; `invoke` reports those of commands
            click.echo(f"Error: {_complaint(error)}", err=True)
            sys.exit(1)
        finally:
            let_go_of_stdout(only_if_stuck=True)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SepcliError as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, UsageError):
                raise click.UsageError(str(error)) from None
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:
            let_go_of_stdout()  # the reader left early, as `| head` does
            ctx.exit(141)  # 128 + SIGPIPE: what a shell reports for the standard tools
        except OSError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(_complaint(error)) from None
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)  # 128 + SIGINT


def _complaint(error):
    from sepcli import files

    return files.complaint(error, "the system")


# The standard streams, which may be closed or full


class Named(io.FileIO):
    """Standard output, whose complaints tell what they are about."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


class Forgiving(io.FileIO):
    """Standard error: where nobody can read it, or it is full, the work goes on all the same."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def open_standard_streams() -> None:
    """Take the places of standard streams that are closed, and let standard error never fail.

    The next file that is opened would get the number of a closed stream, and with it what any
    library prints. Standard output becomes one that cannot be written, which is an error only of
    what writes to it.
    """
    for number, stream, mode in (
        (0, sys.stdin, os.O_WRONLY),
        (1, sys.stdout, os.O_RDONLY),
        (2, sys.stderr, os.O_WRONLY),
    ):
        if stream is None:
            taken = os.open(os.devnull, mode)
            os.dup2(taken, number, inheritable=True)
            if taken != number:
                os.close(taken)
    if sys.stdout is sys.__stdout__:  # and no test has put another one there
        sys.stdout = _rewrapped(sys.stdout, Named(1, "w", closefd=False))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _rewrapped(sys.stderr, Forgiving(2, "w", closefd=False))


def _rewrapped(stream, raw):
    """The text stream `stream`, None if it is closed, on top of another raw one."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace")
    wrapper = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors)
    wrapper.reconfigure(line_buffering=stream.line_buffering)
    return wrapper


def let_go_of_stdout(*, only_if_stuck: bool = False) -> None:
    """Point standard output at nothing: Python would complain again when it flushes it at exit."""
    with contextlib.suppress(ValueError):  # a test's has no number, or is closed
        try:
            if only_if_stuck:
                sys.stdout.flush()
                return
        except OSError:
            pass
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sepcli")
@click.option("--debug", is_flag=True, help="Show the full traceback when something fails.")
def main(debug: bool) -> None:
    """Composable audio tools for source separation and speech enhancement.

    \b
    Commands read and write samples through pipes:
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -

    \b
    Completion for bash, zsh or fish (put it into your shell's start-up file):
        $ eval "$(_SEPCLI_COMPLETE=bash_source sepcli)"
    """
    print_notes(lambda line: click.echo(line, err=True))
