"""Resampling against sines known in closed form, and in pieces against at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.audio import Resampler
from sepcli.signals.resampling import resample

RATES = [(48000, 16000), (16000, 48000), (44100, 16000), (16000, 44100), (8000, 48000)]


def sine(frequency, sample_rate, seconds=2.0):
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.sin(2 * np.pi * frequency * t + 0.3)[None]  # (1, T)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5])
def test_a_sine_in_the_passband_comes_out_as_the_sine_itself(from_rate, to_rate, fraction):
    frequency = fraction * min(from_rate, to_rate) / 2
    converted = resample(sine(frequency, from_rate).astype(np.float32), from_rate, to_rate)
    expected = sine(frequency, to_rate)
    assert converted.shape == expected.shape
    middle = slice(to_rate // 4, -to_rate // 4)  # away from the edges, where a sine is cut off
    error = converted[:, middle] - expected[:, middle]
    assert 10 * np.log10(np.mean(expected[:, middle] ** 2) / np.mean(error**2)) > 100


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_levels_hold_to_a_hundredth_of_a_decibel_up_to_nine_tenths_of_the_band(from_rate, to_rate):
    frequency = 0.9 * min(from_rate, to_rate) / 2
    converted = resample(sine(frequency, from_rate).astype(np.float32), from_rate, to_rate)
    middle = converted[:, to_rate // 4 : -to_rate // 4].astype(np.float64)
    assert 10 * np.log10(2 * np.mean(middle**2)) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 16000), (44100, 16000)])
def test_what_the_new_rate_cannot_hold_is_gone(from_rate, to_rate):
    converted = resample(sine(0.6 * to_rate, from_rate).astype(np.float32), from_rate, to_rate)
    middle = converted[:, to_rate // 4 : -to_rate // 4]
    assert 10 * np.log10(2 * np.mean(middle.astype(np.float64) ** 2)) < -100


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 10, 999, 16001])
@pytest.mark.parametrize(("from_rate", "to_rate"), [*RATES, (16000, 8000), (3, 2), (16000, 14400)])
def test_the_length_is_the_exact_one_rounded_half_up(frames, from_rate, to_rate):
    converted = resample(np.ones((2, frames), np.float32), from_rate, to_rate)
    assert converted.shape == (2, (2 * frames * to_rate + from_rate) // (2 * from_rate))
    assert converted.dtype == np.float32


def test_equal_rates_change_nothing():
    sound = np.ones((2, 5), np.float32)
    assert resample(sound, 16000, 16000) is sound
    stream = Resampler(16000, 16000, 2)
    np.testing.assert_array_equal(stream.process(sound, last=True), sound)


def test_channels_do_not_mix():
    both = np.concatenate([sine(100, 48000), sine(150, 48000)]).astype(np.float32)
    converted = resample(both, 48000, 16000)
    for channel in (0, 1):
        np.testing.assert_array_equal(
            converted[channel], resample(both[[channel]], 48000, 16000)[0]
        )


@settings(deadline=None, max_examples=60)
@given(
    rates=st.sampled_from([*RATES, (16000, 14400)]),
    channels=st.sampled_from([1, 2, 6]),
    blocks=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    seed=st.integers(0, 100),
)
def test_in_pieces_it_is_bit_equal_to_at_once(rates, channels, blocks, seed):
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal((channels, sum(blocks))).astype(np.float32)
    stream = Resampler(*rates, channels)
    cuts = np.cumsum(blocks)[:-1]
    pieces = [
        stream.process(block, last=number == len(cuts))
        for number, block in enumerate(np.split(sound, cuts, axis=1))
    ]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), resample(sound, *rates))


@pytest.mark.parametrize("rates", [(0, 16000), (16000, 0), (-1, 16000), (float("nan"), 16000)])
def test_rates_must_be_positive(rates):
    with pytest.raises(ValueError, match="sample rates must be positive"):
        resample(np.zeros((1, 5), np.float32), *rates)
    with pytest.raises(ValueError, match="sample rates must be positive"):
        Resampler(*rates, 1)


def test_a_signal_without_channel_axis_is_refused():
    with pytest.raises(ValueError, match=r"expected \(channels, samples\), got shape \(5,\)"):
        resample(np.zeros(5, np.float32), 16000, 8000)
