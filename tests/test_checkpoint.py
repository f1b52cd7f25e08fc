"""Checkpoints: plain data, complete or absent."""

import os

import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.runs import checkpoint


class CodeInAFile:
    def __reduce__(self):
        return os.getcwd, ()


def test_plain_data_comes_back_as_it_was(tmp_path):
    state = {"step": 3, "best": None, "sums": {"loss": 0.5}, "w": [torch.arange(3.0)], "s": "x"}
    checkpoint.save(tmp_path / "last.ckpt", state)
    read = checkpoint.load(tmp_path / "last.ckpt")
    assert torch.equal(read.pop("w")[0], state.pop("w")[0])
    assert read == state
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "last.ckpt", {"step": 1})
    with pytest.raises(AttributeError):
        checkpoint.save(tmp_path / "last.ckpt", {"step": lambda: 2})
    assert checkpoint.load(tmp_path / "last.ckpt") == {"step": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"step": CodeInAFile()}, tmp_path / "last.ckpt")
    with pytest.raises(
        SepcliError, match=r"last\.ckpt: not a checkpoint of sepcli train \(it holds more than"
    ):
        checkpoint.load(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\x03\x04 cut short"])
def test_a_broken_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    message = r"last\.ckpt: not a checkpoint of sepcli train \(.*; start again with --overwrite"
    with pytest.raises(SepcliError, match=message) as caught:
        checkpoint.load(tmp_path / "last.ckpt")
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_one_line(tmp_path):
    with pytest.raises(
        SepcliError, match=r"last\.ckpt: no such checkpoint; start again with --over"
    ):
        checkpoint.load(tmp_path / "last.ckpt")
