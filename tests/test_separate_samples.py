"""`sepcli separate` of streams and folders of samples."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from sepcli.errors import SepcliError
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.separators import invoke, sample


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "samples.tar"
    with open_sample_writer(path) as writer:
        for index in range(3):
            writer.write(sample(index))
    return path.read_bytes()


def test_a_sample_stream_gets_estimates_and_keeps_all_else(stream, model_file, separator):
    result = invoke("-m", model_file, "-", input=stream)
    assert result.exit_code == 0
    before = list(read_samples("-", stdin=io.BytesIO(stream)))
    after = list(read_samples("-", stdin=io.BytesIO(result.stdout_bytes)))
    assert [s.key for s in after] == [s.key for s in before]
    for old, new in zip(before, after, strict=True):
        assert {name: new.members[name] for name in old.members} == old.members
        assert set(new.members) - set(old.members) == {"est.speech.wav"}
        expected = separator.separate(old.audio("mix"), 16000)["speech"]
        np.testing.assert_allclose(new.audio("est.speech"), expected, atol=1e-6)


def test_targets_choose_the_estimates(stream, model_file):
    args = ("-m", model_file, "--target", "noise", "--target", "speech", "-")
    result = invoke(*args, input=stream)
    for new in read_samples("-", stdin=io.BytesIO(result.stdout_bytes)):
        assert new.names("est") == ["est.noise.wav", "est.speech.wav"]


def test_a_folder_of_samples_goes_into_a_folder_of_samples(model_file, tmp_path):
    with open_sample_writer(tmp_path / "in") as writer:
        writer.write(sample(0))
    assert invoke("-m", model_file, tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/000000/est.speech.wav").exists()


def test_a_stream_that_was_cut_off_is_an_error(stream, model_file):
    result = invoke("-m", model_file, "-", input=stream[:30_000])
    assert result.exit_code == 1
    failed, error = result.stderr.splitlines()
    assert failed.startswith("Failed: standard input: cut off ")
    assert "1 sample complete;" in failed
    assert error.startswith("Error: standard output: left incomplete, as not all inputs were")
    whole = read_samples("-", stdin=io.BytesIO(result.stdout_bytes))
    with pytest.raises(SepcliError):  # and what we wrote tells the next command
        list(whole)


def test_a_sample_that_cannot_be_separated_goes_on_as_it_came(model_file, tmp_path):
    broken = sample(1)
    del broken.members["mix.wav"]
    with open_sample_writer(tmp_path / "in.tar") as writer:
        for item in (sample(0), broken, sample(2)):
            writer.write(item)
    data = (tmp_path / "in.tar").read_bytes()
    result = invoke("-m", model_file, "-", input=data)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Failed: standard input: sample 000001 has no mix; it holds ref.speech.wav, note.txt",
        "Error: 1 of 3 could not be separated, see above",
    ]
    after = list(read_samples("-", stdin=io.BytesIO(result.stdout_bytes)))
    assert [s.has("est.speech") for s in after] == [True, False, True]


def test_a_sample_is_separated_whole(stream, model_file):
    result = invoke("-m", model_file, "-", "--duration", "1", input=stream)
    assert result.exit_code == 2
    assert "Error: samples are separated whole; omit --start and --duration" in result.stderr


@pytest.mark.parametrize(
    "option", [("--format", "flac"), ("--subtype", "PCM_16"), ("--filename", "{stem}.wav")]
)
def test_what_is_for_stems_is_not_ignored_with_samples(stream, model_file, option):
    result = invoke("-m", model_file, "-", *option, input=stream)
    assert result.exit_code == 2
    assert "--filename, --format and --subtype are for the stems of audio files" in result.stderr


def test_empty_standard_input_says_so(model_file):
    result = invoke("-m", model_file, "-", input=b"")
    assert result.exit_code == 1
    assert "standard input is empty" in result.stderr


def test_a_sample_is_handed_on_before_the_next_one_arrives(stream, model_file):
    """A live pipe: the first sample comes out while the second has not been written yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sepcli", "separate", "-m", model_file, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    second = stream.index(b"000001.json")
    process.stdin.write(stream[:second])
    process.stdin.flush()
    head = b""
    while b"000000.est.speech.wav" not in head:
        head += process.stdout.read1(4096)
    rest, _ = process.communicate(stream[second:], timeout=60)
    assert process.returncode == 0
    assert len(list(read_samples("-", stdin=io.BytesIO(head + rest)))) == 3
