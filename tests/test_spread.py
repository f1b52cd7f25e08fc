"""Work that is shared out to processes: as one process does it, whatever the command."""

import itertools

import pytest

import sepcli
from sepcli.cluster.spread import Spread
from sepcli.cluster.workers import Ready
from sepcli.samples.streams import read_samples
from tests.commands import contents, run
from tests.separators import noise, save_tiny


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Five sounds, one of which is damaged, as samples and as files."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(5):
        sepcli.write(folder / f"in/{number}.wav", noise(1, 9000 + number, number), 16000)
    (folder / "in/2.wav").write_bytes(b"RIFF")
    run("mix", "-n", 5, "--duration", 0.3, "--enroll", "-o", folder / "samples", "-q")
    (folder / "samples/000003/mix.wav").write_bytes(b"RIFF")
    (folder / "samples/000003/enroll.wav").write_bytes(b"RIFF")
    sepcli.write(folder / "ref.wav", noise(1, 12000), 16000)
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_ready_comes_in_its_turn(jobs):
    tasks = (Ready(-n) if n % 3 else n for n in range(10))
    found = list(Spread(jobs=jobs).each(abs, tasks))
    assert found == [-n if n % 3 else n for n in range(10)]


def test_much_that_is_ready_is_not_taken_ahead():
    taken = []
    tasks = (taken.append(n) or Ready(n) for n in itertools.count())
    results = Spread(jobs=2).each(abs, tasks)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert len(taken) <= 25
    results.close()


@pytest.mark.parametrize("command", ["separate", "extract"])
@pytest.mark.parametrize("what", ["in", "samples"])
def test_processes_write_what_one_writes(tmp_path, files, model_file, command, what):
    args = [command, files / what]
    args += ["-m", model_file] if command == "separate" else []
    args += ["--ref", files / "ref.wav"] if (command, what) == ("extract", "in") else []
    alone = run(*args, "-o", tmp_path / "out", code=1)
    expected = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "alone")
    many = run(*args, "-j2", "-o", tmp_path / "out", code=1)
    assert many.stderr == alone.stderr
    assert contents(tmp_path / "out") == expected


def test_a_tar_has_the_samples_in_their_order(tmp_path, files, model_file):
    args = ("separate", files / "samples", "-m", model_file)
    run(*args, "-o", tmp_path / "alone.tar", code=1)
    run(*args, "-j2", "-o", tmp_path / "many.tar", code=1)
    assert (tmp_path / "many.tar").read_bytes() == (tmp_path / "alone.tar").read_bytes()


def test_a_usage_error_of_an_item_ends_the_run(tmp_path, files):
    run("mix", "-n", 2, "--duration", 0.3, "-o", tmp_path / "in", "-q")
    args = ("separate", tmp_path / "in", "--target", "drums")
    alone = run(*args, "-o", tmp_path / "alone", code=2)
    assert run(*args, "-j2", "-o", tmp_path / "many", code=2).stderr == alone.stderr


def test_what_a_killed_run_left_out_of_an_item_is_done(tmp_path, files, model_file):
    args = ("separate", files / "in/0.wav", "-m", model_file, "-o", tmp_path, "--skip-existing")
    run(*args)
    expected = contents(tmp_path)
    (tmp_path / "0/noise.wav").unlink()
    (tmp_path / "0/speech.wav").write_bytes(b"mine")
    run(*args)
    assert contents(tmp_path) == expected | {"0/speech.wav": b"mine"}


def test_samples_of_one_name_are_one_and_an_error(tmp_path, files, model_file):
    run("mix", "-n", 1, "--duration", 0.3, "-o", tmp_path / "in.tar", "-q")
    again = tmp_path / "again.tar"
    again.write_bytes((tmp_path / "in.tar").read_bytes())
    args = ("separate", tmp_path / "in.tar", again, "-m", model_file, "-o", tmp_path / "out")
    assert "two samples are called '000000'" in run(*args, "-j2", code=1).stderr
    assert [sample.key for sample in read_samples(tmp_path / "out")] == ["000000"]
