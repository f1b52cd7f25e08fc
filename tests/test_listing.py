"""What a folder holds that looks like sound but is left out is told, by every command."""

import os

import pytest
from click.testing import CliRunner

from sepcli import audio
from sepcli.audio import foreign
from sepcli.cli import main
from sepcli.recordings.pools import find_audio
from sepcli.samples.streams import read_samples
from tests.sounds import encoded, sound


@pytest.fixture
def album(tmp_path):
    """A folder of what is read, what is not, and what is no sound at all."""
    folder = tmp_path / "album"
    (folder / "disc").mkdir(parents=True)
    for name in ("1.wav", "2.MP3", "disc/3.mp2", "4"):  # the first bytes tell what they are
        (folder / name).write_bytes(encoded("wav", sound()))
    for name in ("5.m4a", "6.webm", "7.wma", "disc/8.wv"):
        (folder / name).write_bytes(b"\0" * 100)
    for name in ("cover.jpg", "README", "list.m3u", ".hidden.wav", "Makefile"):
        (folder / name).write_text("no sound")
    (folder / "9.wav").symlink_to("../.git/annex/objects/gone.wav")
    (folder / "nowhere").symlink_to("gone")
    os.mkfifo(folder / "pipe.wav")
    return folder


READ = ["1.wav", "2.MP3", "4", "disc/3.mp2"]
FOREIGN = ["5.m4a", "6.webm", "7.wma", "disc/8.wv"]


def found(how, folder):
    if how == "find_audio":
        return sorted(os.path.relpath(path, folder) for path in find_audio(str(folder)))
    members = [list(sample.members.values()) for sample in read_samples(folder)]
    return sorted(os.path.relpath(path, folder) for [path] in members)


@pytest.mark.parametrize("how", ["find_audio", "read_samples"])
def test_a_folder_names_what_it_leaves_out(monkeypatch, caplog, album, how):
    monkeypatch.setattr("sepcli.audio.listing.is_available", lambda: False)
    assert found(how, album) == READ
    [line] = caplog.messages
    assert set(line.removeprefix(f"{album}: left out ").split("; ")) == {
        f"5.m4a, 6.webm, 7.wma, disc/8.wv (to read them: {foreign.REMEDY})",
        "9.wav (links to files that are not there)",
    }


@pytest.mark.parametrize("how", ["find_audio", "read_samples"])
def test_with_a_decoder_only_links_to_nowhere_are_left_out(monkeypatch, caplog, album, how):
    monkeypatch.setattr("sepcli.audio.listing.is_available", lambda: True)
    assert found(how, album) == sorted(READ + FOREIGN)
    assert caplog.messages == [f"{album}: left out 9.wav (links to files that are not there)"]


def test_many_names_are_counted(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr("sepcli.audio.listing.is_available", lambda: False)
    (tmp_path / "x.wav").write_bytes(encoded("wav", sound()))
    for number in range(20):
        (tmp_path / f"{number:02}.m4a").touch()
    assert found("find_audio", tmp_path) == ["x.wav"]
    [line] = caplog.messages
    assert "left out 00.m4a, 01.m4a, 02.m4a, 03.m4a, 04.m4a and 15 more (" in line


def test_a_glob_names_what_it_leaves_out(monkeypatch, caplog, album):
    monkeypatch.setattr("sepcli.audio.listing.is_available", lambda: False)
    monkeypatch.chdir(album)
    assert find_audio("[0-9]*") == ["1.wav", "2.MP3", "4"]
    [line] = caplog.messages
    assert "5.m4a, 6.webm, 7.wma" in line
    assert "9.wav" in line


def test_a_sample_names_a_member_that_is_a_link_to_nowhere(caplog, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mix.wav").write_bytes(encoded("wav", sound()))
    (tmp_path / "a/ref.speech.wav").symlink_to("gone.wav")
    [sample] = read_samples(tmp_path)
    assert sample.refs() == {}
    assert "left out a/ref.speech.wav (links to files that are not there)" in caplog.text


COMMANDS = {
    "mix": ["mix", "--noise", "album", "-n", "1", "-o", "m", "--duration", "0.5"],
    "pack": ["pack", "--speech", "album", "-o", "p.h5"],
    "rt60": ["rt60", "album"],
    "rir-decay": ["rir-decay", "album", "-o", "out"],
    "eval": ["eval", "album", "album"],
    "separate": ["separate", "-m", "denoise-tiny", "album", "-o", "out", "--threads", "1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_searches_folders_tells(monkeypatch, album, command):
    monkeypatch.setattr("sepcli.audio.listing.is_available", lambda: False)
    monkeypatch.chdir(album.parent)
    result = CliRunner().invoke(main, COMMANDS[command])
    assert result.exit_code in (0, 1)
    [line, *_] = [line for line in result.stderr.splitlines() if "left out" in line]
    for name in ("5.m4a", "7.wma", "disc/8.wv", "9.wav"):
        assert name in line


def test_notes_are_no_errors_for_who_wants_only_those(monkeypatch, album):
    monkeypatch.chdir(album.parent)
    for words, told in (([], True), (["-q"], False), ([], True)):
        result = CliRunner().invoke(main, ["eval", "album", "album", "-o", "x.json", *words])
        assert ("left out" in result.stderr) == told


def test_extensions_of_other_formats_count_as_sound_where_they_are_named():
    for extension in (".m4a", ".webm", ".mp4", ".aac", ".wma", ".mp2"):
        assert extension in audio.AUDIO_EXTENSIONS
