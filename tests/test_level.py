"""Levels against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepcli.dsp import level

EXACT = 1e-12
TONE = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)[None]  # whole periods: power 1/2


def noise(seed=0, shape=(1, 4000)):
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_sine_has_the_rms_of_one_over_root_two():
    assert level.mean_square(TONE) == pytest.approx(0.5, abs=EXACT)
    assert level.rms(TONE) == pytest.approx(1 / math.sqrt(2), abs=EXACT)
    assert level.rms_db(TONE) == pytest.approx(-10 * math.log10(2), abs=EXACT)


def test_full_scale_is_0_db_and_silence_minus_infinity():
    assert level.rms_db(np.ones(5)) == 0
    assert level.rms_db(np.zeros((2, 5), np.float32)) == -math.inf


def test_float32_is_measured_in_float64():
    # In float32 arithmetic the sum of 10^6 equal squares is off by 1e-5 and more.
    signal = np.full((1, 1_000_000), 0.1, np.float32)
    assert level.mean_square(signal) == pytest.approx(float(np.float32(0.1)) ** 2, rel=EXACT)


@pytest.mark.parametrize("samples", [10, 8192, 80_000, 1_000_000])
def test_float32_arithmetic_is_right_to_a_millionth(samples):
    signal = noise(0, samples).astype(np.float32)
    exact = np.mean(signal.astype(np.float64) ** 2)
    assert level.mean_square(signal) == pytest.approx(exact, rel=EXACT)
    assert level.mean_square(signal, dtype=np.float32) == pytest.approx(exact, rel=1e-6)
    assert level.rms_db(signal, dtype=np.float32) == pytest.approx(10 * np.log10(exact), abs=1e-5)


def test_channels_are_measured_together():
    stereo = np.stack([np.full(100, 1.0), np.zeros(100)])
    assert level.mean_square(stereo) == 0.5


def test_decibels_of_powers_and_amplitudes():
    assert level.to_db(100) == pytest.approx(20, abs=EXACT)
    assert level.from_db(-30) == pytest.approx(1e-3, abs=EXACT)
    assert level.multiplier(20) == pytest.approx(10, abs=EXACT)
    assert level.multiplier(-6) == pytest.approx(0.5011872336272722, abs=EXACT)
    assert level.gain_db(-0.1) == pytest.approx(-20, abs=EXACT)
    assert level.gain_db(0) == level.to_db(0) == -math.inf
    assert level.to_db(0, least=1e-30) == level.to_db(1e-40, least=1e-30) == pytest.approx(-300)
    assert level.to_db(100, least=level.TINY) == level.to_db(100)


@given(st.floats(-200, 200))
def test_conversions_are_inverses(decibels):
    assert level.to_db(level.from_db(decibels)) == pytest.approx(decibels, abs=EXACT * 200)
    assert level.gain_db(level.multiplier(decibels)) == pytest.approx(decibels, abs=EXACT * 200)


@pytest.mark.parametrize("level_db", [-60, -25, 0, 12])
def test_normalising_reaches_the_level(level_db):
    signal = noise().astype(np.float32)
    scaled = level.normalise_to_rms(signal, level_db)
    assert scaled.dtype == np.float64
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(10 ** (level_db / 20), rel=EXACT)
    factor = level.rms_multiplier(signal, level_db)
    np.testing.assert_allclose(scaled, factor * signal.astype(np.float64), rtol=EXACT)


def test_normalising_keeps_the_balance_of_the_channels():
    left, right = noise(0, 1000), noise(1, 1000)
    scaled = level.normalise_to_rms(np.stack([left, 3 * right]), -20)
    np.testing.assert_allclose(scaled[1] / scaled[0], 3 * right / left, rtol=1e-9)


def test_snr_is_reference_over_error():
    reference = TONE
    error = 0.1 * np.cos(2 * np.pi * 100 * np.arange(16000) / 16000)[None]
    assert level.snr_db(reference + error, reference) == pytest.approx(20, abs=1e-11)
    assert level.snr_db(2 * reference, reference) == pytest.approx(0, abs=EXACT)
    assert level.snr_db(reference, reference) == math.inf


@given(st.floats(-40, 60), st.integers(0, 2**32 - 1))
def test_mixing_reaches_the_snr(snr_db, seed):
    clean, other = noise(seed), 0.01 * noise(seed + 1)
    scaled = level.scale_to_snr(other, clean, snr_db)
    achieved = 10 * np.log10(np.sum(clean**2) / np.sum(scaled**2))
    assert achieved == pytest.approx(snr_db, abs=1e-10)
    mix = level.mix_at_snr(clean, other, snr_db)
    np.testing.assert_array_equal(mix, clean + scaled)
    assert level.snr_db(mix, clean) == pytest.approx(snr_db, abs=1e-9)
    factor = level.snr_multiplier(other, clean, snr_db)
    np.testing.assert_allclose(scaled, factor * other, rtol=EXACT)


def test_silence_has_no_level_to_scale_by():
    silence, sound = np.zeros((1, 100)), np.ones((1, 100))
    with pytest.raises(ValueError, match="the signal is silent"):
        level.normalise_to_rms(silence, -20)
    with pytest.raises(ValueError, match="the clean signal is silent"):
        level.mix_at_snr(silence, sound, 0)
    with pytest.raises(ValueError, match="the noise is silent"):
        level.mix_at_snr(sound, silence, 0)
    with pytest.raises(ValueError, match="the reference is silent"):
        level.snr_db(sound, silence)


def test_shapes_and_sizes_must_fit():
    with pytest.raises(ValueError, match=r"shapes differ: clean \(2, 5\), noise \(1, 5\)"):
        level.mix_at_snr(np.ones((2, 5)), np.ones((1, 5)), 0)
    with pytest.raises(ValueError, match=r"shapes differ: estimate \(1, 5\), reference \(1, 6\)"):
        level.snr_db(np.ones((1, 5)), np.ones((1, 6)))
    with pytest.raises(ValueError, match="empty"):
        level.rms(np.zeros((1, 0)))
