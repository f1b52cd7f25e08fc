"""Shares of a run: together they are the whole run, whatever the command."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sepcli
from sepcli.cluster import shard
from sepcli.errors import UsageError
from sepcli.samples.pack import Pack
from sepcli.samples.streams import read_samples
from tests.commands import contents, run
from tests.separators import noise, save_tiny

SHARES = 3


def shares(*args, outputs=lambda i: "all", folder, name="-o"):
    """Run the shares of a command one by one; the outputs of each."""
    places = [folder / outputs(i) for i in range(1, SHARES + 1)]
    for i, place in enumerate(places, 1):
        run(*args, name, place, "--shard", f"{i}/{SHARES}", "-q")
    return places


@given(st.integers(1, 40), st.integers(0, 200))
def test_shares_are_disjoint_even_and_all_of_it(count, total):
    each = [shard.Shard(i, count) for i in range(1, count + 1)]
    found = [list(share.of(range(total))) for share in each]
    assert sorted(itertools.chain(*found)) == list(range(total))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    for share, items in zip(each, found, strict=True):
        assert items == [number for number in range(total) if share.has(number)]
        assert items == [share.number(place) for place in range(share.size(total))]


@given(st.integers(1, 999), st.integers(0, 999))
def test_a_share_is_read_as_it_is_written(index, more):
    assert shard.parse(f"{index}/{index + more}") == shard.Shard(index, index + more)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/4", "", "1 / 3"])
def test_what_is_no_share_is_a_usage_error(text):
    with pytest.raises(UsageError, match="shard"):
        shard.parse(text)
    assert "--shard" in run("mix", "--shard", text, code=2).stderr


def test_mix(tmp_path):
    args = ("mix", "-n", 7, "--duration", 0.1)
    run(*args, "-o", tmp_path / "whole", "-q")
    shares(*args, folder=tmp_path)
    assert len(contents(tmp_path / "whole")) == 28
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Files of four speakers, at several rates."""
    folder = tmp_path_factory.mktemp("shard") / "speech"
    for number, name in enumerate(("ann/1", "ann/2", "bob/1", "cleo/1", "cleo/2", "dan/1")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rate = 16000 if number % 2 else 8000
        sepcli.write(folder / f"{name}.wav", noise(1, 800 + 10 * number, number), rate)
    return folder


def packed(pack):
    """What of a pack does not depend on which other items are in it."""
    pack, found = Pack(pack), {}
    for item in pack.manifest():
        group = pack.groups[f"{item['kind']}/{item['source']}"]
        index = [name.decode() for name in group.names].index(item["name"])
        found[item["name"]] = (item, pack.stored(group, index))
    return found


def test_pack(tmp_path, recordings):
    args = ("pack", "--speech", recordings, "--val-fraction", 0.3)
    run(*args, "-o", tmp_path / "whole.h5", "-q")
    parts = shares(*args, outputs="part-{}.h5".format, folder=tmp_path)
    whole, found = packed(tmp_path / "whole.h5"), {}
    for part in map(packed, parts):
        assert not found.keys() & part.keys()
        found |= part
    assert len(found) == 6
    assert {item["split"] for item, _ in whole.values()} == {"train", "validation"}
    assert found == whole


@pytest.mark.parametrize("what", ["recordings", "samples"])
def test_pack_of_tars(tmp_path, recordings, what):
    run("mix", "-n", 6, "--duration", 0.1, "-o", tmp_path / "in.tar", "-q")
    inputs = (tmp_path / "in.tar",) if what == "samples" else ("--speech", recordings)
    run("pack", *inputs, "--shard-size", 2, "-o", tmp_path / "whole", "-q")
    parts = shares("pack", *inputs, "--shard-size", 2, outputs="part-{}".format, folder=tmp_path)
    whole, *found = (
        {s.key: (s.json(), s.members) for tar in sorted(p.glob("*.tar")) for s in read_samples(tar)}
        for p in (tmp_path / "whole", *parts)
    )
    assert len(whole) == sum(map(len, found)) == 6
    assert {key: value for part in found for key, value in part.items()} == whole
    splits = [
        sorted(
            json.loads(line)["split"]
            for place in places
            for line in (place / "manifest.jsonl").read_text().splitlines()
        )
        for places in ([tmp_path / "whole"], parts)
    ]
    assert splits[0] == splits[1]


def test_a_share_of_a_pack_is_resumed_as_such(tmp_path, recordings):
    output = tmp_path / "part.h5"
    run("pack", "--speech", recordings, "-o", output, "--shard", "2/3", "-q")
    line = run("pack", "--speech", recordings, "-o", tmp_path / "x.h5", "--shard", "9/9", code=1)
    assert "nothing is left for shard 9/9" in line.stderr
    run("pack", "--speech", recordings, "-o", tmp_path / "x.h5", "--resume", code=1)
    assert len(packed(output)) == 2


def test_separate_files(tmp_path, recordings, model_file):
    args = ("separate", "-m", model_file, recordings, recordings / "ann")
    run(*args, "-o", tmp_path / "whole", "-q")
    shares(*args, folder=tmp_path)
    assert len(contents(tmp_path / "whole")) == 16
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")


@pytest.mark.parametrize("form", ["in", "in.tar"])
def test_separate_samples(tmp_path, model_file, form):
    run("mix", "-n", 5, "--duration", 0.1, "-o", tmp_path / form, "-q")
    args = ("separate", "-m", model_file, tmp_path / form)
    run(*args, "-o", tmp_path / "whole", "-q")
    shares(*args, folder=tmp_path)
    assert len(contents(tmp_path / "whole")) == 25
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")


def test_extract(tmp_path, recordings):
    sepcli.write(tmp_path / "ref.wav", noise(1, 12000), 16000)
    args = ("extract", recordings, "--ref", tmp_path / "ref.wav", "--json")
    lines = run(*args, "-o", tmp_path / "whole", "-q").stdout.splitlines()
    found = [
        run(*args, "-o", tmp_path / "all", "--shard", f"{i}/3", "-q").stdout.splitlines()
        for i in (1, 2, 3)
    ]
    assert [len(each) for each in found] == [2, 2, 2]
    assert sorted(itertools.chain(*found)) == sorted(
        line.replace(f"{tmp_path}/whole", f"{tmp_path}/all") for line in lines
    )
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")


def test_the_tars_of_all_shares_are_the_whole_one(tmp_path, model_file):
    run("mix", "-n", 5, "--duration", 0.1, "-o", tmp_path / "in.tar", "-q")
    args = ("separate", "-m", model_file, tmp_path / "in.tar")
    run(*args, "-o", tmp_path / "whole.tar", "-q")
    parts = shares(*args, outputs="{}.tar".format, folder=tmp_path)
    whole, *found = (
        {s.key: s.members for s in read_samples(p)} for p in (tmp_path / "whole.tar", *parts)
    )
    assert {key: members for part in found for key, members in part.items()} == whole


def test_a_failure_is_of_one_share(tmp_path, recordings, model_file):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    args = ("separate", "-m", model_file, recordings, tmp_path / "bad.wav", tmp_path / "gone.wav")
    for i, code in ((1, 1), (2, 1), (3, 0)):
        run(*args, "-o", tmp_path / "out", "--shard", f"{i}/{SHARES}", code=code)
    assert len(contents(tmp_path / "out")) == 12


def test_what_two_shares_would_write_is_an_error_of_one(tmp_path, recordings, model_file):
    args = ("separate", "-m", model_file, recordings, "--target", "speech")
    args = (*args, "--filename", "{stem}.wav", "-o", tmp_path / "out", "--shard")
    run(*args, "1/6")
    assert "two inputs would be written there" in run(*args, "2/6", code=1).stderr


def test_one_file_is_no_output_of_several_shares(tmp_path, recordings, model_file):
    args = ("separate", "-m", model_file, recordings, "--target", "speech")
    result = run(*args, "-o", tmp_path / "x.wav", "--shard", "1/6", code=2)
    assert "one file for 6 inputs" in result.stderr


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="module")
def estimates(tmp_path_factory):
    """Samples with estimates, one of which is silent, and one that is broken."""
    folder = tmp_path_factory.mktemp("shard")
    run("mix", "-n", 8, "--duration", 0.5, "-o", folder / "in", "-q")
    for number, sample in enumerate(read_samples(folder / "in")):
        reference = sample.audio("ref.speech")
        estimate = (reference + 0.1 * noise(1, reference.shape[1], number)).astype(np.float32)
        path = folder / "in" / sample.key / "est.speech.wav"
        sepcli.write(path, 0 * estimate if number == 3 else estimate, 16000)
    (folder / "in/000005/ref.speech.wav").write_bytes(b"RIFF")
    return folder / "in"


def test_eval(tmp_path, estimates):
    args = ("eval", estimates, "--metrics", "si-sdr,si-sdri,snr", "--json")
    run(*args, "-o", tmp_path / "whole.json", "-q", code=1)
    for i in range(1, 4):
        output = tmp_path / f"part-{i}.json"
        run(*args, "-o", output, "--shard", f"{i}/3", "-q", code=int(i == 3))
    merged = run("eval", "--merge", tmp_path / "part-*.json", "-o", tmp_path / "m.json", code=1)
    assert "1 of 8 could not be scored" in merged.stderr
    assert merged.stderr.count("Failed: ") == 1
    whole, found = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "m.json"))
    for report in (whole, found):
        report["items"].sort(key=lambda item: item["key"])
    for scores in (*whole["summary"]["speech"].values(), *found["summary"]["speech"].values()):
        scores["mean"], scores["median"] = round(scores["mean"], 4), round(scores["median"], 4)
    assert found == whole
    assert whole["summary"]["speech"]["si_sdr_db"]["undefined"] == {"silent estimate": 1}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["part-1.json", "part-3.json"], "shard 2 of 3 is missing"),
        (["part-1.json", "part-1b.json", "part-2.json", "part-3.json"], "shard 1 is there twice"),
        (["part-1.json", "whole.json"], "made with another number of shards"),
        (["gone.json"], "No such file"),
    ],
)
def test_reports_that_are_no_whole_run_are_not_merged(tmp_path, names, line):
    report = {"sepcli": "", "metrics": {}, "summary": {}, "items": [], "failed": []}
    for name, index in (("part-1", 1), ("part-1b", 1), ("part-2", 2), ("part-3", 3)):
        about = {"shard": {"index": index, "count": 3}, **report}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    (tmp_path / "whole.json").write_text(json.dumps(report))
    args = [word for name in names for word in ("--merge", tmp_path / name)]
    assert line in run("eval", *args, code=1).stderr


def test_merge_takes_no_samples(tmp_path):
    assert (
        "takes reports, without samples"
        in run("eval", tmp_path, "--merge", "x.json", code=2).stderr
    )
