"""`sepcli pack`: its contract, and that nothing it is killed at is lost."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.samples.pack import Pack
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.samples import make_sample, to_tar
from tests.test_pack import write_tones

RUNNER = CliRunner()


def run(*args, **kwargs):
    return RUNNER.invoke(main, ["pack", *map(str, args)], **kwargs)


@pytest.fixture
def voices(tmp_path):
    return write_tones(tmp_path / "voices", [f"{s}/{n}.wav" for s in ("ann", "bob") for n in "12"])


def test_a_pack_is_made_listed_counted_and_verified(tmp_path, voices):
    pack = tmp_path / "data.h5"
    result = run("--speech", voices, "-o", pack)
    assert (result.exit_code, result.output) == (0, f"Wrote {pack}\n")
    assert not (tmp_path / "data.h5.part").exists()
    listed = run("--list", pack).stdout.splitlines()
    assert listed[0] == "speech/voices/ann/1.wav\tann\t0.03 s\ttrain"
    assert [line.split("\t")[3] for line in listed] == ["train", "train"] + 2 * ["validation"]
    items = [json.loads(line) for line in run("--list", "--json", pack).stdout.splitlines()]
    assert [item["frames"] for item in items] == [400, 410, 420, 430]
    assert "speech/voices: 4 items (2 for validation), 2 speakers" in run("--stats", pack).stdout
    [stats] = map(json.loads, run("--stats", "--json", pack).stdout.splitlines())
    assert (stats["items"], stats["speakers"], stats["bytes"]) == (4, 2, 2 * 1660)
    assert run("--verify", pack).stdout == f"{pack}: whole, 4 items\n"


def test_jobs_pack_what_no_pipe_holds(tmp_path):
    """Samples and what is made of them are larger than the buffers between the processes."""
    samples = [make_sample(n, frames=200_000) for n in range(6)]
    (tmp_path / "samples.tar").write_bytes(to_tar(samples))
    packs = [tmp_path / "one.h5", tmp_path / "three.h5"]
    for pack, jobs in zip(packs, (1, 3), strict=True):
        options = ("--dtype", "float32", "-j", jobs)
        assert run(tmp_path / "samples.tar", "-o", pack, *options).exit_code == 0
    assert packs[0].read_bytes() == packs[1].read_bytes()


def test_options_reach_the_pack(tmp_path, voices):
    pack = tmp_path / "data.h5"
    options = ["--dtype", "flac", "--sample-rate", "8000", "--speaker-regex", r"(\d).wav"]
    assert run("--speech", voices, "-o", pack, *options, "--val-fraction", "0").exit_code == 0
    [stats] = map(json.loads, run("--stats", "--json", pack).stdout.splitlines())
    assert (stats["dtype"], stats["sample_rate"]) == ("flac", 8000)
    assert (stats["speakers"], stats["validation"]) == (2, 0)


def test_damaged_inputs_are_named_and_the_rest_is_packed(tmp_path, voices):
    (voices / "ann/0.wav").write_bytes(b"no sound")
    result = run("--speech", voices, "-o", tmp_path / "data.h5")
    assert (result.exit_code, result.stdout) == (1, "")
    skipped, _, error = result.stderr.splitlines()
    assert skipped.startswith(f"Skipped: {voices}/ann/0.wav: ")
    assert error == (
        f"Error: 1 of 5 inputs could not be read and are not in {tmp_path / 'data.h5'}"
    )
    assert run("--verify", tmp_path / "data.h5").exit_code == 0
    assert "skipped: " in run("--stats", tmp_path / "data.h5").stdout


def test_damaged_packs_fail_to_verify_but_the_others_are_still_looked_at(tmp_path, voices):
    for name in "ab":
        run("--speech", voices, "-o", tmp_path / f"{name}.h5")
    data = bytearray((tmp_path / "a.h5").read_bytes())
    group = Pack(tmp_path / "a.h5").groups["speech/voices"]
    data[group.start + 40] ^= 1
    (tmp_path / "a.h5").write_bytes(data)
    result = run("--verify", tmp_path / "a.h5", tmp_path / "b.h5")
    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path / 'b.h5'}: whole, 4 items\n"
    assert result.stderr == (
        f"Error: {tmp_path / 'a.h5'}: speech/voices/ann/1.wav: damaged; copy it again, or make it "
        "again with sepcli pack\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Nothing to pack: name --speech"),
        (["-"], "Name the pack to write: -o FILE.h5"),
        (["-", "-o", "x.wav"], "Name the pack to write: -o FILE.h5"),
        (["--list"], "take packs"),
        (["--verify", "x.h5", "-o", "y.h5"], "take packs"),
        (["-", "-o", "x.h5", "--speaker-regex", "("], "is not a regular expression"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_existing_packs_are_not_replaced_unasked(tmp_path, voices):
    pack = tmp_path / "data.h5"
    pack.write_text("old")
    result = run("--speech", voices, "-o", pack)
    assert (result.exit_code, pack.read_text()) == (1, "old")
    assert result.stderr == f"Error: {pack}: exists; use --overwrite or --skip-existing\n"
    for option in ("--skip-existing", "--resume"):
        result = run("--speech", voices, "-o", pack, option)
        assert (result.exit_code, pack.read_text()) == (0, "old")
        assert "exists already, left as it is" in result.stderr
    assert run("--speech", voices, "-o", pack, "--overwrite").exit_code == 0
    assert Pack(pack).count == 4


def test_samples_come_through_a_pipe(tmp_path):
    stream = to_tar([make_sample(index) for index in range(3)])
    assert run("-", "-o", tmp_path / "s.h5", input=stream).exit_code == 0
    lines = run("--stats", tmp_path / "s.h5").stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["samples/mix", "samples/ref.speech"]


def test_a_stream_that_was_cut_off_leaves_no_pack_and_is_resumed(tmp_path):
    stream = to_tar([make_sample(index) for index in range(3)])
    pack, whole = tmp_path / "s.h5", tmp_path / "whole.h5"
    result = run("-", "-o", pack, input=stream[:-3000])
    assert result.exit_code == 1
    assert "the command upstream stopped early" in result.stderr
    assert not pack.exists()
    result = run("-", "-o", pack, input=stream)
    assert (result.exit_code, pack.exists()) == (1, False)
    assert "s.h5.part: an unfinished run; resume with --resume" in result.stderr
    assert run("-", "-o", pack, "--resume", input=stream).exit_code == 0
    assert run("-", "-o", whole, input=stream).exit_code == 0
    assert pack.read_bytes() == whole.read_bytes()


def test_other_samples_than_before_are_not_mixed_into_a_pack(tmp_path):
    pack = tmp_path / "s.h5"
    assert run("-", "-o", pack, input=to_tar([make_sample(0)])[:-1600]).exit_code == 1
    others = to_tar([make_sample(0, key="other"), make_sample(1)])
    result = run("-", "-o", pack, "--resume", input=others)
    assert result.exit_code == 1
    assert "sample other is where 000000 was before" in result.stderr


def test_other_inputs_or_options_than_before_do_not_go_on(tmp_path, voices):
    pack = tmp_path / "data.h5"
    part = tmp_path / "data.h5.part"
    part.mkdir()
    (part / "journal.jsonl").write_text('{"plan": {"spec": "other"}}\n')
    result = run("--speech", voices, "-o", pack, "--resume")
    assert result.exit_code == 1
    assert "started with other inputs or options; start again with --overwrite" in result.stderr
    assert run("--speech", voices, "-o", pack, "--overwrite").exit_code == 0
    assert Pack(pack).count == 4
    assert not part.exists()


# --- tars


def test_recordings_become_shards_of_samples_with_a_manifest(tmp_path, voices):
    (voices / "bob/3.wav").write_bytes(b"no sound")
    shards = tmp_path / "shards"
    assert run("--speech", voices, "--shard-size", 3, "-o", shards).exit_code == 1
    names = ["000000.tar", "000001.tar", "manifest.jsonl", "skipped.jsonl"]
    assert sorted(os.listdir(shards)) == names
    samples = [s for name in names[:2] for s in read_samples(shards / name)]
    assert [s.meta["name"] for s in samples] == ["ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/2.wav"]
    assert [s.meta["speaker"] for s in samples] == ["ann", "ann", "bob", "bob"]
    for sample in samples:
        expected, _ = soundfile.read(voices / sample.meta["name"], dtype="float32")
        np.testing.assert_array_equal(sample.audio("ref.speech"), expected[None])
    lines = [json.loads(line) for line in (shards / "manifest.jsonl").read_text().splitlines()]
    assert [line["shard"] for line in lines] == 3 * ["000000.tar"] + ["000001.tar"]
    assert [line["split"] for line in lines] == 2 * ["train"] + 2 * ["validation"]
    assert json.loads((shards / "skipped.jsonl").read_text())["name"] == "bob/3.wav"


@pytest.mark.parametrize("dtype", ["int16", "float32", "flac"])
def test_samples_go_into_one_tar(tmp_path, dtype):
    originals = [make_sample(index, snr_db=1.5) for index in range(3)]
    originals[2].members["note.txt"] = b"kept"
    tar = tmp_path / "s.tar"
    assert run("-", "-o", tar, "--dtype", dtype, input=to_tar(originals)).exit_code == 0
    found = list(read_samples(tar))
    assert [sample.key for sample in found] == ["000000", "000001", "000002"]
    assert (found[2].members["note.txt"], found[0].meta["snr_db"]) == (b"kept", 1.5)
    error = np.abs(found[1].audio("mix") - originals[1].audio("mix")).max()
    assert error <= (0 if dtype == "float32" else 0.51 / 32768)


def test_an_interrupted_folder_of_shards_is_finished(tmp_path):
    stream = to_tar([make_sample(index) for index in range(8)])
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    assert run("-", "-o", whole, "--shard-size", 3, input=stream).exit_code == 0
    assert run("-", "-o", shards, "--shard-size", 3, input=stream[:-9000]).exit_code == 1
    assert not shards.exists()
    assert run("-", "-o", shards, "--shard-size", 3, "--resume", input=stream).exit_code == 0
    for name in os.listdir(whole):
        assert (shards / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["shards", "whole"]


# --- killed


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough files for kills to hit every stage, one of them damaged."""
    root = tmp_path_factory.mktemp("many")
    folder = write_tones(root / "in", [f"{n // 20}/{n:03d}.wav" for n in range(200)], frames=8000)
    (folder / "3/065.wav").write_bytes(b"RIFF")
    return folder


def start(*args):
    command = [sys.executable, "-m", "sepcli", "pack", *map(str, args), "--progress", "json"]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def test_twenty_kills_lose_nothing(tmp_path, many):
    """Kills after a random number of items, and at random times in the steps behind the last."""
    whole, pack = tmp_path / "whole.h5", tmp_path / "killed.h5"
    assert run("--speech", many, "-o", whole).exit_code == 1  # for the damaged one
    expected, chance, left = whole.read_bytes(), random.Random(5), 200
    for kill in range(20):
        process = start("--speech", many, "-o", pack, "--resume")
        with process:
            for _ in range(left if kill > 12 else chance.choice([0, 1, 5, 20, 30])):
                process.stderr.readline()
            time.sleep(chance.random() * 0.03)
            process.send_signal(signal.SIGKILL)
            process.stderr.read()
        left = 200 - len(journal(pack))
        assert not pack.exists() or pack.read_bytes() == expected
    assert run("--speech", many, "-o", pack, "--resume").exit_code in (0, 1)
    assert pack.read_bytes() == expected
    assert not (tmp_path / "killed.h5.part").exists()


def journal(pack):
    """The records in the journal of a part, if there is one."""
    path = pack.with_name(f"{pack.name}.part") / "journal.jsonl"
    return (
        [line for line in path.read_text().splitlines() if '"record"' in line]
        if path.exists()
        else []
    )


STEPS = (
    *((os, name) for name in ("fsync", "replace", "truncate")),
    *((Path, name) for name in ("unlink", "rmdir", "mkdir", "open")),
)


@pytest.mark.parametrize("occurrence", range(1, 4))
@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
def test_whatever_step_is_the_last_one_the_next_run_finishes(
    tmp_path, voices, monkeypatch, module, name, occurrence
):
    """The same for each call that changes the disk around the writing itself."""
    whole, pack = tmp_path / "whole.h5", tmp_path / "killed.h5"
    assert run("--speech", voices, "-o", whole).exit_code == 0
    original, calls = getattr(module, name), []

    def killing(*args, **kwargs):
        calls.append(args)
        if len(calls) == occurrence:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killing)
        run("--speech", voices, "-o", pack)
    assert not pack.exists() or pack.read_bytes() == whole.read_bytes()
    assert run("--speech", voices, "-o", pack, "--resume").exit_code == 0
    assert pack.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "killed.h5.part").exists()


def test_two_runs_do_not_write_one_pack(tmp_path, voices):
    part = tmp_path / "data.h5.part"
    part.mkdir()
    with (part / "journal.jsonl").open("a") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        result = run("--speech", voices, "-o", tmp_path / "data.h5", "--resume")
    assert result.exit_code == 1
    assert "data.h5.part: another process is writing it; wait until it ends" in result.stderr


@pytest.mark.parametrize("name", ["v1.0", "v1.0/", "Vol. 2", "x.h5/", "a.b/c.d/", "x.tar/"])
def test_an_output_that_does_not_end_like_a_pack_is_a_folder_of_shards(tmp_path, voices, name):
    assert run("--speech", voices, "-o", f"{tmp_path}/{name}").exit_code == 0
    assert (tmp_path / name / "000000.tar").is_file()


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip", "x.hdf5", "x.wav"])
def test_an_output_that_is_another_kind_of_file_is_a_usage_error(tmp_path, voices, name):
    result = run("--speech", voices, "-o", tmp_path / name)
    assert result.exit_code == 2
    assert "Name the pack to write: -o FILE.h5, -o FILE.tar, or -o DIR" in result.stderr


@pytest.mark.parametrize("bad", ["missing.tar", "empty.tar", "text.tar"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_input_of_samples_is_left_out(tmp_path, bad, place):
    (tmp_path / "empty.tar").touch()
    (tmp_path / "text.tar").write_text("no tar")
    for name in "ab":
        with open_sample_writer(tmp_path / f"{name}.tar") as writer:
            writer.write(make_sample(key=name))
    inputs = [tmp_path / "a.tar", tmp_path / "b.tar"]
    inputs.insert(place, tmp_path / bad)
    result = run(*inputs, "-o", tmp_path / "x.h5")
    assert result.exit_code == 1
    skipped, wrote, error = result.stderr.splitlines()
    assert skipped.startswith(f"Skipped: {tmp_path}/{bad}")
    assert wrote == f"Wrote {tmp_path}/x.h5"
    assert error == f"Error: 1 of 3 inputs could not be read and are not in {tmp_path}/x.h5"
    assert [sample.key for sample in read_samples(tmp_path / "x.h5")] == ["a", "b"]
