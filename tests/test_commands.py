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
    result = invoke("sepparate")
    assert result.exit_code == 2
    assert "No such command 'sepparate'. Did you mean 'separate'?" in result.output


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


# Standard streams that are closed or full

ACTS = {
    "echo": "click.echo('x' * 10)",
    "bytes": "sys.stdout.buffer.write(bytes(100_000)); sys.stdout.buffer.flush()",
    "samples": "with open_sample_writer() as writer: writer.write(Sample('a', {}, {'x': b''}))",
    "sound": "with Writer(sys.stdout.buffer, 8000, 1) as writer: writer.write(np.zeros((1, 9)))",
    "file": "files.save('kept', 'all'); click.echo('said', err=True);",
}


def with_streams(redirection, act, folder):
    """Run a command that does nothing but `act` in a shell, with its streams redirected."""
    code = (
        "import sys, click, numpy as np\n"
        "from sepcli import cli, files\n"
        "from sepcli.audio import Writer\n"
        "from sepcli.samples.streams import Sample, open_sample_writer\n"
        f"@click.command()\ndef command():\n    {ACTS[act]}\n"
        "cli.Commands.get_command = lambda self, ctx, name: command\n"
        "cli.main(['info'])"
    )
    shell = f'exec "$0" -c "$1" {redirection}'
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, code], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("act", ["echo", "bytes", "samples", "sound"])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        (">&-", "closed; connect it to a file or a pipe"),
        ("<&- >&-", "closed; connect it to a file or a pipe"),
        (">/dev/full", "No space left on device; make room"),
    ],
)
def test_standard_output_that_cannot_be_written_is_one_line(tmp_path, redirection, reason, act):
    done = with_streams(redirection, act, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: standard output: {reason}\n"


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_the_work_is_done_where_nobody_can_be_told(tmp_path, redirection):
    done = with_streams(redirection, "file", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "kept").read_text() == "all"


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("asked", ["--help", "--version", "info --help", "info denoise"])
def test_help_that_cannot_be_shown_is_one_line(redirection, asked):
    shell = f'"$0" -m sepcli {asked} {redirection}'
    done = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output: ")
    assert done.stderr.count("\n") == 1


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
    env = {**os.environ, "_SEPCLI_COMPLETE": "bash_complete", "COMP_WORDS": "sepcli sep"}
    result = subprocess.run(
        [sys.executable, "-c", "from sepcli.cli import main; main(prog_name='sepcli')"],
        env={**env, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "plain,separate\n"


def test_the_list_of_commands_cuts_no_line_off():
    listed = invoke("--help").output.split("Commands:\n")[1]
    assert "..." not in listed
    assert len(listed.splitlines()) == len(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_has_the_first_line_of_their_help(name):
    command = cli.main.get_command(click.Context(cli.main), name)
    assert cli.COMMANDS[name] == command.get_short_help_str(limit=60)


def test_grouped_help_shows_every_option_once():
    shown = invoke("mix", "--help").output
    for option in cli.main.get_command(click.Context(cli.main), "mix").params:
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", shown, re.M)) == 1
