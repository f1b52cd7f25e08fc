"""Every recipe: a script a person could type, a configuration that holds, a number that is met."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sepcli import config
from sepcli.training import runs

RECIPES = Path(__file__).parent.parent / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/run.sh"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_an_executable_posix_script(name):
    script = RECIPES / name / "run.sh"
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_valid_and_holds_only_what_differs_from_the_defaults(name):
    given = config.load(RECIPES / name / "config.yaml")
    resolved = runs.resolve(given)
    for section, settings in given["train"].items():
        assert resolved["train"][section] == settings
    defaults = runs.resolve({**given, "train": {}, "model": {"name": given["model"]["name"]}})
    for section in ("train", "model"):
        for key in given[section].keys() - {"name"}:
            assert given[section][key] != defaults[section][key], f"{section}.{key} is the default"


@pytest.mark.parametrize("name", NAMES)
def test_our_number_reaches_the_documented_one_and_is_in_the_table(name):
    expected = json.loads((RECIPES / name / "expected.json").read_text())
    for score in expected["scores"].values():
        assert score["ours"] >= score["documented"] - score["tolerance"]
    row = next(x for x in (RECIPES / "README.md").read_text().splitlines() if f"`{name}`" in x)
    for score in expected["scores"].values():
        assert f"{score['ours']:.1f}" in row


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_form_finishes_and_writes_its_scores(name):
    scores = RECIPES / name / "out" / "scores.json"
    scores.unlink(missing_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", RECIPES / name / "run.sh"],
        env={**os.environ, "SMOKE": "1", "PATH": path},
        check=True,
    )
    assert json.loads(scores.read_text())
