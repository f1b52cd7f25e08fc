"""The README's commands exist, with the options it shows."""

import re
import shlex
from pathlib import Path

import click
import pytest

from sepcli import cli
from sepcli.models import MODELS

README = (Path(__file__).parent.parent / "README.md").read_text()


def shown():
    """Every `sepcli ...` of the README's indented blocks, one per stage of a pipe."""
    for line in re.findall(r"^ {4}(?:\$ )?(.*\bsepcli .*)$", README, re.MULTILINE):
        for stage in line.split("|"):
            words = shlex.split(stage, comments=True)
            if words[:1] == ["sepcli"]:
                yield words[1:]


@pytest.mark.parametrize("words", list(shown()), ids=" ".join)
def test_a_command_of_the_readme_parses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scores.json").write_text("{}")  # an option may ask for a file that exists
    command = cli.main.get_command(click.Context(cli.main), words[0])
    command.make_context(words[0], words[1:])  # raises on an unknown option or a bad value


def test_every_command_is_in_the_table():
    for name in cli.COMMANDS:
        assert f"| `sepcli {name}` |" in README


def test_every_recipe_is_in_the_table():
    folders = {path.parent.name for path in Path(__file__).parent.parent.glob("recipes/*/run.sh")}
    assert folders == set(re.findall(r"\]\(recipes/([a-z0-9-]+)\)", README))


def test_the_readme_names_every_model():
    for name in MODELS:
        assert f"`{name}`" in README
