"""Recordings in every layout that the scripts make, as settings of a training."""

import itertools
import re
import shlex
import sys
from pathlib import Path

import pytest

from sepcli.data.datasets import Dataset
from tests.machines import FILES, Machine, fill

SEPCLI = """#!/bin/sh
case $1 in
pack)
    case $2 in
    --stats) cat "$3" ;;
    *)
        echo "$@" >>"$PACKAGES/packed"
        for word; do case $word in *.h5) echo rir/rooms >"$word" ;; esac; done
        ;;
    esac
    ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def parts(machine, data, **environment):
    """What data-parts.sh says: {"train.speech": place below the machine's folder, ...}."""
    machine.add("sepcli", SEPCLI)
    (machine.folder / "packages").mkdir(exist_ok=True)
    process = machine.run("data-parts.sh", machine.folder / data, machine.folder / "out")
    assert process.returncode == 0, process.stderr
    pairs = (line.removeprefix("data.").split("=", 1) for line in process.stdout.splitlines())
    return {key: place.removeprefix(f"{machine.folder}/") for key, place in pairs}


def kinds(*names):
    return {f"{part}.{kind}" for part in ("train", "valid") for kind in names}


def test_folders_lists_and_packs_that_are_split_are_taken_as_they_are(machine):
    for part in ("train", "valid"):
        for kind in ("speech", "noise", "rir"):
            (machine.folder / "my folders" / part / kind).mkdir(parents=True)
    found = parts(machine, "my folders")
    assert found == {key: f"my folders/{key.replace('.', '/')}" for key in found}
    assert found.keys() == kinds("speech", "noise", "rir")

    lists = machine.folder / "lists"
    lists.mkdir()
    for kind, part in itertools.product(("speech", "noise"), ("train", "valid", "test")):
        (lists / f"{kind}-{part}.txt").touch()
    found = parts(machine, "lists")
    assert found["valid.noise"] == "lists/noise-valid.txt"
    assert found.keys() == kinds("speech", "noise")

    packs = machine.folder / "packs"
    packs.mkdir()
    for part in ("train", "valid"):
        (packs / f"{part}.h5").write_text("speech/x\nnoise/x\n")
    assert parts(machine, "packs").keys() == kinds("speech", "noise")
    (packs / "train.h5").write_text("speech/x\nnoise/x\nrir/x\n")
    found = parts(machine, "packs/train.h5")
    assert found["train.rir"] == "packs/train.h5"
    assert found["valid.speech"] == "packs/train.h5:validation"
    assert not (machine.folder / "packages/packed").exists()


def test_what_is_not_split_is_packed_and_split_there(machine):
    for kind in ("speech", "noise"):
        (machine.folder / "debian" / kind).mkdir(parents=True)
    found = parts(machine, "debian")
    assert found["train.speech"] == "out/data.h5"
    assert found["valid.noise"] == "out/data.h5:validation"
    lists = machine.folder / "lists"  # speech is split, noise and rooms are not
    lists.mkdir()
    for name in ("speech-train", "speech-valid", "noise", "rir"):
        (lists / f"{name}.txt").touch()
    assert parts(machine, "lists").keys() == kinds("speech", "noise", "rir")
    packed = (machine.folder / "packages/packed").read_text().splitlines()
    for name in ("speech-train", "speech-valid", "noise", "rir"):
        assert f"lists/{name}.txt" in packed[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nothing", "no such folder"),
        ("empty", "no speech; see the layouts in data-parts.sh"),
        ("file.wav", "not a pack; name a folder, or FILE.h5 of sepcli pack"),
        ("half", "has train.h5, but no valid.h5"),
    ],
)
def test_recordings_in_no_known_layout_are_one_line_that_helps(machine, data, message):
    for folder in ("empty", "half"):
        (machine.folder / folder).mkdir()
    (machine.folder / "half/train.h5").touch()
    (machine.folder / "file.wav").touch()
    process = machine.run("data-parts.sh", machine.folder / data, machine.folder / "out")
    assert process.returncode == 1
    assert re.fullmatch(f"data-parts.sh: .*{message}.*\n", process.stderr)


def test_what_the_debian_script_makes_trains_without_regrouping(machine):
    """The real pack, and the data sets that its settings make."""
    made = [to for files in FILES.values() for to in files.values() if to]
    fill(machine.folder / "my data", made)
    sepcli = Path(sys.executable).with_name("sepcli")
    machine.add("sepcli", f'#!/bin/sh\nexec {shlex.quote(str(sepcli))} "$@"\n')
    process = machine.run("data-parts.sh", machine.folder / "my data", machine.folder / "out")
    assert process.returncode == 0, process.stderr
    pairs = (line.removeprefix("data.").split("=", 1) for line in process.stdout.splitlines())
    settings = dict(pairs)
    for part in ("train", "valid"):
        given = {kind: settings[f"{part}.{kind}"] for kind in ("speech", "noise")}
        data = Dataset(**given, duration_s=0.5, items=2, min_rms_db=-90)
        assert data[0][0].shape == (1, 8000)
