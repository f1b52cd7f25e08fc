"""Streams and sound that are cut off, in every command that goes through what it is given."""

import io
import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.samples.pack import Pack
from tests.samples import make_sample, to_tar
from tests.sounds import encoded, sound

RATE = 8000
CUT = "cut off inside 000003."


def run(*args, stdin=None):
    return CliRunner().invoke(main, list(map(str, args)), input=stdin)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def torn():
    """A stream of samples that ends within the fourth of six."""
    data = to_tar(make_sample(n, roles=("mix", "ref.speech", "est.speech")) for n in range(6))
    return data[: len(data) * 6 // 10]


@pytest.fixture(params=["a file", "standard input"])
def source(request, here):
    """(name, bytes for standard input) of a torn stream."""
    (here / "cut.tar").write_bytes(torn())
    return ("cut.tar", None) if request.param == "a file" else ("-", torn())


@pytest.mark.parametrize("jobs", [1, 2])
def test_eval_scores_what_is_complete_of_a_stream(source, jobs):
    name, stdin = source
    result = run("eval", name, "--metrics", "si-sdr", "--json", "-j", jobs, stdin=stdin)
    assert result.exit_code == 1
    failed, error = result.stderr.splitlines()
    assert CUT in failed
    assert error == "Error: 1 of 4 could not be scored, see above"
    report = json.loads(result.stdout)
    assert [item["key"] for item in report["items"]] == ["000000", "000001", "000002"]
    assert len(report["failed"]) == 1


@pytest.mark.parametrize("output", ["x.h5", "x.tar"])
def test_pack_keeps_what_is_complete_of_a_file_and_all_others(here, output):
    (here / "cut.tar").write_bytes(torn())
    (here / "b.tar").write_bytes(to_tar([make_sample(9)]))
    result = run("pack", "cut.tar", "b.tar", "-o", output)
    assert result.exit_code == 1
    skipped, wrote, error = result.stderr.splitlines()
    assert skipped.startswith("Skipped: ")
    assert CUT in skipped
    assert wrote == f"Wrote {output}"
    assert error.startswith("Error: 1 of 5 inputs could not be read")
    assert [path.name for path in here.glob("x*")] == [output]
    if output == "x.h5":
        assert Pack(output).count == 4
        assert CUT in Pack(output).skipped[0]["skipped"]


def test_pack_of_a_pipe_that_ends_early_goes_on_when_it_comes_again(here):
    result = run("pack", "-", "-o", "x.h5", stdin=torn())
    assert result.exit_code == 1
    (error,) = result.stderr.splitlines()
    assert CUT in error
    assert error.endswith("or send all again, with --resume")
    assert not (here / "x.h5").exists()
    whole = to_tar(make_sample(n, roles=("mix", "ref.speech", "est.speech")) for n in range(6))
    assert run("pack", "-", "-o", "x.h5", "--resume", stdin=whole).exit_code == 0
    assert Pack("x.h5").count == 6
    assert [path.name for path in here.glob("x*")] == ["x.h5"]


def test_a_stream_without_anything_complete_is_an_error_alone(here):
    for command in (["eval", "-"], ["pack", "-", "-o", "x.h5"]):
        result = run(*command, stdin=torn()[:700])
        assert result.exit_code == 1
        assert "cut off after 000000.json, 0 samples" in result.stderr
        assert not (here / "x.h5").exists()


def cut_files(here, extension):
    """A folder of two files, the first cut off; what can be read of that, (C, T)."""
    whole = [encoded(extension, sound(4 * RATE, pitch=300 + n), RATE) for n in range(2)]
    data = [whole[0][: len(whole[0]) * 3 // 4], whole[1]]
    for folder in ("est", "ref"):
        (here / folder).mkdir()
        for name, content in zip("ab", data, strict=True):
            (here / folder / f"{name}.{extension}").write_bytes(content)
    with audio.open_blocks(io.BytesIO(data[0]), strict=False) as reader:
        return reader.rest()


COMMANDS = {
    "separate": ["separate", "est", "-m", "denoise-tiny", "-o", "out", "--threads", 1],
    "eval": ["eval", "est", "ref", "--metrics", "si-sdr", "-o", "out.json"],
    "pack": ["pack", "--speech", "est", "--dtype", "float32", "-o", "out.h5"],
}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("extension", ["wav", "flac"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_strict_reads_sound_as_far_as_it_goes_wherever_it_is_an_option(
    here, command, extension, jobs
):
    there = cut_files(here, extension)
    args = [*COMMANDS[command], "-j", jobs]
    strict = run(*args)
    assert strict.exit_code == 1
    assert f"a.{extension}: cut off" in strict.stderr or "damaged" in strict.stderr
    for path in here.glob("out*"):
        path.rename(here / f"strict-{path.name}")
    lenient = run(*args, "--no-strict")
    assert lenient.exit_code == 0, lenient.stderr
    if command == "separate":
        found = soundfile.info(here / "out/a/speech.wav").frames
    elif command == "eval":
        keys = [item["key"] for item in json.loads((here / "out.json").read_text())["items"]]
        assert keys == ["a", "b"]
        return
    else:
        pack = Pack("out.h5")
        group = next(iter(pack.groups.values()))
        found = int(group.lengths[0])
        np.testing.assert_allclose(pack.read(group, 0), there, rtol=0, atol=1e-6)
    assert found == there.shape[1]


def test_the_option_of_one_run_is_none_of_the_next(here):
    cut_files(here, "wav")
    assert run(*COMMANDS["pack"], "--no-strict").exit_code == 0
    assert run(*COMMANDS["pack"], "--overwrite").exit_code == 1
