"""How much of a recording is voiced."""

import numpy as np
import pytest

from sepcli.dsp.voicing import voiced_share
from sepcli.mixing import synthetic


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("pitch", [80, 200, 380])
def test_a_pulse_train_at_the_pitch_of_a_voice_is_voiced_and_noise_is_not(rate, pitch):
    t = np.arange(2 * rate) / rate
    pulses = sum(np.cos(2 * np.pi * k * pitch * t) for k in range(1, 8))
    noise = np.random.default_rng(0).standard_normal(2 * rate)
    assert voiced_share(pulses, rate) > 0.95
    assert voiced_share(noise, rate) < 0.02
    assert voiced_share(np.cumsum(noise), rate) < 0.05  # low-passed noise, as of an engine
    half = np.where(t < 1, pulses, 0.5 * noise)
    assert voiced_share(half, rate) == pytest.approx(0.5, abs=0.04)


def test_synthetic_speech_is_voiced_and_synthetic_noise_is_not():
    rng = np.random.default_rng(0)
    assert voiced_share(synthetic.speech(48000, 16000, rng, 3), 16000) > 0.1
    assert voiced_share(synthetic.noise(48000, 16000, rng, "pulsing"), 16000) < 0.06


def test_what_is_silent_or_short_is_not_voiced():
    assert voiced_share(np.zeros(16000), 16000) == 0
    assert voiced_share(np.ones(5), 16000) == 0
