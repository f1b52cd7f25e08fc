"""Convolution against scipy.signal, and made-up responses against the decay they are made with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sepcli.dsp import room


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 1000))
def test_convolution_is_scipys(samples, taps, seed):
    signal, rir = noise(seed, 2, samples), noise(seed + 1, taps)
    expected = fftconvolve(signal, np.broadcast_to(rir, (2, taps)), axes=-1)
    np.testing.assert_allclose(room.convolve(signal, rir, full=True), expected, atol=1e-10)
    np.testing.assert_allclose(room.convolve(signal, rir), expected[:, :samples], atol=1e-10)
    start = seed % taps
    late = np.pad(expected, ((0, 0), (0, samples)))[:, start : start + samples]
    np.testing.assert_allclose(room.convolve(signal, rir, start=start), late, atol=1e-10)


def test_float32_stays_float32_and_is_accurate():
    signal, rir = noise(0, 1, 80_000), noise(1, 16_000)
    exact = fftconvolve(signal[0], rir)[:80_000]
    wet = room.convolve(signal.astype(np.float32), rir.astype(np.float32))
    assert wet.dtype == np.float32
    error = wet[0].astype(np.float64) - exact
    assert 10 * np.log10(np.sum(exact**2) / np.sum(error**2)) > 115


def test_several_responses_share_one_signal():
    signal, rirs = noise(0, 2, 300), noise(1, 3, 1, 40)
    wet = room.convolve(signal, rirs)
    assert wet.shape == (3, 2, 300)
    for k in range(3):
        np.testing.assert_allclose(wet[k], room.convolve(signal, rirs[k, 0]), atol=1e-12)


def test_a_response_serves_many_signals_of_its_length():
    response = room.Response(noise(0, 30), 100)
    for seed in (1, 2):
        signal = noise(seed, 1, 100)
        expected = fftconvolve(signal[0], noise(0, 30))[:100]
        np.testing.assert_allclose(response(signal)[0], expected, atol=1e-12)
    with pytest.raises(ValueError, match="made for 100 samples, got 99"):
        response(noise(1, 1, 99))


def test_the_main_tap_may_be_negative():
    assert room.main_tap(np.array([0.1, -0.9, 0.5])) == 1


@pytest.mark.parametrize("rt60_s", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("sample_rate", [16000, 48000])
def test_the_tail_of_a_made_up_room_decays_exactly(rt60_s, sample_rate):
    rir = room.synthetic_rir(rt60_s, sample_rate, np.random.default_rng(0)).astype(np.float64)
    start = round(0.05 * sample_rate)  # behind the sparse reflections
    late_db = 20 * np.log10(np.abs(rir[start:]))
    slope = np.polyfit(np.arange(late_db.size) / sample_rate, late_db, 1)[0]
    assert -60 / slope == pytest.approx(rt60_s, rel=1e-6)


@pytest.mark.parametrize("rt60_s", [0.3, 0.8])
def test_schroeders_method_finds_the_rt60_of_a_made_up_room(rt60_s):
    rir = room.synthetic_rir(rt60_s, 16000, np.random.default_rng(0)).astype(np.float64)
    decay_db = 10 * np.log10(np.cumsum(rir[::-1] ** 2)[::-1] / np.sum(rir**2))
    fit = np.flatnonzero((decay_db < -5) & (decay_db > -35))  # T30, ISO 3382-1
    slope = np.polyfit(fit / 16000, decay_db[fit], 1)[0]
    assert -60 / slope == pytest.approx(rt60_s, rel=0.03)


@pytest.mark.parametrize("ratio_db", [-3, 0, 9])
def test_a_made_up_room_starts_with_the_direct_sound(ratio_db):
    rir = room.synthetic_rir(
        0.5, 16000, np.random.default_rng(1), direct_to_reverberant_db=ratio_db
    )
    assert rir.dtype == np.float32
    assert rir[0] == 1
    assert room.main_tap(rir) == 0
    assert np.abs(rir[1:]).max() <= 0.7 + 1e-6
    assert not rir[1:32].any()  # 2 ms
    reverberant = np.sum(rir[1:].astype(np.float64) ** 2)
    assert -10 * np.log10(reverberant) == pytest.approx(ratio_db, abs=1)


def test_a_decay_takes_time():
    with pytest.raises(ValueError, match="above 0 s, got 0"):
        room.synthetic_rir(0, 16000, np.random.default_rng(0))
