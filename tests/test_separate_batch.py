"""`sepcli separate` of many files: what exists, what fails, and what is named alike."""

import json
import shutil
from pathlib import Path

import pytest

from sepcli import audio
from tests.separators import invoke, noise


def test_existing_files_are_neither_lost_nor_made_anew(track, model_file, tmp_path):
    args = ("-m", model_file, track, "-o", tmp_path / "out")
    assert invoke(*args).exit_code == 0
    target = tmp_path / "out/track/speech.wav"
    target.write_bytes(b"mine")
    result = invoke(*args)
    assert result.exit_code == 1
    assert "exists; use --overwrite or --skip-existing" in result.stderr
    assert invoke(*args, "--skip-existing").exit_code == 0
    assert target.read_bytes() == b"mine"
    assert invoke(*args, "--overwrite").exit_code == 0
    assert audio.info(target).frames == 5000


def test_the_other_files_are_done_when_one_is_broken(track, model_file, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\x00")
    result = invoke("-m", model_file, broken, track, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "Failed: " in result.stderr
    assert "Error: 1 of 2 could not be separated, see above" in result.stderr
    assert (tmp_path / "out/track/speech.wav").exists()


# Batches


@pytest.mark.parametrize("bad", ["missing.wav", "broken.wav", "empty.wav", "nothing/", "no*.wav"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_input_does_not_end_the_batch(model_file, tmp_path, monkeypatch, bad, place):
    monkeypatch.chdir(tmp_path)
    Path("broken.wav").write_bytes(b"RIFF\x00")
    Path("empty.wav").touch()
    Path("nothing").mkdir()
    good = ["a.wav", "b.wav"]
    for name in good:
        audio.write(name, noise(1, 1000), 8000)
    inputs = [*good[:place], bad, *good[place:]]
    result = invoke("-m", model_file, *inputs, "--target", "noise", "-o", "out")
    assert result.exit_code == 1
    assert sorted(map(str, Path("out").rglob("*.wav"))) == ["out/a/noise.wav", "out/b/noise.wav"]
    failed, wrote, error = result.stderr.splitlines()
    assert failed.startswith(f"Failed: {bad.rstrip('/')}: ")
    assert failed.count(bad.rstrip("/")) == 1
    assert wrote == "Wrote 2 files to out"
    assert error == "Error: 1 of 3 could not be separated, see above"


def test_many_failures_are_counted_and_only_the_first_are_named(track, model_file, tmp_path):
    missing = [f"no-{i}.wav" for i in range(50)]
    result = invoke("-m", model_file, *missing, track, "-o", tmp_path / "out")
    lines = result.stderr.splitlines()
    assert lines[19].startswith("Failed: no-19.wav: ")
    assert lines[20:] == [
        "Failed: 30 more",
        f"Wrote 2 files to {tmp_path}/out/track",
        "Error: 50 of 51 could not be separated, see above",
    ]


def test_files_of_the_same_name_are_told_apart_by_their_folders(model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["disc 1/01.wav", "disc 2/01.wav", "disc 2/02.wav", "b/disc 2/01.wav", "b/01.flac"]
    for name in [*names, "b/01.wav"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(name, noise(1, 1000), 8000)
    for given in ([*names, "b/01.wav"], ["disc 1", "disc 2", "b"], ["**/*.wav", "b/01.flac"]):
        shutil.rmtree("out", ignore_errors=True)
        result = invoke("-m", model_file, *given, "--target", "noise", "-o", "out")
        assert result.exit_code == 0, result.stderr
        made = {str(path.parent.relative_to("out")) for path in Path("out").rglob("noise.wav")}
        assert len(made) == 6
        assert {"disc 1/01", "02"} <= made


def test_an_input_given_twice_is_done_once(track, model_file, tmp_path):
    given = [track, track, tmp_path, str(tmp_path / "*.wav")]
    result = invoke("-m", model_file, *given, "-o", tmp_path / "out")
    assert result.stderr == f"Wrote 2 files to {tmp_path}/out/track\n"


@pytest.mark.parametrize(
    "name", ["v1.0/", "v1.0", "Vol. 2", "a/b.c/d", "x.wav/", "there.wav", "é.è"]
)
def test_an_output_that_does_not_end_like_sound_is_a_folder(track, model_file, tmp_path, name):
    (tmp_path / "there.wav").mkdir()
    args = ("-m", model_file, track, "--target", "noise", "-o", f"{tmp_path}/{name}")
    assert invoke(*args).exit_code == 0
    assert (tmp_path / name / "track" / "noise.wav").is_file()


def test_progress_in_json_tells_what_became_of_what(track, model_file, tmp_path):
    out = tmp_path / "out"
    args = ("--progress", "json", "-q", "--target", "noise", "-o", out)
    result = invoke("-m", model_file, "no.wav", track, *args)
    records = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    error = "no.wav: no such file or folder; check the spelling"
    assert records == [
        {"key": "no.wav", "input": "no.wav", "error": error},
        {
            "key": "track",
            "input": str(track),
            "outputs": [f"{out}/track/noise.wav"],
            "notes": [],
        },
    ]


def test_the_place_of_stems_is_looked_at_before_the_work(track, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("separated", "taken"):
        Path(place).touch()
    for args, place in (((), "separated"), (("-o", "taken/out"), "taken")):
        result = invoke("-m", model_file, track, *args)
        assert result.exit_code == 1
        line = f"Error: {place}: a file, where a folder is needed; choose another place\n"
        assert result.stderr.endswith(line)
        assert result.stderr.count("\n") == 1
