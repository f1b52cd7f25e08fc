"""Spectra as bands and back."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepcli.layers.bands import WIDE_BINS, BandMerge, BandSplit, mel_bands, wide_bands


def test_the_53_bands_are_those_of_the_closed_form():
    bands = wide_bands()
    sizes = [last - first + 1 for first, last in bands]
    assert len(bands) == 53
    assert sum(sizes) == 1170
    assert bands[0] == (0, 4)
    assert bands[9] == (35, 42)
    assert bands[27] == (314, 341)
    assert bands[-1] == (989, WIDE_BINS - 1)


def test_every_bin_is_in_one_or_two_of_the_53_bands():
    times = torch.zeros(WIDE_BINS)
    for first, last in wide_bands():
        times[first : last + 1] += 1
    assert set(times.tolist()) == {1.0, 2.0}


@given(st.integers(3, 1100), st.data(), st.sampled_from([8000, 16000, 44100, 48000]))
def test_mel_bands_cover_all_bins_in_order(bins, data, sample_rate):
    count = data.draw(st.integers(1, min(60, (bins - 1) // 2)))
    bands = mel_bands(bins, count, sample_rate)
    assert len(bands) == count
    assert bands[0][0] == 0
    assert bands[-1][1] == bins - 1
    assert all(first < last for first, last in bands)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bands))


def test_more_bands_than_pairs_of_bins_are_refused():
    with pytest.raises(ValueError, match="33 bins give 1 to 16 bands, not 17"):
        mel_bands(33, 17, 16000)


def test_a_new_merge_is_nearly_the_mask_one():
    merge = BandMerge(mel_bands(65, 12, 16000), 16, 65)
    mask = merge(torch.randn(2, 7, 12, 16))
    assert mask.shape == (2, 2, 65, 7)
    torch.testing.assert_close(mask[:, 0], torch.ones(2, 65, 7), rtol=0, atol=0.005)
    torch.testing.assert_close(mask[:, 1], torch.zeros(2, 65, 7), rtol=0, atol=0.005)


def test_bands_that_leave_out_bins_are_refused():
    with pytest.raises(ValueError, match="leave out 3 of 10 bins"):
        BandMerge([(0, 3), (7, 9)], 4, 10)


def test_a_band_depends_on_its_bins_alone():
    split = BandSplit(mel_bands(65, 12, 16000), 16)
    x = torch.randn(1, 2, 65, 5)
    changed = x.clone()
    changed[:, :, split.bands[3][1] + 1 :] += 1
    before, after = split(x), split(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 6:], after[:, :, 6:])
