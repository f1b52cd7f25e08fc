"""Parts of a file, one after the other as a file."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sepcli.containers.pieces import Pieces

DATA = bytes(range(256))
PARTS = st.lists(
    st.tuples(st.integers(0, 256), st.integers(0, 256)) | st.binary(max_size=9), max_size=5
)


def joined(parts):
    return b"".join(p if isinstance(p, bytes) else DATA[p[0] : max(p)] for p in parts)


@given(parts=PARTS, sizes=st.lists(st.integers(-1, 300), max_size=6), start=st.integers(0, 600))
def test_they_are_read_as_if_they_were_one_file(parts, sizes, start):
    parts = [p if isinstance(p, bytes) else (p[0], max(p)) for p in parts]
    ours, theirs = Pieces(io.BytesIO(DATA), parts), io.BytesIO(joined(parts))
    assert ours.size == len(theirs.getvalue())
    assert ours.seek(start) == theirs.seek(start)
    for size in sizes:
        assert ours.read(size) == theirs.read(size)
        assert ours.tell() == theirs.tell()


@given(parts=PARTS, count=st.integers(0, 300))
def test_they_fill_a_buffer(parts, count):
    parts = [p if isinstance(p, bytes) else (p[0], max(p)) for p in parts]
    buffer = np.full(count, 7, np.uint8)
    expected = joined(parts)[:count]
    assert Pieces(io.BytesIO(DATA), parts).readinto(buffer) == len(expected)
    assert buffer.tobytes() == expected + bytes([7]) * (count - len(expected))


def test_all_that_is_left_is_read_for_none():
    assert Pieces(io.BytesIO(DATA), [(3, 5), b"x"]).read(None) == b"\x03\x04x"
