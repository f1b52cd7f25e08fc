"""Decays against the exponentials they are made with, pyroomacoustics and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroomacoustics.experimental import measure_rt60
from scipy import signal

from sepcli.dsp import acoustics, decay, octaves, room
from tests.rooms import exponential, rumbling

RATES = (16000, 44100, 48000)
TIMES = (0.15, 0.3, 0.5, 1.0, 3.0)


@pytest.mark.parametrize("method", acoustics.METHODS)
@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("rt60_s", TIMES)
def test_both_methods_find_the_time_of_an_exponential(method, sample_rate, rt60_s):
    found = acoustics.measure_rir(exponential(rt60_s, sample_rate), sample_rate, method=method)
    for value in (found.rt60_s, found.t20_s, found.t30_s, found.edt_s):
        assert value == pytest.approx(rt60_s, rel=1e-5)
    assert found.source == "T30"
    assert not found.reasons


@pytest.mark.parametrize("method", acoustics.METHODS)
@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("rt60_s", TIMES)
def test_noise_60_db_below_changes_little(method, sample_rate, rt60_s):
    rir = exponential(rt60_s, sample_rate, noise_db=-60)
    found = acoustics.measure_rir(rir, sample_rate, method=method)
    assert found.rt60_s == pytest.approx(rt60_s, rel=0.005)
    assert found.decay_db == pytest.approx(60, abs=1 if method == "schroeder" else 5)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("rt60_s", TIMES)
def test_clean_decays_agree_with_pyroomacoustics(sample_rate, rt60_s):
    rir = room.synthetic_rir(rt60_s, sample_rate, np.random.default_rng(3)).astype(np.float64)
    ours = acoustics.measure_rir(rir, sample_rate).t30_s
    assert ours == pytest.approx(measure_rt60(rir, sample_rate, decay_db=30), rel=0.03)


def test_without_noise_handling_the_same_room_would_read_wrong():
    rir = exponential(0.5, 16000, noise_db=-48)
    assert measure_rt60(rir, 16000, decay_db=30) > 0.55
    assert acoustics.measure_rir(rir, 16000).t30_s == pytest.approx(0.5, rel=0.01)


@settings(deadline=None, max_examples=30)  # the clock of a busy machine proves nothing
@given(st.floats(0.1, 1), st.sampled_from(RATES), st.floats(0.9, 3), st.integers(0, 99))
def test_the_length_of_the_recording_does_not_matter(rt60_s, sample_rate, length, seed):
    rir = exponential(rt60_s, sample_rate, seconds=length * rt60_s, seed=seed)
    assert acoustics.measure_rir(rir, sample_rate).rt60_s == pytest.approx(rt60_s, rel=1e-3)


def test_delay_and_silence_around_the_response_do_not_matter():
    rir = exponential(0.4, 16000)
    padded = np.concatenate([np.zeros(777), -0.01 * rir, np.zeros(5000)])
    plain, found = acoustics.measure_rir(rir, 16000), acoustics.measure_rir(padded, 16000)
    for name in ("rt60_s", "edt_s", "c50_db", "c80_db", "d50", "drr_db", "decay_db"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=1e-6)


def test_a_range_of_its_own_replaces_t30():
    # 0.3 s for the first 20 dB, 1.2 s from there on
    t = np.arange(32000) / 16000
    rir = np.maximum(10 ** (-3 * t / 0.3), 0.1 ** (1 - 0.25) * 10 ** (-3 * t / 1.2))
    steep = acoustics.measure_rir(rir, 16000, method="regression", range_db=(-2, -18), window_ms=1)
    flat = acoustics.measure_rir(rir, 16000, method="regression", range_db=(-25, -45), window_ms=1)
    assert steep.rt60_s == pytest.approx(0.3, rel=0.01)
    assert flat.rt60_s == pytest.approx(1.2, rel=0.01)
    assert flat.source == "-25:-45 dB"


def test_energies_of_an_exponential_are_split_as_its_integral_says():
    found = acoustics.measure_rir(exponential(0.8, 48000), 48000)

    def early(seconds):
        return 1 - 10 ** (-6 * seconds / 0.8)

    assert found.d50 == pytest.approx(early(0.05), abs=1e-4)
    for value, share in ((found.c50_db, early(0.05)), (found.c80_db, early(0.08))):
        assert value == pytest.approx(10 * math.log10(share / (1 - share)), abs=1e-3)
    share = early(0.0025 + 1 / 48000)
    assert found.drr_db == pytest.approx(10 * math.log10(share / (1 - share)), abs=0.01)


@pytest.mark.parametrize("method", acoustics.METHODS)
def test_rumble_with_a_tail_of_6_s_is_not_measured_at_all_frequencies(method):
    rir = rumbling(0.4, 16000, rumble_db=-12)
    assert measure_rt60(rir, 16000, decay_db=20) > 3  # what integration without a doubt says
    found = acoustics.measure_rir(rir, 16000, method=method)
    assert math.isnan(found.rt60_s)
    assert found.source is None
    assert "needs a decay of 35 dB above" in found.reasons["rt60_s"]
    bands = {band.nominal: band for band in octaves.bands(16000, 1)}
    high = acoustics.measure_rir(rir, 16000, method=method, band=bands[4000])
    assert high.rt60_s == pytest.approx(0.4, rel=0.05)  # one sample of a band's random phases


def test_t20_stands_in_where_the_noise_is_too_loud_for_t30():
    found = acoustics.measure_rir(exponential(0.5, 16000, noise_db=-40), 16000)
    assert found.source == "T20"
    assert found.rt60_s == found.t20_s == pytest.approx(0.5, rel=0.02)
    assert math.isnan(found.t30_s)
    assert found.reasons["t30_s"].startswith("needs a decay of 45 dB above the noise, there are 39")


def test_a_response_cut_off_early_says_so():
    found = acoustics.measure_rir(exponential(1.0, 16000, seconds=0.4), 16000)
    assert found.reasons["rt60_s"].startswith("needs a decay of 35 dB above the end of the resp")
    share = 1 - 10 ** (-6 * 0.05)  # what is missing is added by the line through the rest
    assert found.d50 == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    ("rir", "reason"),
    [
        (np.zeros(16000), "silent"),
        (np.random.default_rng(0).standard_normal(16000), "nothing decays|needs a decay"),
        (np.ones(16000), "nothing decays"),
        (np.eye(1, 16000, 100)[0], "nothing decays"),
        (np.array([0.5]), "nothing decays"),
    ],
    ids=["silence", "noise", "constant", "click", "one sample"],
)
@pytest.mark.parametrize("method", acoustics.METHODS)
@pytest.mark.parametrize("per_octave", [None, 3])
def test_what_is_no_decay_has_no_time(rir, reason, method, per_octave):
    band = octaves.bands(16000, per_octave)[8] if per_octave else None
    found = acoustics.measure_rir(rir, 16000, method=method, band=band)
    assert math.isnan(found.rt60_s)
    if band is None:
        assert found.reasons["rt60_s"].startswith(tuple(reason.split("|")))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3000),
    st.sampled_from((100, 4000, 16000, 96000)),
    st.sampled_from(("noise", "decay", "rise", "coarse", "faint")),
    st.sampled_from(acoustics.METHODS),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_figure_is_a_number_or_has_a_reason(samples, rate, kind, method, in_band, seed):
    x = np.random.default_rng(seed).standard_normal(samples)
    fading = np.exp(-np.arange(samples) / (samples / 8))
    rir = {
        "noise": x,
        "decay": x * fading,
        "rise": x * fading[::-1],
        "coarse": np.round(2 * x * fading),
        "faint": 1e-170 * x * fading,
    }[kind]
    bands = octaves.bands(rate, 3) if in_band else []
    found = acoustics.measure_rir(rir, rate, method=method, band=bands[-1] if bands else None)
    for name in ("rt60_s", "edt_s", "t20_s", "t30_s", "c50_db", "c80_db", "d50", "drr_db"):
        value = getattr(found, name)
        assert math.isnan(value) == (name in found.reasons)
        assert math.isnan(value) or (math.isfinite(value) and (name[-2:] != "_s" or value > 0))


def test_a_step_is_no_straight_decay():
    rir = np.concatenate([np.ones(800), 0.001 * exponential(0.2, 16000)])
    found = acoustics.measure_rir(rir, 16000)
    assert found.reasons["t30_s"].startswith("not a straight decay (r² = 0.")


def test_callers_mistakes_are_named():
    with pytest.raises(ValueError, match="schroeder or regression, not 'lundeby'"):
        acoustics.measure_rir(np.ones(9), 16000, method="lundeby")
    with pytest.raises(ValueError, match=r"one response \(samples,\), got shape \(1, 9\)"):
        acoustics.measure_rir(np.ones((1, 9)), 16000)


@pytest.mark.parametrize("per_octave", [1, 3])
def test_bands_are_those_of_the_standard(per_octave):
    for band in octaves.bands(48000, per_octave):
        assert band.centre == pytest.approx(band.nominal, rel=0.02)  # ISO 266 rounds
        assert band.high / band.low == pytest.approx(10 ** (0.3 / per_octave))
        assert band.low * band.high == pytest.approx(band.centre**2)
    assert octaves.bands(16000, per_octave)[-1].high < 8000


@pytest.mark.parametrize("per_octave", [1, 3])
def test_the_bands_response_is_scipys_butterworth(per_octave):
    f = np.geomspace(20, 20000, 200)
    for band in octaves.bands(48000, per_octave):
        edges = 2 * np.pi * np.array([band.low, band.high])
        b, a = signal.butter(3, edges, "bandpass", analog=True)
        expected = signal.freqs(b, a, 2 * np.pi * f)[1]
        np.testing.assert_allclose(band.response(f), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("per_octave", [1, 3])
@pytest.mark.parametrize("sample_rate", RATES)
def test_a_decaying_tone_has_its_time_in_its_band(per_octave, sample_rate):
    for band in octaves.bands(sample_rate, per_octave):
        rt60_s = max(0.3, 5 / band.width)  # B·T = 5: forwards, the filter would ring too long
        t = np.arange(round(2 * rt60_s * sample_rate)) / sample_rate
        rir = 10 ** (-3 * t / rt60_s) * np.cos(2 * np.pi * band.centre * t)
        found = acoustics.measure_rir(rir, sample_rate, band=band)
        assert found.rt60_s == pytest.approx(rt60_s, rel=0.02)


def test_a_decay_as_fast_as_the_filter_is_not_measured():
    band = octaves.bands(16000, 3)[0]  # 50 Hz, 12 Hz wide
    rir = np.zeros(16000)
    rir[100:400] = exponential(0.02, 16000, seconds=300 / 16000)
    reason = acoustics.measure_rir(rir, 16000, band=band).reasons["rt60_s"]
    assert reason.startswith(("decays as fast as the band's filter (B·T = ", "nothing decays"))


@pytest.mark.parametrize("rt60_s", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("method", acoustics.METHODS)
def test_a_shortened_room_has_the_harmonic_sum_of_both_times(rt60_s, method):
    expected = {0.3: 0.150, 0.5: 0.188, 0.7: 0.2105, 1.0: 0.231}[rt60_s]
    after = decay.decay_rir(exponential(rt60_s, 16000), 16000)
    found = acoustics.measure_rir(after, 16000, method=method)
    assert found.rt60_s == pytest.approx(expected, rel=0.005)
    assert found.rt60_s == pytest.approx(1 / (1 / rt60_s + 1 / 0.3), rel=1e-3)


def test_the_decay_starts_behind_the_early_sound_and_falls_as_told():
    rir = np.ones(16000)
    rir[1000] = -2  # the main tap, negative as in many measurements
    after = decay.decay_rir(rir, 16000, rt60_s=0.2, early_ms=50)
    start = 1000 + 800
    np.testing.assert_array_equal(after[: start + 1], rir[: start + 1])
    level_db = 20 * np.log10(after[start:])
    np.testing.assert_allclose(level_db, -60 * np.arange(16000 - start) / 3200, atol=1e-9)


def test_the_literal_rule_takes_the_largest_signed_sample():
    rir = np.ones(4000)
    rir[1000], rir[2000] = -2, 1.5
    plain, signed = (decay.decay_rir(rir, 16000, signed=signed) for signed in (False, True))
    assert np.flatnonzero(plain != rir)[0] == 1000 + 320 + 1
    assert np.flatnonzero(signed != rir)[0] == 2000 + 320 + 1


def test_channels_have_main_taps_of_their_own_unless_they_are_joint():
    rirs = np.ones((2, 4000), np.float32)
    rirs[0, 500], rirs[1, 1500] = 3, 2
    own, joint = (decay.decay_rir(rirs, 16000, joint=joint) for joint in (False, True))
    assert own.dtype == np.float32
    assert [np.flatnonzero(x != 1)[-1] > 0 for x in own] == [True, True]
    starts = [np.flatnonzero(a != b)[0] for a, b in zip(own, rirs, strict=True)]
    assert starts == [821, 1821]
    assert [np.flatnonzero(a != b)[0] for a, b in zip(joint, rirs, strict=True)] == [821, 821]


def test_times_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="rt60_s must be above 0"):
        decay.decay_rir(np.ones(9), 16000, rt60_s=0)
    with pytest.raises(ValueError, match="early_ms 0 or more"):
        decay.decay_rir(np.ones(9), 16000, early_ms=-1)
