"""Minutes of audio through the commands that take hours of it; `make torture` has a day of each."""

import json
import subprocess
import sys

import pytest

from tests.torture.test_kills import ROOT


def soaked(*args):
    """What `python -m tests.torture.soak` says."""
    command = [sys.executable, "-m", "tests.torture.soak", *args]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return list(map(json.loads, result.stdout.splitlines()))


def test_minutes_of_a_stream_are_as_good_at_the_end():
    (line,) = soaked("--hours", "0.1", "--only", "stream")
    assert line["si_sdri_db_last"] == pytest.approx(line["si_sdri_db_second"], abs=0.01)
    assert line["si_sdri_db_last"] > 5


@pytest.mark.slow
def test_so_are_those_of_the_other_commands_and_many_short_things_get_through():
    assert len(soaked("--hours", "0.1", "--only", "separate", "--only", "mix")) == 2
    items, files = soaked("--items", "300", "--files", "40")
    assert (items["items"], files["files"]) == (300, 40)
