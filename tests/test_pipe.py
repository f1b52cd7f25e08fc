"""The commands joined by a real shell, with the model that ships."""

import json
import subprocess
import sys

import pytest


def shell(pipeline, cwd):
    """Run a pipeline, in which `sepcli` is this Python's; the exit code is the last command's."""
    pipeline = pipeline.replace("sepcli", f"'{sys.executable}' -m sepcli")
    return subprocess.run(["sh", "-c", pipeline], cwd=cwd, capture_output=True, timeout=120)


def test_the_shipped_model_improves_made_up_mixtures(tmp_path):
    result = shell("sepcli mix --snr -5:15 -n 6 | sepcli separate - | sepcli eval --json", tmp_path)
    assert (result.returncode, result.stderr) == (0, b"")
    summary = json.loads(result.stdout)["summary"]["speech"]
    assert summary["si_sdri_db"]["count"] == 6
    assert summary["si_sdri_db"]["mean"] > 3  # 5 and more where it was trained


def test_the_pipe_gives_what_the_same_steps_give_through_files(tmp_path):
    piped = shell("sepcli mix -n 2 --duration 1 | sepcli separate - | sepcli eval --csv", tmp_path)
    stored = shell(
        "sepcli mix -n 2 --duration 1 -o mixed && sepcli separate mixed -o separated.tar "
        "&& sepcli eval separated.tar --csv",
        tmp_path,
    )
    assert piped.returncode == stored.returncode == 0
    assert piped.stdout == stored.stdout


def test_standard_tools_fit_into_the_pipe(tmp_path):
    result = shell("sepcli mix -n 2 --duration 1 | tee kept.tar | tar tf -", tmp_path)
    assert result.stdout.split()[:2] == [b"000000.json", b"000000.mix.wav"]
    result = shell("sepcli separate kept.tar -o - | tar xOf - 000001.est.speech.wav", tmp_path)
    assert result.stdout.startswith(b"RIFF")
    assert len(result.stdout) > 4 * 16000


@pytest.mark.parametrize("size", [100, 70_000])
def test_a_stream_that_breaks_off_is_an_error_at_the_end_of_the_pipe(tmp_path, size):
    pipeline = f"sepcli mix -n 3 --duration 1 | head -c {size} | sepcli separate - | sepcli eval"
    result = shell(pipeline, tmp_path)
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert b"Error: " in result.stderr


def test_an_endless_stream_ends_with_its_reader(tmp_path):
    result = shell("(sepcli mix -n 0 --duration 0.5; echo $? >code) | head -c 50000", tmp_path)
    assert len(result.stdout) == 50_000
    assert result.stderr == b""
    assert (tmp_path / "code").read_text() == "141\n"
