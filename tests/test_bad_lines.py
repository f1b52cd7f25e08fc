"""A line of a list that makes no sense never ends the work on the others, in any command."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.mixing.mixtures import Mixer
from sepcli.mixing.specs import MixtureSpec
from sepcli.recordings.pools import Pool
from sepcli.samples.pack import Pack

BAD = ('{"path": 3', '["a.wav"]', '{"file": "a.wav"}', '{"path": "\\u0000"}', '{"path": "\\ud800"}')
RATE = 8000


def run(*args):
    return CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two recordings, which decay so that they are impulse responses, too."""
    monkeypatch.chdir(tmp_path)
    decay = 10 ** (-3 * np.arange(RATE) / RATE / 0.3)
    for number, name in enumerate("ab"):
        noise = np.random.default_rng(number).standard_normal(RATE) * decay
        soundfile.write(f"{name}.wav", 0.2 * noise, RATE, "FLOAT")
    return tmp_path


def listed(*lines):
    with open("list.jsonl", "w") as file:
        file.write("\n".join(lines))
    return "list.jsonl"


def whole(*bad):
    return listed('{"path": "a.wav"}', *bad, '{"path": "b.wav"}')


@pytest.mark.parametrize("bad", BAD)
def test_mix_names_it_and_makes_what_it_makes_without_it(here, bad):
    quick = ("--duration", 0.2, "--sample-rate", RATE, "-n", 6)
    result = run("mix", "--speech", whole(bad), *quick, "-o", "one.tar")
    *failed, wrote, error = result.stderr.splitlines()
    assert result.exit_code == 1
    assert len(failed) == 1
    assert failed[0].startswith("Failed: list.jsonl, line 2: ")
    assert wrote == "Wrote 6 samples to one.tar"
    assert error.startswith("Error: 1 recording could not be used")
    assert run("mix", "--speech", whole(), *quick, "-o", "two.tar").exit_code == 0
    assert run("mix", "--speech", whole(bad), *quick, "-o", "three.tar", "-j", 2).exit_code == 1
    made = [(here / f"{name}.tar").read_bytes() for name in ("one", "two", "three")]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("bad", BAD)
def test_pack_names_it_and_notes_it_in_the_pack(here, bad):
    result = run("pack", "--speech", whole(bad), "-o", "x.h5")
    assert result.exit_code == 1
    assert result.stderr.startswith("Skipped: list.jsonl, line 2: ")
    assert "1 of 3 inputs could not be read and are not in x.h5" in result.stderr
    pack = Pack("x.h5")
    assert [each["name"] for each in pack.manifest()] == ["a.wav", "b.wav"]
    assert [each["name"] for each in pack.skipped] == ["list.jsonl, line 2"]
    assert run("pack", "--speech", whole(bad), "-o", "x", "-j", 2).exit_code == 1
    assert len((here / "x/manifest.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("command", [["rt60"], ["rir-decay", "-o", "out"]])
def test_so_do_the_commands_for_impulse_responses(here, command):
    result = run(*command, whole(BAD[0]))
    assert result.exit_code == 1
    assert "Failed: list.jsonl, line 2: expected" in result.stderr
    assert "1 of 3" in result.stderr
    assert len(list((here / "out").glob("*.wav"))) == 2 or command == ["rt60"]


def test_where_no_line_makes_sense_nothing_is_made(here):
    for command in (["mix", "-o", "x.tar", "--speech"], ["pack", "-o", "x.h5", "--speech"]):
        result = run(*command, listed(*BAD))
        assert result.exit_code == 1
        assert "list.jsonl, line 1: " in result.stderr
        assert not {"x.tar", "x.h5"} & {path.name for path in here.iterdir()}


def test_who_spares_nothing_gets_the_error(here):
    with pytest.raises(SepcliError, match=r"^list\.jsonl, line 2: "):
        Mixer(MixtureSpec(speech=whole(BAD[0]), sample_rate=RATE)).draw(0, 0)
    with pytest.raises(SepcliError, match=r"^list\.jsonl, line 2: "):
        Pool([whole(BAD[0])]).crop(100, RATE, np.random.default_rng(0), min_rms_db=-90)


def test_a_training_refuses_it_before_the_first_step(here):
    whole(BAD[0])
    data = {"kind": "mixtures", "speech": "list.jsonl", "duration_s": 0.2}
    settings = {
        "model": {"name": "conv_tasnet", "sources": ["speech", "noise"]},
        "data": {"train": {**data, "items": 4}, "valid": {**data, "items": 2}},
        "train": {"steps": 1, "batch": 2},
    }
    (here / "c.yaml").write_text(json.dumps(settings))
    result = run("train", "c.yaml", "-o", "run")
    assert result.exit_code == 1
    assert "list.jsonl, line 2: " in result.stderr
    assert not (here / "run/last.ckpt").exists()


@pytest.mark.parametrize("key", ["\0", "\ud800", "a\0b", 3, ""])
def test_a_key_or_a_file_that_nothing_can_be_called_fails_alone(here, key):
    good = {"key": "k0", "est": {"speech": "a.wav"}, "ref": {"speech": "b.wav"}}
    lines = [good, {**good, "key": key}, {**good, "key": "k2", "est": {"speech": key}}]
    listed(*map(json.dumps, lines))
    result = run("eval", "list.jsonl", "--metrics", "si-sdr")
    assert result.exit_code == 1
    assert result.stderr.count("Failed: ") == 2
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert "2 of 3 could not be scored" in result.stderr
