"""Target-speaker mixtures: who speaks, sums, rooms, enrolments, and what decides."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sepcli.errors import SepcliError
from sepcli.mixing.mixtures import Mixer, draw_sample
from sepcli.mixing.speakers import PREROLL_S, SpeakerMixer
from sepcli.mixing.specs import TARGETS, MixtureSpec, SpeakerSpec
from tests.test_pack import make

RATE = 16000
SHORT = {"duration_s": 0.3, "enroll_s": 0.2}


def power_db(signal):
    return 10 * np.log10(np.mean(np.asarray(signal, np.float64) ** 2))


def pair(low, high, numbers=st.floats):
    """Ranges with numbers from `low` to `high`."""
    return st.tuples(numbers(low, high), numbers(low, high)).map(sorted).map(tuple)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder with four speakers of three 1 s recordings each; ramps that tell where one is."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for name in ("ann", "ben", "cat", "dan"):
        (folder / name / "session").mkdir(parents=True)
        for k in range(3):
            signal = 0.1 * rng.standard_normal(RATE)
            soundfile.write(folder / name / "session" / f"{k}.wav", signal, RATE, subtype="FLOAT")
    return folder


def pieces(source):
    """{(path, first frame, last frame)} of a source in a record."""
    return {(p["path"], p["start"], p["stop"]) for p in source["files"]}


# --- levels and sums


@settings(deadline=None, max_examples=30)
@given(
    duration_s=st.floats(0.1, 0.5),
    rate=st.sampled_from((8000, 16000, 22050)),
    interferers=pair(0, 3, st.integers),
    target_absent=st.floats(0, 1),
    ranges=st.fixed_dictionaries(
        {
            "sir_db": pair(-10, 10),
            "speed": pair(0.9, 1.1),
            "snr_db": pair(-10, 30),
            "level_db": pair(-40, -10),
            "mixture_gain_db": pair(-20, 20),
        }
    ),
    target=st.sampled_from(TARGETS),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
)
def test_a_mixture_is_the_sum_of_its_parts_within_all_ranges(
    duration_s, rate, interferers, target_absent, ranges, target, seed, index
):
    spec = SpeakerSpec(
        duration_s=duration_s, sample_rate=rate, interferers=interferers, target=target,
        target_absent=target_absent, enroll=True, enroll_s=0.2, **ranges,
    )  # fmt: skip
    item = SpeakerMixer(spec).draw(seed, index)
    speech, others, noise = (item.refs[name] for name in ("speech", "interferers", "noise"))
    np.testing.assert_array_equal(item.mix, speech + others + noise)
    assert item.mix.dtype == item.enroll.dtype == np.float32
    assert item.mix.shape == (1, round(duration_s * rate))
    assert item.enroll.shape == (1, round(0.2 * rate))
    record, sources = item.record, item.record["sources"]
    for name in ("snr_db", "level_db", "mixture_gain_db"):
        assert ranges[name][0] <= record[name] <= ranges[name][1]
    assert interferers[0] <= len(sources["interferers"]) <= interferers[1]
    for voice in sources["interferers"]:
        assert ranges["sir_db"][0] <= voice["sir_db"] <= ranges["sir_db"][1]
        assert ranges["speed"][0] <= voice["speed"] <= ranges["speed"][1]
    assert others.any() == bool(sources["interferers"])
    assert speech.any() == record["target_present"] == bool(sources["speech"])
    if speech.any() or others.any():
        loudness = record["level_db"] + record["mixture_gain_db"] + record["peak_gain_db"]
        assert power_db(speech + others) == pytest.approx(loudness, abs=1e-3)
        snr_db = power_db(speech + others) - power_db(noise)
        assert snr_db == pytest.approx(record["snr_db"], abs=1e-3)
    if speech.any() and len(sources["interferers"]) == 1:
        sir_db = power_db(speech) - power_db(others)
        assert sir_db == pytest.approx(sources["interferers"][0]["sir_db"], abs=1e-3)
    assert np.abs(item.mix).max() < 0.99 + 1e-6


def test_without_interferers_it_is_speech_in_noise_at_the_same_level():
    both = {"duration_s": 0.5, "snr_db": (-5, 5), "level_db": (-30, -20)}
    plain = Mixer(MixtureSpec(**both)).draw(0, 3)
    item = SpeakerMixer(SpeakerSpec(**both, interferers=0)).draw(0, 3)
    np.testing.assert_array_equal(item.refs["noise"], plain.refs["noise"])
    assert item.record["snr_db"] == plain.record["snr_db"]
    assert power_db(item.refs["speech"]) == pytest.approx(power_db(plain.refs["speech"]), abs=1e-4)


def test_an_absent_target_leaves_zeros_and_everything_else_as_it_was(speech):
    common = {**SHORT, "speech": speech, "enroll": True, "interferers": (1, 2)}
    present, absent = (
        SpeakerMixer(SpeakerSpec(**common, target_absent=p)).draw(0, 5) for p in (0.0, 1.0)
    )
    assert not absent.refs["speech"].any()
    assert absent.record["sources"]["speech"] is None
    assert absent.record["target_present"] is False
    assert absent.record["targets"] == ["speech"]
    assert absent.record["speaker"] == present.record["speaker"]
    np.testing.assert_array_equal(absent.enroll, present.enroll)
    ours, theirs = (
        [voice["files"] for voice in item.record["sources"]["interferers"]]
        for item in (absent, present)
    )
    assert ours == theirs


def test_targets_are_absent_as_often_as_asked_from_the_step_asked():
    spec = SpeakerSpec(duration_s=0.1, target_absent=0.3, interferers=0, target_absent_from=50)
    mixer = SpeakerMixer(spec)

    def absent(step):
        there = (mixer.draw(0, index, step).record["target_present"] for index in range(100))
        return [index for index, present in enumerate(there) if not present]

    assert absent(0) == absent(49) == []
    assert 20 <= len(absent(50)) <= 40
    assert absent(50) == absent(10**6) == absent(None)


# --- who speaks


def test_speakers_are_folders_all_different_and_enrolments_other_recordings(speech):
    spec = SpeakerSpec(speech=speech, duration_s=2.5, enroll_s=1.5, enroll=True, interferers=(0, 3))
    mixer = SpeakerMixer(spec)
    seen = set()
    for index in range(40):
        record = mixer.draw(0, index).record
        sources = record["sources"]
        names = [record["speaker"], *(voice["speaker"] for voice in sources["interferers"])]
        assert len(set(names)) == len(names)
        seen.update(names)
        for voice, name in zip((sources["speech"], *sources["interferers"]), names, strict=True):
            assert all(path.startswith(f"{name}/") for path, _, _ in pieces(voice))
        said, enrolled = (
            {path for path, _, _ in pieces(sources[part])} for part in ("speech", "enroll")
        )
        assert not said & enrolled
        assert all(path.startswith(f"{record['speaker']}/") for path in enrolled)
    assert seen == {str(speech / name) for name in ("ann", "ben", "cat", "dan")}


def test_the_same_recording_named_twice_is_no_second_utterance(tmp_path):
    (tmp_path / "one").mkdir()
    soundfile.write(tmp_path / "one/a.wav", np.full(RATE, 0.1), RATE)
    twice = (str(tmp_path / "one"), f"{tmp_path}/one/a.wav")
    with pytest.raises(SepcliError, match="no speaker has two recordings"):
        SpeakerMixer(SpeakerSpec(speech=twice, enroll=True, interferers=0))


def test_a_regex_says_who_speaks(tmp_path):
    for name in ("a-1", "a-2", "b-1", "b-2"):
        signal = 0.1 * np.random.default_rng(0).standard_normal(RATE)
        soundfile.write(tmp_path / f"{name}.wav", signal, RATE)
    common = {**SHORT, "speech": tmp_path, "enroll": True, "interferers": 1}
    with pytest.raises(SepcliError, match=r"1 speaker\(s\), but a mixture has 2"):
        SpeakerMixer(SpeakerSpec(**common))
    item = SpeakerMixer(SpeakerSpec(**common, speaker_regex="([ab])-")).draw(0, 0)
    names = item.record["speaker"], item.record["sources"]["interferers"][0]["speaker"]
    assert sorted(names) == ["a", "b"]
    with pytest.raises(SepcliError, match=r"a-1\.wav: the speaker is unknown"):
        SpeakerMixer(SpeakerSpec(**common, speaker_regex="(b)-"))


def test_packs_know_who_speaks(speech, tmp_path):
    make(tmp_path / "all.h5", val_fraction=0, speech=speech)
    spec = SpeakerSpec(**SHORT, speech=tmp_path / "all.h5", enroll=True, interferers=3)
    packed = SpeakerMixer(spec).draw(0, 0)
    files = SpeakerMixer(SpeakerSpec(**{**vars(spec), "speech": speech})).draw(0, 0)
    assert packed.record["speaker"].rpartition("/")[2] == files.record["speaker"].rpartition("/")[2]
    np.testing.assert_allclose(packed.mix, files.mix, atol=1e-3)  # 16 bits
    np.testing.assert_allclose(packed.enroll, files.enroll, atol=1e-3)


# --- speed, rooms, enrolments


def test_speed_is_that_of_a_tape(tmp_path):
    (tmp_path / "ann").mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(4 * RATE) / RATE)
    for k in range(2):
        soundfile.write(tmp_path / "ann" / f"{k}.wav", tone, RATE)
    spec = SpeakerSpec(
        speech=tmp_path, interferers=0, speed=1.1, duration_s=1, enroll=True, enroll_s=1
    )
    item = SpeakerMixer(spec).draw(0, 0)
    for signal in (item.refs["speech"][0], item.enroll[0]):
        assert np.argmax(np.abs(np.fft.rfft(signal))) == pytest.approx(1100, abs=1)
    [piece] = item.record["sources"]["speech"]["files"]
    assert piece["stop"] - piece["start"] == pytest.approx(1.1 * RATE, abs=2)


@pytest.mark.parametrize("target", TARGETS)
def test_a_room_rings_with_what_was_said_before_the_item(tmp_path, target):
    rng = np.random.default_rng(0)
    (tmp_path / "ann").mkdir()
    soundfile.write(tmp_path / "ann/0.wav", 0.1 * rng.standard_normal(3 * RATE), RATE, "FLOAT")
    rir = np.exp(-np.arange(6000) / 900) * rng.standard_normal(6000)
    rir[0] = 4
    soundfile.write(tmp_path / "rir.wav", rir / 4, RATE, "FLOAT")
    spec = SpeakerSpec(
        speech=tmp_path, rir=tmp_path / "rir.wav", rir_prob=1.0, interferers=0, target=target,
        duration_s=0.3,
    )  # fmt: skip
    dry, _ = soundfile.read(tmp_path / "ann/0.wav")
    mixer = SpeakerMixer(SpeakerSpec(**{**vars(spec), "speech": tmp_path / "ann"}))
    wet = fftconvolve(dry, rir / 4)
    late_s = np.maximum(np.arange(rir.size) / RATE - 0.02, 0)
    shortened = fftconvolve(dry, rir / 4 * 10 ** (-3 * late_s / 0.3))
    before = round(PREROLL_S * RATE)
    for index in range(5):
        item = mixer.draw(0, index)
        source = item.record["sources"]["speech"]
        [(_, start, stop)] = pieces(source)
        gain = 10 ** (source["gain_db"] / 20)
        first = max(0, start - before)
        ringing = fftconvolve(dry[first:stop], rir / 4)[start - first : stop - first]
        np.testing.assert_allclose(item.mix[0] - item.refs["noise"][0], gain * ringing, atol=1e-5)
        np.testing.assert_allclose(ringing, wet[start:stop], atol=1e-5)  # it was long enough
        wanted = {"dry": dry, "decayed": shortened, "reverb": wet}[target][start:stop]
        np.testing.assert_allclose(item.refs["speech"][0], gain * wanted, atol=1e-5)


def test_an_enrolment_has_the_level_of_the_speech_and_noise_as_often_as_the_step_says(speech):
    spec = SpeakerSpec(
        **SHORT, speech=speech, enroll=True, level_db=(-40, -20), noisy_enroll=1.0,
        enroll_snr_db=10, noisy_enroll_ramp=(100, 200),
    )  # fmt: skip
    mixer = SpeakerMixer(spec)
    clean = mixer.draw(0, 7, 50)
    assert power_db(clean.enroll) == pytest.approx(clean.record["level_db"], abs=1e-3)
    assert clean.record["sources"]["enroll"]["noise"] is None
    noisy = mixer.draw(0, 7, 250)
    both_db = noisy.record["level_db"] + 10 * np.log10(1.1)
    assert power_db(noisy.enroll) == pytest.approx(both_db, abs=0.5)
    assert noisy.record["sources"]["enroll"]["snr_db"] == 10
    np.testing.assert_array_equal(mixer.draw(0, 7).enroll, noisy.enroll)
    noisy = [
        {i for i in range(60) if mixer.draw(0, i, step).record["sources"]["enroll"]["noise"]}
        for step in (100, 125, 150, 175, 200)
    ]
    assert (len(noisy[0]), len(noisy[-1])) == (0, 60)
    assert all(a < b for a, b in pairwise(noisy))  # an item stays noisy
    assert 20 <= len(noisy[2]) <= 40


@pytest.mark.parametrize(("rooms", "expected"), [({}, 1), ({"enroll_rir_prob": 0.0}, 0)])
def test_an_enrolment_rings_in_a_room_of_its_own_as_often_as_asked(tmp_path, rooms, expected):
    rng = np.random.default_rng(0)
    (tmp_path / "ann").mkdir()
    for k in range(2):
        soundfile.write(
            tmp_path / f"ann/{k}.wav", 0.1 * rng.standard_normal(3 * RATE), RATE, "FLOAT"
        )
    rirs = {}
    for k in range(4):
        rir = np.exp(-np.arange(4000) / 900) * rng.standard_normal(4000)
        rir[0] = 4
        (tmp_path / "rirs").mkdir(exist_ok=True)
        rirs[str(tmp_path / f"rirs/{k}.wav")] = rir / 4
        soundfile.write(tmp_path / f"rirs/{k}.wav", rir / 4, RATE, "FLOAT")
    spec = SpeakerSpec(
        speech=tmp_path / "ann", rir=tmp_path / "rirs", rir_prob=1.0,
        interferers=0, enroll=True, enroll_s=0.3, duration_s=0.3, **rooms,
    )  # fmt: skip
    mixer, others = SpeakerMixer(spec), 0
    for index in range(8):
        item = mixer.draw(0, index)
        about = item.record["sources"]["enroll"]
        assert bool(about["rir"]) == expected
        [(path, start, stop)] = pieces(about)
        sound, _ = soundfile.read(path)
        if expected:
            sound = fftconvolve(sound, rirs[about["rir"]["path"]])
            others += about["rir"] != item.record["sources"]["speech"]["rir"]
        sound = sound[start:stop]
        gain = np.dot(item.enroll[0], sound) / np.dot(sound, sound)
        np.testing.assert_allclose(item.enroll[0], gain * sound, atol=1e-5)
        assert power_db(item.enroll) == pytest.approx(item.record["level_db"], abs=1e-3)
    assert bool(others) == expected


def test_how_often_enrolments_are_in_rooms_is_no_matter_of_how_often_speech_is():
    spec = SpeakerSpec(**SHORT, rir_prob=0.9, enroll_rir_prob=0.3, enroll=True, interferers=0)
    mixer = SpeakerMixer(spec)
    records = [mixer.draw(0, index).record["sources"] for index in range(150)]
    assert 25 <= sum(bool(about["enroll"]["rir"]) for about in records) <= 65
    assert 120 <= sum(bool(about["speech"]["rir"]) for about in records) <= 148


# --- what decides


def test_an_item_depends_on_seed_and_index_alone_and_a_mixer_may_be_pickled(speech):
    spec = SpeakerSpec(**SHORT, speech=speech, enroll=True, speed=(0.9, 1.1), rir_prob=0.5)
    forwards, mixer = [SpeakerMixer(spec).draw(3, index) for index in range(5)], SpeakerMixer(spec)
    for index in (4, 0, 2, 2):
        item = pickle.loads(pickle.dumps(mixer)).draw(3, index)
        np.testing.assert_array_equal(item.mix, forwards[index].mix)
        np.testing.assert_array_equal(item.enroll, forwards[index].enroll)
        assert item.record == forwards[index].record
    assert len({item.mix.tobytes() for item in forwards}) == 5


def test_another_part_does_not_move_the_target(speech):
    common = {**SHORT, "speech": speech}
    plain = SpeakerMixer(SpeakerSpec(**common, interferers=1)).draw(0, 1)
    other = SpeakerMixer(
        SpeakerSpec(**common, interferers=1, enroll=True, snr_db=30, rir_prob=1.0, sir_db=9)
    ).draw(0, 1)
    assert pieces(other.record["sources"]["speech"]) == pieces(plain.record["sources"]["speech"])
    assert (
        other.record["sources"]["noise"]["synthetic"]
        == (plain.record["sources"]["noise"]["synthetic"])
    )


def test_a_sample_holds_the_enrolment(speech):
    mixer = SpeakerMixer(SpeakerSpec(**SHORT, speech=speech, enroll=True))
    sample = draw_sample(mixer, 0, 0)
    assert sample.ordered() == [
        "mix.wav", "ref.interferers.wav", "ref.noise.wav", "ref.speech.wav", "enroll.wav",
    ]  # fmt: skip
    assert sample.targets == ["speech"]
    np.testing.assert_array_equal(sample.audio("enroll"), mixer.draw(0, 0).enroll)


def test_levels_may_be_those_of_the_targets():
    """Of all voices in their shortened rooms; each is as far above the others as was drawn."""
    spec = SpeakerSpec(
        **SHORT, interferers=1, sir_db=4, rir_prob=1, target="decayed", level_of="target",
        level_db=-20, snr_db=3, peak=0, target_absent=0.5,
    )  # fmt: skip
    for index in range(8):
        item = SpeakerMixer(spec).draw(0, index)
        assert power_db(item.refs["noise"]) == pytest.approx(-23, abs=1e-3)
        assert item.record["snr_achieved_db"] == pytest.approx(3, abs=1e-3)
        assert item.record["level_of"] == "target"
        [other] = item.record["sources"]["interferers"]
        if item.record["target_present"]:
            target = item.record["sources"]["speech"]
            quiet = power_db(item.refs["speech"])
            assert -20 > quiet > -26  # two voices, one 4 dB below the other, make -20
            assert {target["rir"]["decay_s"], other["rir"]["decay_s"]} == {0.3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interferers": (0.5, 1)}, r"interferers must be whole numbers, not \(0\.5, 1"),
        ({"interferers": -1}, "interferers must be 0 or more"),
        ({"target_absent": 2}, "target_absent must be 0 to 1, not 2"),
        ({"speed": (0.0, 1.0)}, "speed must be 0.25 to 4, not"),
        ({"enroll_s": 0}, "enroll_s must be 0.1 to 3600, not"),
        ({"enroll_rir_prob": 2}, "enroll_rir_prob must be 0 to 1, not 2"),
        ({"noisy_enroll": -1}, "noisy_enroll must be 0 to 1, not -1"),
        ({"snr_db": (3, 2)}, "snr_db must be LO:HI, the smaller number first"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SepcliError, match=message):
        SpeakerSpec(**settings)
