"""Made-up speech has what speech has, and made-up noise what its name says."""

import numpy as np
import pytest
from scipy.signal import welch

from sepcli.mixing import synthetic

RATE = 16000
RATES = (4000, 16000, 44100, 96000)


def rng(seed=0):
    return np.random.default_rng(seed)


def envelope(signal, rate, frame_s=0.01):
    """RMS of frames of 10 ms."""
    size = round(frame_s * rate)
    return np.sqrt(np.mean(signal[: signal.size // size * size].reshape(-1, size) ** 2, axis=1))


def pitch_track(signal, rate, low, high):
    """F0 in Hz of 40 ms frames where the autocorrelation has a clear peak."""
    size, found = round(0.04 * rate), []
    for start in range(0, signal.size - 2 * size, size):
        frame = signal[start : start + size].astype(np.float64)
        lags = np.correlate(frame, frame, "full")[size - 1 :]
        first, last = int(rate / high), int(rate / low)
        best = first + int(np.argmax(lags[first:last]))
        if lags[0] > 0 and lags[best] > 0.5 * lags[0]:
            found.append(rate / best)
    return np.array(found)


def slope_db_per_octave(signal, rate, low, high):
    frequencies, power = welch(signal, rate, nperseg=4096)
    inside = (frequencies > low) & (frequencies < high)
    return np.polyfit(np.log2(frequencies[inside]), 10 * np.log10(power[inside]), 1)[0]


# --- speech


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.1, 1, 1.7])
def test_speech_has_the_length_and_level_it_should(rate, seconds):
    samples = round(seconds * rate)
    speech = synthetic.speech(samples, rate, rng(), 3)
    assert speech.shape == (samples,)
    assert speech.dtype == np.float32
    assert np.isfinite(speech).all()
    level_db = 10 * np.log10(np.mean(speech.astype(np.float64) ** 2))
    if seconds >= 1:
        assert level_db == pytest.approx(-25, abs=1e-4)
    else:  # cut out of a longer one, where someone speaks
        assert level_db > -35


def test_speech_follows_from_generator_and_voice():
    one = synthetic.speech(RATE, RATE, rng(1), 5)
    np.testing.assert_array_equal(one, synthetic.speech(RATE, RATE, rng(1), 5))
    assert np.abs(one - synthetic.speech(RATE, RATE, rng(2), 5)).max() > 0.01
    assert np.abs(one - synthetic.speech(RATE, RATE, rng(1), 6)).max() > 0.01


@pytest.mark.parametrize("number", range(8))
def test_the_pitch_is_that_of_the_voice(number):
    who = synthetic.voice(number)
    speech = synthetic.speech(8 * RATE, RATE, rng(number), number)
    pitch = pitch_track(speech, RATE, 0.6 * who.f0, 1.7 * who.f0)
    assert np.median(pitch) == pytest.approx(who.f0, rel=0.25)
    assert np.std(12 * np.log2(pitch / who.f0)) > 0.5  # semitones: it moves


def test_voices_are_men_and_women():
    f0 = np.array([synthetic.voice(k).f0 for k in range(100)])
    assert f0.min() > 80
    assert f0.max() < 250
    assert f0[0::2].max() < f0[1::2].min()
    assert len({synthetic.voice(k) for k in range(100)}) == 100


@pytest.mark.parametrize("number", range(4))
def test_speech_falls_6_to_12_db_per_octave(number):
    speech = synthetic.speech(10 * RATE, RATE, rng(number), number)
    assert -13 < slope_db_per_octave(speech, RATE, 400, 5000) < -5


@pytest.mark.parametrize("number", range(4))
def test_speech_is_modulated_at_the_rate_of_syllables(number):
    speech = synthetic.speech(20 * RATE, RATE, rng(number), number)
    loudness = envelope(speech, RATE)
    power = np.abs(np.fft.rfft(loudness - loudness.mean())) ** 2
    rates = np.arange(power.size) / 20
    assert power[(rates > 1) & (rates < 8)].sum() > 3 * power[rates > 8].sum()


def test_speech_has_pauses():
    speech = synthetic.speech(20 * RATE, RATE, rng(), 0)
    quiet = envelope(speech, RATE) < 10 ** (-60 / 20)
    assert 0.05 < quiet.mean() < 0.4


def test_a_held_vowel_has_its_formants():
    """Peaks of the spectrum's envelope lie where the table puts F1 and F2 of `father`."""
    formants = [np.full(1, hz) for hz in synthetic.VOWELS[4]]
    below = np.fft.rfft(synthetic._formant_polynomial(formants, RATE)[0], 16000)
    gain = 1 / np.abs(below)
    assert gain[0] == pytest.approx(1, rel=1e-6)
    assert np.argmax(gain[:900]) == pytest.approx(730, abs=15)
    assert 900 + np.argmax(gain[900:1500]) == pytest.approx(1090, abs=15)


# --- noise


@pytest.mark.parametrize("kind", synthetic.NOISES)
@pytest.mark.parametrize("rate", RATES)
def test_noise_has_the_length_and_level_it_should(kind, rate):
    for seconds in (0.1, 0.5):
        samples = round(seconds * rate)
        noise = synthetic.noise(samples, rate, rng(1), kind)
        assert noise.shape == (samples,)
        assert noise.dtype == np.float32
        level_db = 10 * np.log10(np.mean(noise.astype(np.float64) ** 2))
        assert level_db == pytest.approx(-25, abs=1e-4)
        np.testing.assert_array_equal(noise, synthetic.noise(samples, rate, rng(1), kind))


@pytest.mark.parametrize(
    ("kind", "slope"), [("white", 0), ("pink", -3.01), ("brown", -6.02), ("blue", 3.01)]
)
def test_colours_have_their_slopes(kind, slope):
    noise = synthetic.noise(60 * RATE, RATE, rng(), kind)
    assert slope_db_per_octave(noise, RATE, 100, 7000) == pytest.approx(slope, abs=0.15)


@pytest.mark.parametrize("kind", ["knocks", "clicks", "crackle"])
def test_impulsive_noise_has_a_high_crest_factor(kind):
    noise = synthetic.noise(5 * RATE, RATE, rng(3), kind)
    assert np.abs(noise).max() > 6 * np.sqrt(np.mean(noise**2))  # Gaussian: 4 to 5


@pytest.mark.parametrize("kind", ["gusts", "pulsing", "babble"])
def test_modulated_noise_swells_and_falls(kind):
    noise = synthetic.noise(5 * RATE, RATE, rng(3), kind)
    loudness = envelope(noise, RATE, 0.05)
    steady = envelope(synthetic.noise(5 * RATE, RATE, rng(3), "white"), RATE, 0.05)
    assert loudness.std() / loudness.mean() > 4 * steady.std() / steady.mean()


def test_a_fan_hums():
    frequencies, power = welch(synthetic.noise(10 * RATE, RATE, rng(1), "fan"), RATE, nperseg=16384)
    low = power[(frequencies > 40) & (frequencies < 2000)]
    assert low.max() > 100 * np.median(low)


def test_an_unknown_noise_is_a_key_error():
    with pytest.raises(KeyError, match="loud"):
        synthetic.noise(100, RATE, rng(), "loud")


# --- rooms


def test_rooms_have_the_rt60_they_say():
    for seed in range(5):
        rir, rt60_s = synthetic.rir(RATE, rng(seed))
        late_db = 20 * np.log10(np.abs(rir[round(0.05 * RATE) :].astype(np.float64)))
        slope = np.polyfit(np.arange(late_db.size) / RATE, late_db, 1)[0]
        assert -60 / slope == pytest.approx(rt60_s, rel=1e-5)
