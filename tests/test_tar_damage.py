"""Sample tars that are cut, damaged, or not what they seem."""

import contextlib
import io
import random
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.errors import SepcliError
from sepcli.samples.streams import read_samples
from tests.samples import from_tar, make_sample, to_tar, tone
from tests.tars import contents, members_of, tar_of

END_OF_ONE = b'{"count": 1}\n'


def test_the_second_of_two_archives_may_not_be_cut_off():
    one, other = to_tar([make_sample(0)]), to_tar([make_sample(1), make_sample(2)])
    with pytest.raises(SepcliError, match="cut off inside"):
        from_tar(one + other[:3000])


# Streams that are not what they should be


def test_every_cut_between_blocks_is_noticed():
    data = to_tar([make_sample(i, frames=40) for i in range(3)])
    for end in range(512, len(data), 512):
        with pytest.raises(SepcliError, match=r"input: cut off .*, [0-3] samples? complete;"):
            from_tar(data[:end])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_every_cut_anywhere_is_noticed_and_what_was_complete_is_read_when_asked(draw):
    samples = [make_sample(i, frames=40) for i in range(3)]
    data = to_tar(samples)
    cut = data[: draw.draw(st.integers(1, len(data) - 1))]
    with pytest.raises(SepcliError, match="command upstream stopped"):
        from_tar(cut, input_type="tar")
    read = from_tar(cut, input_type="tar", strict=False)
    assert contents(read) == contents(from_tar(data))[: len(read)]


def test_complete_samples_come_before_the_error():
    data = to_tar([make_sample(0), make_sample(1)])
    stream = read_samples("-", stdin=io.BytesIO(data[:7500]))
    assert next(stream).key == "000000"
    expected = (
        r"cut off inside 000001\.ref\.speech\.wav, 1 sample complete; the command upstream stopped"
    )
    with pytest.raises(SepcliError, match=expected):
        next(stream)


def test_a_crash_between_two_samples_is_noticed():
    data = to_tar([make_sample(0), make_sample(1)], close=False)
    with pytest.raises(
        SepcliError, match=r"cut off after 000001\.ref\.speech\.wav, 2 samples complete"
    ):
        from_tar(data)
    with pytest.raises(SepcliError, match="no closing __end__ after 2 samples"):
        from_tar(data + bytes(1024))
    assert len(from_tar(data, strict=False)) == 2


@pytest.mark.parametrize(
    "closing", [b'{"count": 1}', b'{"count": "2"}', b"[]", b"{", b"", b"[" * 10**5]
)
def test_a_closing_count_that_is_wrong_is_noticed(closing):
    data = to_tar([make_sample(0), make_sample(1)], close=False)
    data += tar_of([("__end__", closing)])
    with pytest.raises(SepcliError, match=r"closing (count is 1|__end__ holds .* instead)"):
        from_tar(data)
    assert len(from_tar(data, strict=False)) == 2


def test_a_sample_without_a_field_it_names_is_noticed():
    members = [
        m for m in members_of(to_tar([make_sample(0), make_sample(1)])) if "0.ref" not in m[0]
    ]
    with pytest.raises(
        SepcliError, match=r"sample 000000 lacks ref\.speech\.wav, which its JSON names"
    ):
        from_tar(tar_of(members))
    assert [list(s.members) for s in from_tar(tar_of(members), strict=False)] == [
        ["mix.wav"],
        ["mix.wav", "ref.speech.wav"],
    ]


def test_a_member_added_behind_a_complete_sample_is_noticed():
    members = members_of(to_tar([make_sample(0)]))
    members.insert(3, ("000000.note.txt", b"late"))
    with pytest.raises(
        SepcliError, match=r"000000\.note\.txt follows its complete sample; name it in"
    ):
        from_tar(tar_of(members))


@pytest.mark.parametrize(
    ("json_bytes", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"[" * 10**5, "not JSON"),
        (b'{"sample_rate": "16k"}', "sample_rate is '16k'; write hertz, such as 16000"),
        (b'{"sample_rate": -1}', "sample_rate is -1"),
        (b'{"sample_rate": true}', "sample_rate is True"),
        (b'{"sample_rate": 1' + b"0" * 4000 + b"}", "sample_rate is 10000"),
        (b'{"fields": "mix.wav"}', "fields is 'mix.wav'; write a list"),
        (b'{"fields": [1]}', "fields is"),
        (b'{"targets": {"a": 1}}', "targets is"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_broken_json_is_one_line_that_names_the_member(json_bytes, complaint, strict):
    data = tar_of([("000003.json", json_bytes), ("000003.mix.wav", b""), ("__end__", END_OF_ONE)])
    [sample] = from_tar(data, strict=strict)
    with pytest.raises(SepcliError, match=complaint) as raised:
        sample.check()
    assert str(raised.value).startswith("standard input: 000003.json: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_broken_sample_does_not_end_the_stream():
    members = members_of(to_tar(map(make_sample, range(3))))
    members = [(n, b"{" if n == "000001.json" else content) for n, content in members]
    samples = from_tar(tar_of(members))
    assert [(sample.key, bool(sample.fault)) for sample in samples] == [
        ("000000", False), ("000001", True), ("000002", False),
    ]  # fmt: skip
    np.testing.assert_array_equal(samples[2].audio("mix"), tone(20))


def test_names_cannot_break_the_line_nor_steer_the_terminal():
    [sample] = from_tar(tar_of([("a\n\x1b[31m\udcff.json", b"{")]), strict=False)
    assert sample.fault.startswith(r"standard input: a\n\x1b[31m\udcff.json: not JSON")
    sample.fault.encode()


def test_a_member_that_comes_twice_is_an_error():
    data = tar_of([("000000.mix.wav", b"1"), ("000000.mix.wav", b"2"), ("1.mix.wav", b"3")])
    twice, other = from_tar(data, strict=False)
    assert twice.fault.startswith("standard input: 000000.mix.wav occurs twice in one sample")
    assert not other.fault


def test_a_size_that_no_machine_has_takes_no_memory():
    for size in (b"77777777777\0", b"\x80" + bytes(3) + b"\x7f" + bytes(7)):  # 8 GiB; 2**62
        data = with_header(to_tar([make_sample()]), 124, size)
        pipe = io.BufferedReader(io.BytesIO(data))  # takes memory for all that is asked of it
        tracemalloc.start()
        with pytest.raises(SepcliError, match=r"cut off inside 000000\.json"):
            list(read_samples("-", stdin=pipe))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000


def with_header(data, position, field):
    """The archive with a field of its first header replaced and the checksum put right."""
    head = bytearray(data[:512])
    head[position : position + len(field)] = field
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


@pytest.mark.parametrize(
    ("position", "field"),
    [(0, b"\xff"), (124, b"\xff" * 12), (124, b"zzzzzzzzzzz\0"), (148, b"x")],
    ids=["name", "negative size", "no number", "checksum"],
)
def test_a_damaged_header_is_one_line(position, field):
    data = to_tar([make_sample(0), make_sample(1)])
    at = data.index(b"000001.json")
    fix = with_header if position not in (0, 148) else lambda d, p, f: d[:p] + f + d[p + len(f) :]
    damaged = data[:at] + fix(data[at:], position, field)
    for strict in (True, False):
        with pytest.raises(SepcliError, match=r"damaged after 000000\.ref\.speech\.wav"):
            from_tar(damaged, strict=strict)


def test_links_devices_and_folders_are_passed_over():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        kinds = (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.DIRTYPE,
            tarfile.FIFOTYPE,
        )
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"{number}.mix.wav")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    data = stream.getvalue()[: len(kinds) * 512] + to_tar([make_sample()])
    assert [sample.key for sample in from_tar(data)] == ["000000"]


def test_sparse_members_are_refused():
    data = with_header(to_tar([make_sample()]), 156, b"S")
    with pytest.raises(
        SepcliError, match=r"000000\.json is a sparse member; write the tar without"
    ):
        from_tar(data)


def test_a_compressed_tar_says_how_to_unpack_it(tmp_path):
    import gzip

    path = tmp_path / "run.tar"
    path.write_bytes(gzip.compress(to_tar([make_sample()])))
    with pytest.raises(SepcliError, match=r"run\.tar: not a tar archive; .*zcat"):
        list(read_samples(path, input_type="tar"))


@given(st.integers(0, 2**32), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_random_damage_gives_samples_or_one_line(seed, count):
    generator = random.Random(seed)
    data = bytearray(to_tar([make_sample(i, frames=20) for i in range(2)]))
    for _ in range(count):
        data[generator.randrange(len(data))] = generator.randrange(256)
    for strict in (True, False):
        with contextlib.suppress(SepcliError):
            assert len(from_tar(bytes(data), strict=strict, input_type="tar")) <= 2
