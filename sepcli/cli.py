"""The `sepcli` command: a tuple of names, each one module in sepcli/commands."""

import os
import sys
from importlib import import_module

import click

from sepcli import __version__
from sepcli.errors import SepcliError

# Threads of torch that wait for each other must sleep: by default they spin, and when the other
# commands of a pipe want the same cores a small model runs a hundred times slower. Read by the
# OpenMP runtime when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = (
    "mix", "rir-decay", "rt60", "separate", "stream", "eval", "train", "pack", "quantize", "export",
    "export-max78000", "info",
)  # fmt: skip


class Commands(click.Group):
    """Import a command's module only when asked for; turn our errors into one line."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            raise click.NoSuchCommand(name, possibilities=COMMANDS, ctx=ctx)
        return import_module(f"sepcli.commands.{name.replace('-', '_')}").command

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SepcliError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:
            # The reader left early, as `| head` does. Python would complain again when it
            # flushes stdout at exit, so point the descriptor at nothing first.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)  # 128 + SIGPIPE: what a shell reports for the standard tools
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)  # 128 + SIGINT


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the full traceback when something fails.")
def main(debug):
    """Composable audio tools for source separation and speech enhancement.

    \b
    Commands read and write samples through pipes:
        $ sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -

    \b
    Completion for bash, zsh or fish (put it into your shell's start-up file):
        $ eval "$(_SEPCLI_COMPLETE=bash_source sepcli)"
    """
