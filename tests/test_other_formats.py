"""Commands take sound of any format, by any name, and say what else a file is."""

import gzip
import json

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio
from sepcli.audio import foreign
from sepcli.cli import main
from sepcli.samples.streams import read_samples
from tests.rooms import exponential
from tests.sounds import encoded, sound
from tests.test_audio_foreign import RATE, made, without_av

COMMANDS = {
    "separate": ["separate", "-m", "denoise-tiny", "--target", "speech", "x.m4a", "-o", "out.wav"],
    "eval": ["eval", "x.m4a", "x.wav", "--json"],
    "mix": ["mix", "--noise", "x.m4a", "-n", "1", "--duration", "0.5", "-o", "out"],
    "pack": ["pack", "--noise", "x.m4a", "-o", "out.h5"],
    "rt60": ["rt60", "x.m4a", "--json"],
    "rir-decay": ["rir-decay", "x.m4a", "-o", "out.wav"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a room's response as x.m4a, x.wav, and x without an extension."""
    response = 0.5 * np.tile(exponential(0.3, RATE), (2, 1))
    (tmp_path / "x.m4a").write_bytes(made("alac.m4a", response.astype(np.float32)))
    audio.write(tmp_path / "x.wav", audio.read(tmp_path / "x.m4a")[0], RATE)
    (tmp_path / "x").write_bytes((tmp_path / "x.wav").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def overwriting(command, name):
    """The words of a command that reads `name`, and may replace what another one wrote."""
    words = [word.replace("x.m4a", name) for word in COMMANDS[command]]
    return [*words, "--overwrite"] if "-o" in words else words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_other_formats(folder, command):
    results = []
    for name in ("x.m4a", "x.wav"):
        words = COMMANDS[command] if name == "x.m4a" else overwriting(command, name)
        results.append(CliRunner().invoke(main, words))
    other, own = results
    assert other.exit_code == 0, other.stderr
    assert other.stdout.replace("x.m4a", "x.wav") == own.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_the_same_where_nothing_decodes_them(folder, monkeypatch, command):
    without_av(monkeypatch, folder)
    result = CliRunner().invoke(main, COMMANDS[command])
    assert result.exit_code == 1
    assert f"x.m4a: MP4 or M4A, which needs another decoder: {foreign.REMEDY}" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_needs_an_extension(folder, command):
    result = CliRunner().invoke(main, overwriting(command, "x"))
    assert result.exit_code == 0, result.stderr


def test_a_list_may_name_sound_without_an_extension(folder):
    (folder / "list.jsonl").write_text(json.dumps({"mix": "x", "ref": {"speech": "x.m4a"}}) + "\n")
    [sample] = read_samples(folder / "list.jsonl")
    np.testing.assert_array_equal(sample.audio("mix"), sample.audio("ref.speech"))


@pytest.mark.parametrize("command", ["eval", "separate", "rt60"])
def test_what_is_compressed_is_said_to_be(folder, command):
    (folder / "mixtures.tar.gz").write_bytes(gzip.compress(bytes(10240)))
    result = CliRunner().invoke(main, [command, "mixtures.tar.gz"])
    assert result.exit_code == 1
    assert "mixtures.tar.gz: compressed; unpack it with gzip -d" in result.stderr


@pytest.mark.parametrize("command", ["eval", "separate", "rt60"])
def test_a_link_to_nowhere_and_an_address_are_told(folder, command):
    (folder / "gone.wav").symlink_to(".git/annex/gone")
    result = CliRunner().invoke(main, [command, "gone.wav"])
    assert result.exit_code == 1
    assert "link" in result.stderr
    result = CliRunner().invoke(main, [command, "https://example.org/x.wav"])
    assert result.exit_code == 1
    assert "https://example.org/x.wav: " in result.stderr


@pytest.mark.parametrize("name", ["cut.wav", "cut.flac", "cut.ogg", "cut.mp3"])
def test_a_file_that_is_cut_off_is_separated_as_far_as_it_goes_when_asked(folder, name):
    data = encoded(name[4:], sound(48000))
    (folder / name).write_bytes(data[: len(data) * 3 // 4])
    words = ["separate", "-m", "denoise-tiny", "--target", "speech", name, "-o", "out.wav"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert not (folder / "out.wav").exists()
    result = CliRunner().invoke(main, [*words, "--no-strict"])
    assert result.exit_code == 0
    assert f"{name}: " in result.stderr
    assert "read up to there" in result.stderr
    assert 24_000 < audio.info("out.wav").frames < 48_000
