"""Mixtures: exact levels, sums, ranges, and nothing but (seed, index) deciding them."""

import json
import pickle

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sepcli.errors import SepcliError
from sepcli.mixing.mixtures import Mixer, draw_sample
from sepcli.mixing.specs import PRESETS, TARGETS, MixtureSpec

RATE = 16000
SHORT = {"duration_s": 0.3}


def power_db(signal):
    return 10 * np.log10(np.mean(np.asarray(signal, np.float64) ** 2))


def pair(low, high):
    """Ranges with numbers from `low` to `high`."""
    number = st.floats(low, high)
    return st.tuples(number, number).map(sorted).map(tuple)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Folders speech, noise and rir with 16-bit files: noise bursts, at two rates."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for name, rate in (("speech", RATE), ("noise", 44100)):
        (folder / name).mkdir()
        for k in range(3):
            signal = 0.1 * rng.standard_normal(2 * rate)
            soundfile.write(folder / name / f"{k}.wav", signal, rate)
    (folder / "rir").mkdir()
    rir = np.exp(-np.arange(4000) / 600) * rng.standard_normal(4000)
    rir[:200] *= 0.01
    rir[200] = -5  # the direct sound comes late and upside down
    soundfile.write(folder / "rir/room.wav", rir / 6, RATE, subtype="FLOAT")
    return folder


def sources(folder, *names):
    return {name: str(folder / name) for name in names}


# --- levels and sums


@settings(deadline=None, max_examples=40)
@given(
    snr_db=pair(-30, 40),
    level_db=pair(-50, -10),
    mixture_gain_db=pair(-20, 20),
    duration_s=pair(0.1, 1),
    rate=st.sampled_from((8000, 11025, 16000, 44100)),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
    target=st.sampled_from(TARGETS),
)
def test_a_mixture_is_the_sum_of_its_parts_within_all_ranges(
    snr_db, level_db, mixture_gain_db, duration_s, rate, seed, index, target
):
    ranges = {"snr_db": snr_db, "level_db": level_db, "mixture_gain_db": mixture_gain_db}
    spec = MixtureSpec(**ranges, duration_s=duration_s, sample_rate=rate, target=target)
    item = Mixer(spec).draw(seed, index)
    speech, noise = item.refs["speech"], item.refs["noise"]
    np.testing.assert_array_equal(item.mix, speech + noise)
    assert item.mix.dtype == speech.dtype == noise.dtype == np.float32
    assert item.mix.shape == speech.shape == noise.shape
    assert round(duration_s[0] * rate) <= item.mix.shape[1] <= round(duration_s[1] * rate)
    record = item.record
    for name, (low, high) in ranges.items():
        assert low <= record[name] <= high
    assert power_db(speech) - power_db(noise) == pytest.approx(record["snr_db"], abs=1e-4)
    assert record["snr_achieved_db"] == pytest.approx(record["snr_db"], abs=1e-4)
    loudness = record["level_db"] + record["mixture_gain_db"] + record["peak_gain_db"]
    assert power_db(speech) == pytest.approx(loudness, abs=1e-4)
    assert max(np.abs(x).max() for x in (item.mix, speech, noise)) < 0.99 + 1e-6
    assert record["peak_gain_db"] <= 0


def test_the_snr_is_exact_before_rounding(recordings):
    """The recorded gains, applied to what the files hold, give the SNR to 1e-9 dB."""
    mixer = Mixer(MixtureSpec(**SHORT, speech=recordings / "speech", noise=recordings / "speech"))
    for index in range(10):
        record = mixer.draw(1, index).record
        scaled = {}
        for name, source in record["sources"].items():
            [piece] = source["files"]
            signal, _ = soundfile.read(piece["path"], start=piece["start"], stop=piece["stop"])
            scaled[name] = signal * 10 ** (source["gain_db"] / 20)
        achieved = power_db(scaled["speech"]) - power_db(scaled["noise"])
        assert achieved == pytest.approx(record["snr_db"], abs=1e-9)
        assert power_db(scaled["speech"]) == pytest.approx(record["level_db"], abs=1e-9)


def test_the_peak_limit_turns_everything_down_together():
    loud = {"level_db": -3.0, "snr_db": 0.0, **SHORT}
    free, limited = (Mixer(MixtureSpec(**loud, peak=peak)).draw(0, 0) for peak in (0.0, 0.5))
    assert free.record["peak_gain_db"] == 0
    assert np.abs(free.mix).max() > 0.99
    tops = [np.abs(x).max() for x in (limited.mix, *limited.refs.values())]
    assert max(tops) == pytest.approx(0.5, abs=1e-6)
    factor = 10 ** (limited.record["peak_gain_db"] / 20)
    np.testing.assert_allclose(limited.mix, factor * free.mix, atol=1e-6)
    np.testing.assert_array_equal(limited.mix, limited.refs["speech"] + limited.refs["noise"])


# --- rooms


def in_rooms(recordings, record):
    """What the record's speech is without its room, with it shortened, and with it, by scipy."""
    [piece] = record["sources"]["speech"]["files"]
    dry, _ = soundfile.read(piece["path"], start=piece["start"], stop=piece["stop"])
    rir, _ = soundfile.read(record["sources"]["speech"]["rir"]["path"])
    gain = 10 ** (record["sources"]["speech"]["gain_db"] / 20)
    late = np.maximum(0, np.arange(rir.size) - 200 - 0.02 * RATE)
    shortened = rir * 10 ** (-3 * late / (0.1 * RATE))
    wet = [fftconvolve(gain * dry, h / rir[200])[200 : 200 + dry.size] for h in (shortened, rir)]
    return {"dry": gain * dry, "decayed": wet[0], "reverb": wet[1]}


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_in_a_room_is_as_asked(recordings, target):
    spec = MixtureSpec(
        **SHORT,
        **sources(recordings, "speech", "noise", "rir"),
        rir_prob=1.0,
        noise_rir_prob=0.5,
        target=target,
        rir_decay_s=0.1,
    )
    for index in range(5):
        item = Mixer(spec).draw(0, index)
        expected = in_rooms(recordings, item.record)
        wet = expected["reverb"]
        np.testing.assert_allclose(item.refs["speech"][0], expected[target], atol=1e-5)
        # SNR and level are those of the speech as it is in the mixture, whatever the target.
        np.testing.assert_allclose(item.mix[0] - item.refs["noise"][0], wet, atol=1e-5)
        assert power_db(wet) == pytest.approx(-25, abs=1e-3)
        snr_db = power_db(wet) - power_db(item.refs["noise"])
        assert snr_db == pytest.approx(item.record["snr_db"], abs=1e-3)


@pytest.mark.parametrize(
    ("probability", "low", "high"), [(0.0, 0, 0), (0.5, 35, 65), (1.0, 100, 100)]
)
def test_rooms_come_as_often_as_asked(recordings, probability, low, high):
    for name, other in (("rir_prob", "noise"), ("noise_rir_prob", "speech")):
        mixer = Mixer(
            MixtureSpec(
                duration_s=0.1,
                **sources(recordings, "speech", "noise", "rir"),
                **{"rir_prob": 0.0, name: probability},
            )
        )
        drawn = [mixer.draw(0, index).record["sources"] for index in range(100)]
        here = "noise" if other == "speech" else "speech"
        assert low <= sum(bool(record[here]["rir"]) for record in drawn) <= high
        assert not any(record[other]["rir"] for record in drawn)


def test_recorded_rooms_are_used_half_of_the_time_unless_told_otherwise(recordings):
    assert MixtureSpec().rir_prob == 0
    assert MixtureSpec(rir=recordings / "rir").rir_prob == 0.5
    assert MixtureSpec(rir=recordings / "rir", rir_prob=0.1).rir_prob == 0.1


def test_rooms_are_made_up_where_none_are_named():
    record = Mixer(MixtureSpec(**SHORT, rir_prob=1.0)).draw(0, 0).record
    assert record["sources"]["speech"]["rir"]["synthetic"] == "room"
    assert 0.15 <= record["sources"]["speech"]["rir"]["rt60_s"] <= 0.8


def test_a_shortened_target_changes_nothing_of_the_mixture():
    plain, decayed = (
        Mixer(MixtureSpec(**SHORT, rir_prob=1.0, target=target)).draw(0, 3)
        for target in ("reverb", "decayed")
    )
    np.testing.assert_allclose(decayed.mix, plain.mix, atol=1e-6)
    lost_db = power_db(decayed.refs["speech"] - plain.refs["speech"]) - power_db(plain.mix)
    assert -40 < lost_db < 0
    assert decayed.record["sources"]["speech"]["rir"]["decay_s"] == 0.3


def test_a_shortened_target_without_a_room_is_the_speech():
    item = Mixer(MixtureSpec(**SHORT, rir_prob=0.0, target="decayed")).draw(0, 0)
    np.testing.assert_array_equal(item.mix, item.refs["speech"] + item.refs["noise"])


@pytest.mark.parametrize(("level_of", "expected_db"), [("heard", 0.0), ("target", None)])
def test_levels_are_of_the_speech_that_is_heard_or_of_the_target(tmp_path, level_of, expected_db):
    """A sine and one echo of half of it, a whole number of periods later: both add up.

    The echo comes 0.12 s after the direct sound, so that rt60_s = 0.1 leaves 10^(-3) of it: of all
    T samples, D hear only the sine, and the others 1.5 times the sine, or 1.0005 times it.
    """
    t, D = np.arange(8000) / RATE, 1920  # 0.5 s; the echo
    soundfile.write(tmp_path / "s.wav", 0.1 * np.sin(2 * np.pi * 200 * t), RATE, subtype="FLOAT")
    rir = np.zeros(D + 1)
    rir[0], rir[D] = 1, 0.5
    soundfile.write(tmp_path / "r.wav", rir, RATE, subtype="FLOAT")
    mixer = Mixer(
        MixtureSpec(
            speech=tmp_path / "s.wav", rir=tmp_path / "r.wav", rir_prob=1, duration_s=0.5,
            target="decayed", rir_decay_s=0.1, level_of=level_of, level_db=-20, snr_db=3, peak=0,
        )
    )  # fmt: skip
    item = mixer.draw(0, 0)
    share, rest = D / t.size, 10 ** (-3 * (0.12 - 0.02) / 0.1)
    heard, wanted = (share + (1 - share) * (1 + 0.5 * gain) ** 2 for gain in (1, rest))
    more_db = 10 * np.log10(heard / wanted) if expected_db is None else expected_db
    speech = item.mix - item.refs["noise"]
    assert power_db(speech) == pytest.approx(-20 + more_db, abs=1e-3)
    assert power_db(item.refs["noise"]) == pytest.approx(-23, abs=1e-3)
    of_target_db = -20 + more_db - 10 * np.log10(heard / wanted)
    assert power_db(item.refs["speech"]) == pytest.approx(of_target_db, abs=1e-3)
    assert item.record["snr_achieved_db"] == pytest.approx(3, abs=1e-3)
    assert item.record.get("level_of") == (None if level_of == "heard" else "target")


def test_the_preset_poconet_levels_the_target():
    """-20 dB for the target, -5 to 5 dB below it the noise, then one gain for everything."""
    mixer = Mixer(MixtureSpec(**PRESETS["poconet"], **SHORT, peak=0))
    for index in range(12):
        item = mixer.draw(0, index)
        gain_db = item.record["mixture_gain_db"]
        target_db = power_db(item.refs["speech"])
        assert target_db == pytest.approx(-20 + gain_db, abs=1e-4)
        assert -5 <= target_db - power_db(item.refs["noise"]) <= 5


# --- what decides


def test_an_item_depends_on_seed_and_index_alone(recordings):
    spec = MixtureSpec(
        duration_s=(0.2, 0.4), **sources(recordings, "speech", "noise", "rir"), noise_rir_prob=0.5
    )
    forwards, mixer = [Mixer(spec).draw(3, index) for index in range(6)], Mixer(spec)
    for index in (5, 0, 3, 3, 1):
        item = mixer.draw(3, index)
        np.testing.assert_array_equal(item.mix, forwards[index].mix)
        assert item.record == forwards[index].record
    assert len({item.mix.tobytes() for item in forwards}) == 6
    assert Mixer(spec).draw(4, 0).record != forwards[0].record


def test_the_speech_stays_when_the_noise_changes(recordings):
    plain = Mixer(MixtureSpec(**SHORT, snr_db=0.0)).draw(0, 7)
    other = Mixer(
        MixtureSpec(**SHORT, snr_db=(5.0, 9.0), noise=recordings / "noise", noise_rir_prob=1.0)
    ).draw(0, 7)
    np.testing.assert_array_equal(plain.refs["speech"], other.refs["speech"])


def test_a_mixer_may_be_pickled(recordings):
    mixer = Mixer(MixtureSpec(**SHORT, **sources(recordings, "speech", "rir")))
    mixer.draw(0, 0)
    copy = pickle.loads(pickle.dumps(mixer))
    np.testing.assert_array_equal(copy.draw(0, 1).mix, mixer.draw(0, 1).mix)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_other_rates_work(recordings, rate):
    item = Mixer(
        MixtureSpec(**SHORT, sample_rate=rate, **sources(recordings, "speech", "rir"))
    ).draw(0, 0)
    assert item.mix.shape == (1, round(0.3 * rate))
    assert item.sample_rate == rate


def test_the_record_is_the_samples_json(recordings):
    mixer = Mixer(MixtureSpec(**SHORT, **sources(recordings, "speech"), rir_prob=1.0))
    sample = draw_sample(mixer, 2, 13)
    assert sample.key == "000013"
    assert list(sample.refs()) == ["speech", "noise"]
    record = json.loads(sample.json())
    assert record["targets"] == ["speech"]
    assert record["fields"] == ["mix.wav", "ref.noise.wav", "ref.speech.wav"]
    assert record["sample_rate"] == RATE
    assert (record["seed"], record["index"]) == (2, 13)
    assert record["sources"] == mixer.draw(2, 13).record["sources"]
    item = mixer.draw(2, 13)
    np.testing.assert_array_equal(sample.audio("mix"), item.mix)
    np.testing.assert_array_equal(sample.audio("ref.speech"), item.refs["speech"])


# --- what makes no sense


@pytest.mark.parametrize("pair", [(0.0, -0.0), (-0.0, 0.0), -0.0, (3, 3)])
def test_ranges_of_one_number_need_no_order_of_zeros(pair):
    low, high = MixtureSpec(snr_db=pair).snr_db
    assert high - low == 0
    assert not np.signbit(high - low)
    assert Mixer(MixtureSpec(**SHORT, snr_db=pair)).draw(0, 0).record["snr_db"] == high


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"snr_db": (15, -5)}, r"snr_db must be LO:HI, the smaller number first, not \(15, -5\)"),
        ({"level_db": float("inf")}, "level_db must be LO:HI or one number, not inf"),
        ({"duration_s": 0}, "duration_s must be 0.1 to 3600, not"),
        ({"duration_s": (1, 2, 3)}, "duration_s must be LO:HI or one number"),
        ({"sample_rate": 0}, "sample_rate must be 4000 to 768000, not 0"),
        ({"snr_db": (0, 300)}, r"snr_db must be -200 to 200, not \(0, 300\)"),
        ({"min_rms_db": float("nan")}, "min_rms_db must be -200 to 200, not nan"),
        ({"level_of": "noise"}, "level_of must be heard or target, not noise"),
        ({"rir_prob": 1.5}, "rir_prob must be 0 to 1, not 1.5"),
        ({"target": "wet"}, "target must be dry or decayed or reverb, not wet"),
        ({"rir_decay_s": 0}, "rir_decay_s must be above 0, not 0"),
        ({"peak": -1}, r"peak must be 0 or more, not -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SepcliError, match=message):
        MixtureSpec(**settings)


def test_a_silent_impulse_response_is_refused(tmp_path):
    soundfile.write(tmp_path / "rir.wav", np.zeros(100), RATE)
    mixer = Mixer(MixtureSpec(**SHORT, rir=tmp_path, rir_prob=1.0))
    with pytest.raises(SepcliError, match=r"rir.wav: silent, so it is not an impulse response"):
        mixer.draw(0, 0)
