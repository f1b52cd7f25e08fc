"""Faults of the system around the commands that write, once each; `make torture` has more."""

import json
import subprocess
import sys

import pytest

from tests.torture.test_kills import ROOT


def met(*names):
    """What `python -m tests.torture.faults` says of commands."""
    command = [sys.executable, "-m", "tests.torture.faults", "-n", "1"]
    command += [f"--only={name}" for name in names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [json.loads(line)["command"] for line in result.stdout.splitlines()] == list(names)


def test_faults_of_the_system_are_one_line_and_a_second_run_makes_up_for_them():
    met("separate", "pack")


@pytest.mark.slow
def test_so_are_those_of_the_other_commands():
    met("separate samples", "separate on a cluster", "extract", "eval", "mix", "mix to a tar")
    met("train", "quantize")
