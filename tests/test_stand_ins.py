"""What is there in place of a file: pointers of Git LFS, and pages of the web."""

import pytest
from click.testing import CliRunner

from sepcli.cli import main

STAND_INS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n": (
        "only a Git LFS pointer; fetch the file itself: git lfs pull"
    ),
    b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head></head></html>\n": (
        "a web page; download the file itself, not the page that shows it"
    ),
}


@pytest.mark.parametrize("content", STAND_INS, ids=["lfs", "html"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("net.safetensors", ["info", "net.safetensors"]),
        ("net.onnx", ["stream", "-m", "net.onnx", "--latency"]),
        ("vocals.pth", ["info", "vocals.pth"]),
        ("umx/vocals.pth", ["info", "umx"]),
        ("run/best.safetensors", ["info", "run"]),
        ("pack.h5", ["mix", "--speech", "pack.h5", "-o", "out"]),
        ("song.wav", ["rt60", "song.wav"]),
        ("samples.tar", ["separate", "samples.tar", "-o", "out"]),
    ],
)
def test_what_stands_in_for_a_file_is_named(tmp_path, monkeypatch, content, name, command):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    text = "text, not sound: " if name == "song.wav" else ""
    assert f"{name}: {text}{STAND_INS[content]}\n" in result.stderr
    assert result.stderr.count(STAND_INS[content]) == 1
