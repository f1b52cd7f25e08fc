"""Files that appear whole or not at all, wherever they are to be and whatever they are called."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sepcli import audio, files
from sepcli.errors import SepcliError
from sepcli.models import modelfile
from sepcli.recordings.journal import Part
from sepcli.runs import checkpoint
from sepcli.samples.streams import open_sample_writer
from tests.disks import disk_of
from tests.samples import make_sample


def write_samples(path):
    with open_sample_writer(path) as writer:
        writer.write(make_sample(frames=40_000))


def write_part(path):
    with Part(path, {}) as part:
        part.append("x", bytes(100_000))
        part.publish("x")


def write_folder(path):
    with files.replacing(path) as part:
        part.mkdir()
        (part / "x").write_bytes(bytes(100_000))


NOISE = np.random.default_rng(0).uniform(-1, 1, (1, 60_000)).astype(np.float32)
WEIGHTS = {"w": torch.zeros(30_000)}

# What writes, by the extension it wants; each some 100 kB.
WRITERS = {
    ".bin": lambda path: files.save(path, bytes(100_000)),
    ".wav": lambda path: audio.write(path, NOISE, 16000),
    ".flac": lambda path: audio.write(path, NOISE, 16000),
    ".ckpt": lambda path: checkpoint.save(path, WEIGHTS),
    ".safetensors": lambda path: modelfile.save(path, "x", {}, WEIGHTS, {}),
    ".tar": write_samples,
    ".samples": write_samples,
    ".pack": write_part,
    ".folder": write_folder,
}
every_writer = pytest.mark.parametrize("ending", WRITERS)


@every_writer
@pytest.mark.parametrize("letter", ["x", "é", "曲"])
@pytest.mark.parametrize("size", [200, 241, 255])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, ending, letter, size):
    width = len(letter.encode())
    name = letter * ((size - len(ending)) // width)
    name += "y" * (size - len(ending) - len(name.encode())) + ending
    assert len(name.encode()) == size
    WRITERS[ending](tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@every_writer
def test_a_name_that_is_too_long_is_one_line(tmp_path, ending):
    with pytest.raises(SepcliError, match="File name too long; choose a shorter name"):
        WRITERS[ending](tmp_path / ("x" * 250 + ending + "y" * 10 + ending))


@every_writer
def test_folders_are_made_on_the_way(tmp_path, ending):
    WRITERS[ending](tmp_path / "a" / "v1.0" / f"x{ending}")
    assert os.listdir(tmp_path / "a" / "v1.0") == [f"x{ending}"]


@every_writer
def test_a_file_where_a_folder_is_needed_is_named(tmp_path, ending):
    (tmp_path / "taken").touch()
    with pytest.raises(SepcliError, match="taken: a file, where a folder is needed; choose ano"):
        WRITERS[ending](tmp_path / "taken" / "below" / f"x{ending}")


@every_writer
def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(tmp_path, ending):
    with pytest.raises(SepcliError) as caught, disk_of(50_000):
        WRITERS[ending](tmp_path / f"x{ending}")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/x{ending}")
    assert message.endswith("make room") or "there is room" in message
    assert "\n" not in message
    left = {".pack": [".pack.part"], ".samples": [".samples"]}  # to go on with; the folder of all
    assert os.listdir(tmp_path) == [f"x{name}" for name in left.get(ending, [])]
    if ending == ".samples":
        assert os.listdir(tmp_path / "x.samples") == []


@every_writer
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that takes no files")
def test_where_no_file_can_be_made_the_place_is_named_and_not_the_part(ending):
    with pytest.raises(SepcliError) as caught:
        WRITERS[ending](Path("/proc/self") / f"x{ending}")
    message = str(caught.value)
    assert message.startswith(("/proc/self/x", f"/proc/{os.getpid()}/x"))
    assert "\n" not in message
    assert "/." not in message


def test_what_was_there_stays_when_the_disk_is_full(tmp_path):
    files.save(tmp_path / "x", "before")
    with pytest.raises(SepcliError), disk_of(10):
        files.save(tmp_path / "x", "after" * 10)
    assert (tmp_path / "x").read_text() == "before"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EROFS, "Read-only file system; choose another place"),
        (errno.EACCES, "Permission denied; check the permissions, or choose another place"),
        (errno.EIO, "Input/output error; check the path, the permissions and the space"),
        (errno.EBADF, "closed; connect it to a file or a pipe"),
    ],
)
def test_every_complaint_names_the_place_the_reason_and_a_remedy(number, remedy):
    error = OSError(number, "whatever", "/out/.x.wav.0123abcd.part")
    assert files.complaint(error, "/out/x.wav") == f"/out/x.wav: {remedy}"
    error = OSError(number, "whatever", "/in/y.wav")
    assert files.complaint(error, "/out/x.wav") == f"/in/y.wav: {remedy}"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "x")
    files.save(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "x").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced():
    files.save("/dev/null", "x")
    assert files.is_device("/dev/null")
    with pytest.raises(SepcliError, match="/dev/full: No space left on device; make room"):
        files.save("/dev/full", "x")
    assert files.is_device("/dev/full")


def test_a_folder_takes_the_place_of_another(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    write_folder(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(tmp_path / "x") == ["x"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("name", ["x", "new/x", "new/v1.0/x"])
def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path, name, folder):
    files.check_place(tmp_path / name, folder=folder)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("taken/x", "taken: a file, where a folder is needed"),
        ("taken/new/x", "taken: a file, where a folder is needed"),
        ("y" * 256, "File name too long"),
        ("new/" + "y" * 256 + "/x", "File name too long"),
        ("/proc/x", "/proc/x: "),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path, name, complaint, folder):
    (tmp_path / "taken").touch()
    with pytest.raises(SepcliError, match=complaint):
        files.check_place(tmp_path / name, folder=folder)
    assert os.listdir(tmp_path) == ["taken"]


def test_a_folder_is_no_place_for_a_file_nor_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SepcliError, match="a folder; name a file in it"):
        files.check_place(tmp_path)
    with pytest.raises(SepcliError, match="file: a file, where a folder is needed"):
        files.check_place(tmp_path / "file", folder=True)
    files.check_place(tmp_path, folder=True)
    files.check_place(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("x.safetensors", "x.onnx"),
        ("v1.0.safetensors", "v1.0.onnx"),
        ("v1.0", "v1.0.onnx"),  # and not v1.onnx, which v1.1 would have, too
        ("x.onnx", "x.onnx"),
    ],
)
def test_what_goes_with_a_model_is_called_like_it(name, graph):
    assert files.companion(f"a.b/{name}", ".onnx") == Path("a.b", graph)


def test_a_folder_as_output_gets_a_file_with_the_usual_name(tmp_path):
    assert files.in_folder(tmp_path, "x.onnx") == tmp_path / "x.onnx"
    assert files.in_folder(f"{tmp_path}/new/v1.0/", "x.onnx") == tmp_path / "new/v1.0/x.onnx"
    assert files.in_folder(tmp_path / "v1.0", "x.onnx") == tmp_path / "v1.0"
    assert files.in_folder(".", "x.onnx") == Path("x.onnx")


def test_two_long_names_that_begin_alike_have_parts_of_their_own(tmp_path):
    one, two = (files.beside(tmp_path / ("x" * 250 + last), ".part") for last in "ab")
    assert one != two
    assert one == files.beside(tmp_path / ("x" * 250 + "a"), ".part")
    assert files.beside(tmp_path / "a", ".part") == tmp_path / "a.part"


@pytest.mark.parametrize(("there", "stay"), [("", False), ("a", False), ("ab", True)])
def test_outputs_that_belong_together_stay_where_all_are_there(tmp_path, there, stay):
    for name in there:
        (tmp_path / name).touch()
    both = [tmp_path / "a", tmp_path / "b"]
    assert files.stays(iter(both), False) == stay
    assert not files.stays(iter(both), True)
    if there:
        with pytest.raises(SepcliError, match="exists; use --overwrite or --skip-existing"):
            files.stays(iter(both), None)
