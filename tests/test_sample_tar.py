"""Samples in tar streams: their bytes, what arrives when, and what is noticed when it does not."""

import gc
import io
import json
import os
import random
import subprocess
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.errors import OutputError, SepcliError
from sepcli.samples.streams import Sample, open_sample_writer, read_samples
from sepcli.samples.tarblocks import header
from sepcli.samples.tarstream import TarWriter
from tests.samples import from_tar, make_sample, to_tar, tone
from tests.tars import contents, members_of, tar_of


def test_the_same_samples_give_the_same_bytes_in_whatever_order_their_signals_were_set():
    one = make_sample(roles=("mix", "ref.speech", "enroll", "est.speech"))
    other = Sample(one.key, {"sample_rate": 16000})
    for name in reversed(one.members):
        other.members[name] = one.members[name]
    assert to_tar([one]) == to_tar([other])


def test_json_comes_first_then_mix_references_enrolment_estimates_and_the_rest():
    roles = ("est.speech", "enroll", "ref.speech", "ref.noise", "mix")
    sample = make_sample(roles=roles, targets=["speech"], snr_db=3.1)
    sample.members["a.txt"] = b"hello"
    names = [name for name, _ in members_of(to_tar([sample]))]
    fields = ["mix.wav", "ref.noise.wav", "ref.speech.wav", "enroll.wav", "est.speech.wav", "a.txt"]
    assert names == [f"000000.{name}" for name in ["json", *fields]] + ["__end__"]
    record = json.loads(members_of(to_tar([sample]))[0][1])
    assert list(record) == ["key", "sample_rate", "fields", "targets", "snr_db"]
    assert record["fields"] == fields
    assert record["snr_db"] == 3.1


def test_members_are_plain_ustar_without_owner_or_time():
    data = to_tar([make_sample()])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname, member.type) == ("", "", tarfile.REGTYPE)
    assert data[257:265] == b"ustar\x0000"
    assert len(data) % 512 == 0
    assert data.endswith(bytes(1024))


def test_the_closing_member_counts_the_samples():
    assert members_of(to_tar(map(make_sample, range(3))))[-1] == ("__end__", b'{"count": 3}\n')
    assert members_of(to_tar([])) == [("__end__", b'{"count": 0}\n')]


def test_what_was_written_is_read():
    written = [make_sample(i, targets=["speech"], seed=i) for i in range(3)]
    read = from_tar(to_tar(written))
    assert [sample.key for sample in read] == ["000000", "000001", "000002"]
    assert [sample.meta["seed"] for sample in read] == [0, 1, 2]
    assert all(sample.sample_rate == 16000 for sample in read)
    np.testing.assert_array_equal(read[1].audio("ref.speech"), tone(11))
    assert to_tar(read) == to_tar(written)


def test_an_empty_stream_of_samples_is_complete():
    assert from_tar(to_tar([])) == []


def test_keys_with_dots_and_slashes_come_back():
    keys = ["M.E.R.C. Music - Knockout", "train/Dr. A", "train/Dr. B", "../x", "ä.ö", "a.b", "a_b"]
    data = to_tar([make_sample(key=key) for key in keys])
    assert [sample.key for sample in from_tar(data)] == keys
    assert not any(".." in name for name, _ in members_of(data))


def test_a_key_in_the_json_that_is_not_the_members_key_is_not_believed():
    data = tar_of([("a.json", b'{"key": "../b", "fields": []}'), ("__end__", b'{"count": 1}')])
    assert from_tar(data)[0].key == "a"


def test_long_keys_use_the_prefix_of_ustar():
    key = f"{'d' * 120}/{'k' * 60}"
    data = to_tar([make_sample(key=key)])
    assert from_tar(data)[0].key == key
    assert members_of(data)[0][0] == f"{key}.json"


@pytest.mark.parametrize("key", ["k" * 101, "d/" + "k" * 101, "ü" * 60, "曲" * 80, "\udcff" * 200])
def test_keys_that_ustar_has_no_room_for_get_a_pax_header(key, tmp_path):
    samples = [make_sample(key=key), make_sample(7)]
    data = to_tar(samples)
    again = [(sample.key, sample.members) for sample in from_tar(data)]
    assert again == [(sample.key, sample.members) for sample in samples]
    assert members_of(data)[0][0] == f"{key}.json"  # as tarfile reads it
    subprocess.run(["tar", "xf", "-"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / f"{key}.mix.wav").read_bytes() == samples[0].members["mix.wav"]


@pytest.mark.parametrize("size", [1, 2**33 - 1, 2**33, 2**40])
def test_sizes_that_ustar_has_no_room_for_get_a_pax_header(size):
    with tarfile.open(fileobj=io.BytesIO(header("a.wav", size))) as archive:
        member = archive.next()
    assert (member.name, member.size) == ("a.wav", size)


@pytest.mark.parametrize("key", ["", "a/", "/"])
def test_a_key_that_would_not_come_back_is_an_error(key):
    with pytest.raises(SepcliError, match="cannot be a name in a tar"):
        to_tar([Sample(key, {}, {"a.txt": b""})])


def test_a_member_whose_file_is_missing_leaves_the_stream_whole(tmp_path):
    stream = io.BytesIO()
    with open_sample_writer("-", stdout=stream) as writer:
        broken = make_sample(0)
        broken.members["note.txt"] = tmp_path / "gone.txt"
        with pytest.raises(SepcliError, match=r"gone\.txt: No such file"):
            writer.write(broken)
        writer.write(make_sample(1))
    assert [sample.key for sample in from_tar(stream.getvalue())] == ["000001"]


def test_a_stream_that_broke_within_a_sample_is_not_continued():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 2000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    writer = TarWriter(Full())
    with pytest.raises(OutputError, match="standard output: No space left on device"):
        writer.write(make_sample())
    with pytest.raises(OutputError, match="ends within a sample that could not be written"):
        writer.write(make_sample())
    with pytest.raises(OutputError, match="ends within a sample that could not be written"):
        writer.close()


def test_an_unbuffered_pipe_that_takes_a_few_bytes_at_a_time_loses_none():
    class Narrow(io.BytesIO):
        def write(self, data):
            return super().write(data[:1000])

    stream = Narrow()
    with open_sample_writer("-", stdout=stream) as writer:
        writer.write(make_sample())
    assert stream.getvalue() == to_tar([make_sample()])


# Other programs


def test_gnu_tar_lists_and_unpacks_the_stream(tmp_path):
    data = to_tar([make_sample(0), make_sample(1)])
    listed = subprocess.run(["tar", "tf", "-"], input=data, capture_output=True, check=True)
    assert listed.stdout.split() == [name.encode() for name, _ in members_of(data)]
    assert listed.stderr == b""
    subprocess.run(["tar", "xf", "-"], input=data, cwd=tmp_path, check=True)
    for name, content in members_of(data):
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("variant", ["ustar", "gnu", "pax", "v7"])
@pytest.mark.parametrize("sorted_by", ["tar", "shell"])  # the shell puts __end__ first
def test_what_gnu_tar_packs_again_is_read(tmp_path, variant, sorted_by):
    samples = [make_sample(i, key=f"take-{i}", roles=("est.speech", "mix")) for i in range(3)]
    subprocess.run(["tar", "xf", "-"], input=to_tar(samples), cwd=tmp_path, check=True)
    names = ["--sort=name", "."] if sorted_by == "tar" else sorted(os.listdir(tmp_path))
    command = ["tar", "cf", "-", f"--format={variant}", *names]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    again = from_tar(packed, input_type="tar")
    assert contents(again) == contents(from_tar(to_tar(samples)))


def test_webdataset_groups_the_members_as_they_were_written(tmp_path):
    samples = [make_sample(i, roles=("mix", "ref.speech", "enroll")) for i in range(4)]
    samples += [make_sample(9, key="train/a.b")]
    path = tmp_path / "run.tar"
    path.write_bytes(to_tar(samples))
    groups = webdataset_groups(path)
    assert [group["__key__"] for group in groups] == [*(f"00000{i}" for i in range(4)), "train/a_b"]
    for group, sample in zip(groups, from_tar(path.read_bytes()), strict=True):
        assert json.loads(group["json"])["key"] == sample.key
        assert {name: group[name] for name in sample.members} == sample.members
        assert set(group) == {"__key__", "__url__", "__local_path__", "json", *sample.members}


def webdataset_groups(path):
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to the collector
        groups = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
        gc.collect()
    return groups


def test_tars_of_webdataset_are_read_when_not_strict(tmp_path):
    import webdataset

    path = tmp_path / "shard.tar"
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for i in range(3):
            sample = make_sample(i)
            writer.write({"__key__": f"shard/{i:03d}", "cls": b"7", **sample.members})
    read = list(read_samples(path, strict=False))
    assert [sample.key for sample in read] == ["shard/000", "shard/001", "shard/002"]
    assert read[2].members["cls"] == b"7"
    np.testing.assert_array_equal(read[2].audio("mix"), tone(20))
    with pytest.raises(
        SepcliError, match=r"shard\.tar: no closing __end__ after 3 samples.*--no-st"
    ):
        list(read_samples(path))


@given(st.lists(st.from_regex(r"([ab]/|__a__/)?[ab_]+(\.[ab.]+)?", fullmatch=True), max_size=8))
@settings(max_examples=100, deadline=None)
def test_foreign_members_are_grouped_as_webdataset_does(names):
    from webdataset.tariterators import group_by_keys

    files = [{"fname": n, "data": b"", "__url__": ""} for n in names if not n.startswith("__a__/")]
    data = tar_of([(name, b"") for name in names])
    try:
        expected = [
            (group["__key__"], {name for name in group if not name.startswith("__")})
            for group in group_by_keys(files, lcase=False)
        ]
    except ValueError:  # a duplicate
        read = from_tar(data, strict=False, input_type="tar")
        assert any("occurs twice" in (sample.fault or "") for sample in read)
    else:
        read = from_tar(data, strict=False, input_type="tar")
        assert [(sample.key, set(sample.members)) for sample in read] == expected


def test_members_that_nobody_knows_pass_through_byte_for_byte():
    noise = random.Random(0).randbytes(5000)
    sample = make_sample()
    sample.members |= {"note.txt": b"hello\r\n", "x.y.z.bin": noise, "empty": b"", "mix.npy": noise}
    once = to_tar([sample])
    (read,) = from_tar(once)
    assert read.members == sample.members
    assert to_tar([read]) == once


def test_upper_case_and_other_formats_are_found():
    (read,) = from_tar(tar_of([("a.mix.WAV", make_sample().members["mix.wav"])]), strict=False)
    np.testing.assert_array_equal(read.audio("mix"), tone(0))
    assert read.sample_rate == 16000


def test_a_tar_of_plain_audio_files_is_a_stream_of_mixtures():
    wav = make_sample().members["mix.wav"]
    read = from_tar(tar_of([("a.wav", wav), ("b.wav", wav)]), strict=False)
    assert [sample.key for sample in read] == ["a", "b"]
    np.testing.assert_array_equal(read[1].audio("mix"), tone(0))


@pytest.mark.parametrize("variant", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_gnu_and_pax_are_read(variant):
    name = f"{'ü' * 150}/{'k' * 150}"
    data = tar_of([(f"{name}.mix.wav", b"1"), ("b.mix.wav", b"2")], format=variant)
    read = from_tar(data, strict=False)
    assert [(s.key, s.members) for s in read] == [
        (name, {"mix.wav": b"1"}),
        ("b", {"mix.wav": b"2"}),
    ]


def test_a_name_of_a_megabyte_is_damage():
    data = tar_of([("a.txt", b""), ("b" * 2**20 + ".txt", b"")], format=tarfile.GNU_FORMAT)
    with pytest.raises(SepcliError, match=r"damaged after a\.txt"):
        from_tar(data)


# Several archives in one stream


def test_concatenated_archives_are_read_as_one(tmp_path):
    parts = [to_tar([make_sample(0), make_sample(1)]), to_tar([]), to_tar([make_sample(2)])]
    assert [sample.key for sample in from_tar(b"".join(parts))] == ["000000", "000001", "000002"]
    padded = b"".join(part + bytes(-len(part) % 10240) for part in parts)
    assert len(from_tar(padded)) == 3


def test_the_same_key_at_the_end_of_one_archive_and_the_start_of_the_next_is_two_samples():
    assert [s.key for s in from_tar(2 * to_tar([make_sample()]))] == ["000000", "000000"]
    sorted_by_name = tar_of(sorted(members_of(to_tar([make_sample(roles=("est.a", "mix"))]))))
    assert [s.key for s in from_tar(2 * sorted_by_name)] == ["000000", "000000"]
    foreign = tar_of([("a.txt", b"1")])
    assert [s.members for s in from_tar(2 * foreign, strict=False)] == [{"txt": b"1"}] * 2


def test_archives_that_gnu_tar_joins_are_read(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(to_tar([make_sample(number)]))
    subprocess.run(["tar", "Af", "0.tar", "1.tar"], cwd=tmp_path, check=True)
    assert [sample.key for sample in read_samples(tmp_path / "0.tar")] == ["000000", "000001"]
