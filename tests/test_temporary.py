"""What killed processes leave is removed by the next one that writes there, and nothing else."""

import os
import subprocess
import sys

import pytest

from sepcli import audio, files, temporary
from tests.samples import make_sample

LEAVE = """
import os, sys
from sepcli.temporary import temporary
file, folder = (temporary(os.path.join(sys.argv[1], name)) for name in ("x" * 200, "é"))
file.write_text("half")
folder.mkdir()
(folder / "y").write_text("half")
"""


@pytest.fixture
def leftovers(tmp_path):
    """A folder with what a process has left that is no more."""
    subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], check=True)
    assert len(os.listdir(tmp_path)) == 2
    return tmp_path


def sample_writer(folder):
    from sepcli.samples.folders import FolderWriter

    FolderWriter(folder).write(make_sample())


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: files.save(folder / "a", "x"),
        lambda folder: audio.write(folder / "a.wav", make_sample().audio("mix"), 16000),
        sample_writer,
    ],
)
def test_whoever_writes_next_removes_what_a_killed_process_left(leftovers, write):
    write(leftovers)
    assert len(os.listdir(leftovers)) == 1


def test_what_others_are_writing_or_called_alike_stays(tmp_path):
    mine = temporary.temporary(tmp_path / "mine")
    parent = mine.with_name(mine.name.replace(f"-{os.getpid():x}-", f"-{os.getppid():x}-"))
    elsewhere = ".x.00000000-1-00000000.part"  # another machine, or container
    names = [mine.name, parent.name, elsewhere, ".x.part", "x.part", ".hidden", ".a.b.part"]
    for name in names:
        (tmp_path / name).touch()
    files.save(tmp_path / "new", "x")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "new"])


def test_a_folder_is_swept_once(tmp_path, monkeypatch):
    files.save(tmp_path / "a", "x")
    monkeypatch.setattr(os, "scandir", lambda place: pytest.fail("again"))
    files.save(tmp_path / "b", "x")


def test_two_processes_that_sweep_at_once_do_not_mind(leftovers, monkeypatch):
    def too_late(place):
        raise FileNotFoundError(2, "gone", place)

    monkeypatch.setattr(os, "unlink", too_late)
    monkeypatch.setattr("shutil.rmtree", too_late)
    temporary.sweep(leftovers)
    assert len(os.listdir(leftovers)) == 2
