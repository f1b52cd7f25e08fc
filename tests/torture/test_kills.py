"""A kill or two of the commands that write; `make torture` has a hundred of each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def killed(kills, *names):
    """What `python -m tests.torture.kills` says of commands."""
    command = [sys.executable, "-m", "tests.torture.kills", "-n", str(kills)]
    command += [f"--only={name}" for name in names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = list(map(json.loads, result.stdout.splitlines()))
    assert [line["command"] for line in lines] == list(names)
    assert all(line["kills"] >= kills for line in lines)


def test_what_is_killed_goes_on_to_the_same_files_and_leaves_nothing():
    killed(2, "separate", "pack", "eval", "mix")


@pytest.mark.slow
def test_so_does_what_takes_longer():
    names = ("train", "extract", "separate samples", "mix to a tar", "quantize")
    killed(2, *names, "separate on a cluster")
