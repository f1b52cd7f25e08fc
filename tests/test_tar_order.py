"""Tars of samples as other programs write them: in any order, with folders, with dots in names."""

import io
import os
import subprocess
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.errors import SepcliError
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.samples import from_tar, make_sample, to_tar, tone
from tests.test_sample_tar import contents, members_of, tar_of

SAMPLES = [
    make_sample(i, key=key, roles=("mix", "ref.speech", "est.speech")[: 1 + i], seed=i)
    for i, key in enumerate(["a", "dir/b", "Dr. C"])
]
WHOLE = to_tar(SAMPLES)


def by_key(samples):
    return {key: rest for key, *rest in contents(samples)}


def read_file(folder, data, **settings):
    path = folder / "x.tar"
    path.write_bytes(data)
    return list(read_samples(path, **settings))


def test_the_closing_count_may_come_before_the_last_member(tmp_path):
    members = members_of(WHOLE)
    assert members[-1][0] == "__end__"
    read = read_file(tmp_path, tar_of([*members[:-2], members[-1], members[-2]]))
    assert by_key(read) == by_key(from_tar(WHOLE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tars")


@given(st.permutations(members_of(WHOLE)), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_file_is_read_in_whatever_order_its_members_are(folder, members, strict):
    read = read_file(folder, tar_of(members), strict=strict)
    assert by_key(read) == by_key(from_tar(WHOLE))
    firsts = [name.partition(".")[0] for name, _ in members if name != "__end__"]
    assert [s.key.replace(".", "_") for s in read] == list(dict.fromkeys(firsts))


@given(st.permutations(members_of(WHOLE)))
@settings(max_examples=100, deadline=None)
def test_a_pipe_is_read_right_or_says_how_to_sort_it(members):
    try:
        message, read = "", from_tar(tar_of(members))
    except SepcliError as error:
        message, read = str(error), None
    told = "--sort=name" in message or "follows its complete sample" in message
    assert told or by_key(read) == by_key(from_tar(WHOLE))


@given(st.permutations(members_of(WHOLE)), st.permutations(members_of(WHOLE)))
@settings(max_examples=20, deadline=None)
def test_archives_in_any_order_one_after_the_other(folder, one, two):
    read = read_file(folder, tar_of(one) + tar_of(two))
    assert len(read) == 6
    assert by_key(read[:3]) == by_key(read[3:]) == by_key(from_tar(WHOLE))


@given(st.permutations([m for m in members_of(WHOLE) if not m[0].endswith(".json")][:-1]))
@settings(max_examples=50, deadline=None)
def test_samples_without_json_are_put_together_as_well(folder, members):
    read = read_file(folder, tar_of(members), strict=False)
    assert {s.key: set(s.members) for s in read} == {
        "a": {"mix.wav"},
        "dir/b": {"mix.wav", "ref.speech.wav"},
        "Dr_ C": {"mix.wav", "ref.speech.wav", "est.speech.wav"},
    }


@pytest.mark.parametrize("variant", ["ustar", "gnu", "pax", "v7", "oldgnu"])
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_what_tar_cf_makes_of_unpacked_samples(tmp_path, variant, through):
    """The order is that of the disk; where the message is, it says what to do."""
    (tmp_path / "in").mkdir()
    subprocess.run(["tar", "xf", "-"], input=WHOLE, cwd=tmp_path / "in", check=True)
    names = sorted(os.listdir(tmp_path / "in"), key=lambda name: name[::-1])
    command = ["tar", "cf", "x.tar", f"--format={variant}", "-C", "in", *names]
    subprocess.run(command, cwd=tmp_path, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    if through == "file":
        assert by_key(read_samples(tmp_path / "x.tar")) == by_key(from_tar(WHOLE))
    else:
        with pytest.raises(SepcliError, match="write the tar with tar --sort=name, or name it"):
            from_tar(data)


@pytest.mark.parametrize("order", ["sorted", "backwards", "json last"])
def test_a_folder_of_samples_packed_by_tar(tmp_path, order):
    with open_sample_writer(tmp_path / "mixtures") as writer:
        for sample in SAMPLES[:2]:
            writer.write(sample)
    names = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()
    )
    names.sort(reverse=order == "backwards", key=lambda name: order[0] == "j" and "json" in name)
    subprocess.run(["tar", "cf", "x.tar", *names], cwd=tmp_path, check=True)
    read = list(read_samples(tmp_path / "x.tar", strict=False))
    assert sorted(sample.key for sample in read) == ["mixtures/a", "mixtures/dir/b"]
    for sample, ours in zip(sorted(read, key=lambda s: s.key), SAMPLES, strict=False):
        assert sample.members == ours.members
        assert sample.meta["seed"] == ours.meta["seed"]


def wav(index=0):
    return make_sample(index).members["mix.wav"]


DOTTED = [
    (["Dr. No.wav", "Dr. Who.wav"], {"Dr. No": ["wav"], "Dr. Who": ["wav"]}),
    (["01. A feat. B.flac"], {"01. A feat. B": ["flac"]}),
    (["v1.2.wav"], {"v1.2": ["wav"]}),
    (["d.1/Dr. No.WAV"], {"d.1/Dr. No": ["WAV"]}),
    (
        ["Dr. No.mix.wav", "Dr. No.ref.vocals.wav", "Dr. Who.mix.wav"],
        {"Dr. No": ["mix.wav", "ref.vocals.wav"], "Dr. Who": ["mix.wav"]},
    ),
    (["Dr. No.json", "Dr. No.mix.wav"], {"Dr. No": ["mix.wav"]}),
    (["a.mix.wav", "a.rnn.est.wav"], {"a": ["mix.wav", "rnn.est.wav"]}),  # its own business
    (["a.left.dat", "a.right.dat"], {"a": ["left.dat", "right.dat"]}),
]


@pytest.mark.parametrize(("names", "expected"), DOTTED)
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_names_with_dots(tmp_path, names, expected, through):
    data = tar_of([(name, b"{}" if name.endswith(".json") else wav()) for name in names])
    if through == "file":
        read = read_file(tmp_path, data, strict=False)
    else:
        read = from_tar(data, strict=False)
    assert {sample.key: sorted(sample.members) for sample in read} == expected
    for sample in read:
        if sample.has("mix"):
            np.testing.assert_array_equal(sample.audio("mix"), tone(0))


def test_sorting_takes_memory_for_one_sample_only(tmp_path):
    samples = [make_sample(i, frames=100_000) for i in range(20)]
    members = members_of(to_tar(samples))
    members.sort(key=lambda member: member[0].partition(".")[2])
    (tmp_path / "x.tar").write_bytes(tar_of(members))
    size = os.path.getsize(tmp_path / "x.tar")
    assert size > 15_000_000
    del samples, members
    tracemalloc.start()
    count = sum(1 for _ in read_samples(tmp_path / "x.tar"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20
    assert peak < 5_000_000


def test_a_tar_in_any_order_that_is_cut_off_is_noticed(tmp_path):
    members = members_of(WHOLE)
    members.sort(key=lambda member: member[0].partition(".")[2])
    data = tar_of(members)
    for cut in range(600, len(data) - 1024, 1999):
        with pytest.raises(SepcliError):
            read_file(tmp_path, data[:cut])


def test_a_field_that_is_nowhere_is_still_missing(tmp_path):
    members = [m for m in reversed(members_of(WHOLE)) if m[0] != "dir/b.ref.speech.wav"]
    with pytest.raises(SepcliError, match=r"sample dir/b lacks ref\.speech\.wav, which its JSON"):
        read_file(tmp_path, tar_of(members))


def test_old_tars_are_recognised():
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as archive:
        assert archive.next().name == "a.json"
    old = bytearray(WHOLE)
    old[257:265] = bytes(8)  # a tar before POSIX has no magic
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    assert contents(from_tar(bytes(old))) == contents(from_tar(WHOLE))
