"""What every command keeps to, and the command line around them."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from sepcli import cli
from sepcli.errors import SepcliError

RUNNER = CliRunner()


def invoke(*args, **kwargs):
    return RUNNER.invoke(cli.main, args, **kwargs)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_an_example_and_explains_every_option(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"$ sepcli {name}" in result.output or f"| sepcli {name}" in result.output
    command = cli.main.get_command(click.Context(cli.main), name)
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_the_group_lists_its_commands_and_shows_the_pipe():
    output = invoke("--help").output
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name} +\S", output, re.MULTILINE)
    assert "sepcli mix --snr -5:15 | sepcli separate - | sepcli eval -" in output


def test_version():
    assert version("sepcli") in invoke("--version").output


def test_a_misspelt_command_gets_a_suggestion():
    result = invoke("seperate")
    assert result.exit_code == 2
    assert "No such command 'seperate'. Did you mean 'separate'?" in result.output


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_unknown_option_is_a_usage_error(name):
    result = invoke(name, "--no-such-option")
    assert result.exit_code == 2
    assert "No such option" in result.output


@pytest.fixture
def raising(monkeypatch):
    """Make the command `info` raise an exception."""

    def install(error):
        @click.command()
        def command():
            raise error

        monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: command)

    return install


def test_an_error_of_ours_is_one_line_and_exit_1(raising):
    raising(SepcliError("room.wav: silent; record it again"))
    result = invoke("info")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: room.wav: silent; record it again\n"


def test_debug_shows_where_an_error_came_from(raising):
    raising(SepcliError("room.wav: silent"))
    result = invoke("--debug", "info")
    assert isinstance(result.exception, SepcliError)


def test_a_bug_keeps_its_traceback(raising):
    raising(ZeroDivisionError())
    assert isinstance(invoke("info").exception, ZeroDivisionError)


def test_an_interrupt_exits_with_130(raising):
    raising(KeyboardInterrupt())
    result = invoke("info")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_a_reader_that_leaves_early_ends_the_command_quietly_with_141():
    code = (
        "import sys, click\n"
        "from sepcli import cli\n"
        "@click.command()\n"
        "def command():\n"
        "    while True: sys.stdout.buffer.write(bytes(65536))\n"
        "cli.Commands.get_command = lambda self, ctx, name: command\n"
        "cli.main(['info'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.read(10)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), stderr) == (141, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_source(shell):
    env = {**os.environ, "_SEPCLI_COMPLETE": f"{shell}_source"}
    script = subprocess.run(
        [sys.executable, "-c", "from sepcli.cli import main; main(prog_name='sepcli')"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert script.returncode == 0
    assert "_SEPCLI_COMPLETE" in script.stdout


def test_shell_completion_completes_commands():
    env = {**os.environ, "_SEPCLI_COMPLETE": "bash_complete", "COMP_WORDS": "sepcli se"}
    result = subprocess.run(
        [sys.executable, "-c", "from sepcli.cli import main; main(prog_name='sepcli')"],
        env={**env, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "plain,separate\n"
