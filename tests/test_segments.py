"""Segments of long signals: identity, context, and what is kept in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.inference.segments import grid, in_segments


def joined(run, x, geometry, size=None):
    """`in_segments` over x (C, T) in blocks of `size`."""
    size = size or max(1, x.shape[1])
    blocks = (x[:, at : at + size] for at in range(0, x.shape[1], size))
    parts = list(in_segments(run, blocks, geometry))
    return np.concatenate([np.zeros((1, len(x), 0), np.float32), *parts], -1)


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32).clip(-1, 1)


@settings(deadline=None, max_examples=300)
@given(
    length=st.integers(0, 700),
    segment=st.integers(1, 200),
    overlap=st.floats(0, 0.99),
    align=st.integers(1, 40),
    size=st.integers(1, 300),
    channels=st.integers(1, 3),
)
def test_what_changes_nothing_changes_nothing(length, segment, overlap, align, size, channels):
    x = noise(channels, length)
    geometry = grid(segment, overlap, align)
    begun = []

    def run(audio, at):
        assert 1 <= audio.shape[1] < geometry.length + align
        np.testing.assert_array_equal(audio, x[:, at : at + audio.shape[1]])
        begun.append(at)
        return audio[None]

    y = joined(run, x, geometry, size)
    assert y.shape == (1, channels, length)
    np.testing.assert_allclose(y[0], x, rtol=0, atol=1e-6)
    assert all(at % align == 0 for at in begun)


@settings(deadline=None, max_examples=100)
@given(length=st.integers(1, 2000), segment=st.integers(50, 300), overlap=st.floats(0.1, 0.9))
def test_the_ends_of_segments_are_never_heard_where_another_segment_covers_them(
    length, segment, overlap
):
    x, geometry = np.ones((1, length), np.float32), grid(segment, overlap)

    def run(audio, at):
        """1 wherever the ends that other segments share are `context` samples away or more."""
        y = audio.copy()
        if at:
            y[:, : geometry.context] = 0
        if at + audio.shape[1] < length:
            y[:, audio.shape[1] - geometry.context :] = 0
        return y[None]

    assert joined(run, x, geometry).min() > 1 - 1e-6


def test_one_segment_fades_into_the_next_in_the_middle_of_their_overlap():
    y = joined(
        lambda audio, at: np.full((1, *audio.shape), at, np.float32), noise(1, 160), grid(100, 0.6)
    )
    assert (y[0, 0, :60] == 0).all()  # 40 samples of its own, 20 of 60 shared ones
    np.testing.assert_allclose(y[0, 0, 60:80], 40 * (np.arange(20) + 0.5) / 20)
    assert (y[0, 0, 80:100] == 40).all()
    assert (y[0, 0, 120:] == 60).all()  # the last segment ends with the signal


def test_memory_is_bounded_by_two_segments_and_a_block():
    seen = []

    def blocks():
        for _ in range(200):
            block = noise(2, 500)
            seen.append(block)
            yield block

    taken = 0
    for y in in_segments(lambda audio, at: audio[None], blocks(), grid(1000, 0.25)):
        taken += y.shape[-1]
        assert 500 * len(seen) - taken <= 1000 + 500


@pytest.mark.parametrize(("segment", "overlap"), [(0, 0.1), (10, 1), (10, -0.1)])
def test_a_grid_that_makes_no_sense_is_refused(segment, overlap):
    with pytest.raises(ValueError, match="need a length and 0 <= overlap < 1"):
        grid(segment, overlap)
