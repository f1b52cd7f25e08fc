"""Tempo without pitch: tones stay tones, clicks stay clicks, and librosa agrees."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.dsp.tempo import change_tempo

RATE = 44100


def tones(seconds, *frequencies):
    """The sum of sines of equal level, float32 (1, T)."""
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(0.1 * np.sin(2 * np.pi * hz * t) for hz in frequencies)[None].astype(np.float32)


def spectrum(signal):
    """The power (F,) of a signal (T,), a bin for every 1/seconds Hz."""
    return np.abs(np.fft.rfft(signal * np.hanning(signal.size))) ** 2


def peak_hz(signal):
    return np.argmax(spectrum(signal)) * RATE / signal.size


@pytest.mark.parametrize("tempo", [0.9, 1.01, 1.1])
@pytest.mark.parametrize("hz", [60, 440, 3000, 12_000])
def test_a_sine_stays_a_sine_of_its_frequency_and_level_as_with_librosa(tempo, hz):
    signal = tones(2 * tempo, hz)
    ours = change_tempo(signal, 2 * RATE, RATE)
    theirs = librosa.effects.time_stretch(signal, rate=tempo)
    assert abs(ours.shape[1] - theirs.shape[1]) <= 1
    assert peak_hz(ours[0]) == pytest.approx(peak_hz(theirs[0]), abs=0.5)
    assert peak_hz(ours[0]) == pytest.approx(hz, abs=0.5)
    power = spectrum(ours[0])
    near = slice(2 * hz - 10, 2 * hz + 11)  # 5 Hz to each side
    assert power[near].sum() > 0.999 * power.sum()
    assert np.std(ours) == pytest.approx(np.std(signal), rel=0.01)


@pytest.mark.parametrize("tempo", [0.9, 1.1])
def test_a_chord_keeps_its_notes_and_gets_little_else(tempo):
    notes = 220.0, 277.18, 329.63, 880.0, 1760.0
    power = spectrum(change_tempo(tones(3 * tempo, *notes), 3 * RATE, RATE)[0])
    inside = np.zeros(power.size, bool)
    for hz in notes:
        near = slice(round(3 * (hz - 8)), round(3 * (hz + 8)))
        assert power[near].sum() == pytest.approx(power.sum() / 5, rel=0.5)
        inside[near] = True
    assert power[inside].sum() > 0.98 * power.sum()


@pytest.mark.parametrize("tempo", [0.9, 1.1])
def test_clicks_come_when_they_should_and_as_sharp_as_they_were(tempo):
    signal = np.zeros((1, round(4 * tempo * RATE)), np.float32)
    times = np.arange(0.3, 4 * tempo - 0.2, 0.3)  # s
    signal[0, np.round(times * RATE).astype(int)] = 0.5
    out = change_tempo(signal, 4 * RATE, RATE)[0]
    found = np.flatnonzero(out > 0.2) / RATE
    assert len(found) >= 0.8 * len(times)  # one inside a splice is quieter, or left out
    for second in found:
        assert np.abs(times / tempo - second).min() < 0.03


def test_channels_stay_in_phase():
    rng = np.random.default_rng(0)
    left = rng.standard_normal(RATE).astype(np.float32)
    out = change_tempo(np.stack([left, -0.5 * left]), 40_000, RATE)
    np.testing.assert_allclose(out[1], -0.5 * out[0], atol=1e-6)


def test_the_same_length_is_the_same_sound():
    signal = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    np.testing.assert_allclose(change_tempo(signal, RATE, RATE), signal, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(
    samples=st.integers(1, 3000),
    length=st.integers(1, 3000),
    channels=st.integers(1, 2),
    rate=st.sampled_from((4000, 16000, 48000)),
)
def test_any_length_becomes_any_other_without_getting_louder(samples, length, channels, rate):
    signal = np.random.default_rng(samples).uniform(-1, 1, (channels, samples)).astype(np.float32)
    out = change_tempo(signal, length, rate)
    assert out.shape == (channels, length)
    assert out.dtype == np.float32
    assert np.abs(out).max() <= np.abs(signal).max() * (1 + 1e-6)


def test_silence_stays_silence():
    assert not change_tempo(np.zeros((2, 5000), np.float32), 4000, RATE).any()


def test_no_sound_at_all_is_a_mistake():
    with pytest.raises(ValueError, match="expected sound, got 0 samples to fill 5"):
        change_tempo(np.zeros((1, 0), np.float32), 5, RATE)
