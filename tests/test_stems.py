"""Music from stems: layouts, exact sums, what every augmentation does, and what decides."""

from functools import reduce

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.mixing.music import AUGMENTATIONS, StemMixer, StemSpec
from tests.songs import RATE, draw, peak_hz, tone, write_musdb, write_tones


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    return write_musdb(tmp_path_factory.mktemp("musdb"))


@pytest.fixture
def tones(tmp_path):
    return write_tones(tmp_path)


# --- sums and ranges


@settings(deadline=None, max_examples=30)
@given(
    augment=st.sets(st.sampled_from(sorted(AUGMENTATIONS))).map(tuple),
    targets=st.sampled_from([(), ("vocals",), ("vocals", "accompaniment")]),
    duration_s=st.floats(0.1, 3),
    rate=st.sampled_from((8000, 11025, 16000)),
    downmix=st.booleans(),
    gain_db=st.tuples(st.floats(-20, 0), st.floats(0, 20)),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
)
def test_a_mixture_is_the_sum_of_its_stems_within_all_ranges(
    musdb, augment, targets, duration_s, rate, downmix, gain_db, seed, index
):
    spec = StemSpec(
        stems=musdb, augment=augment, targets=targets, duration_s=duration_s, sample_rate=rate,
        downmix=downmix, mixture_gain_db=gain_db,
    )  # fmt: skip
    item = StemMixer(spec).draw(seed, index)
    np.testing.assert_array_equal(item.mix, reduce(np.add, item.refs.values()))
    for signal in (item.mix, *item.refs.values()):
        assert signal.dtype == np.float32
        assert signal.shape == (1 if downmix else 2, round(duration_s * rate))
    assert np.abs(item.mix).max() < 0.99 + 1e-6
    assert list(item.refs)[: len(targets)] == list(targets)
    assert item.record["targets"] == list(targets or item.refs)
    assert gain_db[0] <= item.record["mixture_gain_db"] <= gain_db[1]
    for source in item.record["sources"].values():
        for name in ("gain", "pitch", "stretch"):
            assert (name in source) == (name in augment)
            low, high = AUGMENTATIONS[name]
            assert low <= source.get(name, low) <= high
        start, stop = source.get("time_mask_s", (0, 0))
        assert 0 <= stop - start <= 0.5
        for piece in source["files"]:
            assert 0 <= piece["start"] < piece["stop"] <= 2 * RATE


def test_without_augmentation_the_stems_are_the_files_from_one_place(musdb):
    places = set()
    for index in range(10):
        item = draw(musdb, index)
        assert list(item.refs) == ["vocals", "drums", "bass", "other"]
        [place] = {
            (source["song"], source["files"][0]["start"], source["files"][0]["stop"])
            for source in item.record["sources"].values()
        }
        places.add(place)
        song, start, stop = place
        for name, ref in item.refs.items():
            on_disk, _ = soundfile.read(f"{song}/{name}.wav", start=start, stop=stop)
            np.testing.assert_allclose(ref.T, on_disk, atol=1e-6)
        mixture, _ = soundfile.read(f"{song}/mixture.wav", start=start, stop=stop)
        np.testing.assert_allclose(item.mix.T, mixture, atol=1e-6)
    assert len({song for song, _, _ in places}) == 3


# --- augmentations


def test_remix_takes_every_stem_from_a_song_of_its_own(musdb):
    songs = [
        {
            source["song"]
            for source in draw(musdb, index, augment="remix").record["sources"].values()
        }
        for index in range(10)
    ]
    assert {2, 3} <= {len(several) for several in songs}


def test_in_a_remix_every_instrument_of_the_accompaniment_is_of_a_song_of_its_own(musdb):
    """The references are rebuilt from the files that the record names, by soundfile and numpy."""
    together = set()
    for index in range(6):
        item = draw(musdb, index, targets="vocals,accompaniment", augment="remix,gain,swap", peak=0)
        sources = item.record["sources"]
        assert list(item.refs) == ["vocals", "accompaniment"]
        assert list(sources) == ["vocals", "drums", "bass", "other"]
        heard = {}
        for name, about in sources.items():
            [piece] = about["files"]
            assert piece["path"] == f"{about['song']}/{name}.wav"
            part, _ = soundfile.read(piece["path"], start=piece["start"], stop=piece["stop"])
            heard[name] = about["factor"] * (part[:, ::-1] if about["swap"] else part).T
        np.testing.assert_allclose(item.refs["vocals"], heard.pop("vocals"), atol=1e-6)
        np.testing.assert_allclose(item.refs["accompaniment"], sum(heard.values()), atol=1e-6)
        np.testing.assert_array_equal(item.mix, item.refs["vocals"] + item.refs["accompaniment"])
        for key in ("song", "swap", "factor"):
            together.add((key, len({sources[name][key] for name in heard})))
        together.add(("start", len({sources[name]["files"][0]["start"] for name in heard})))
    assert {("song", 3), ("swap", 2), ("factor", 3), ("start", 3)} <= together
    alone = draw(musdb, 0, targets="vocals,accompaniment", augment="gain,swap").record["sources"]
    assert list(alone) == ["vocals", "accompaniment"]  # of one song, they stay together


def test_gains_polarities_and_swaps_are_those_of_the_record(tones):
    seen = set()
    for index in range(20):
        plain = draw(tones, index)
        item = draw(tones, index, augment=("swap,polarity", "gain=0.5:0.6", "gain-db=-9:-3"))
        for name, source in item.record["sources"].items():
            assert 0.5 <= source["gain"] <= 0.6
            expected = plain.refs[name][:: -1 if source["swap"] else 1]
            assert -9 <= source["gain_db"] <= -3
            factor = 10 ** (source["gain_db"] / 20) * source["gain"]
            factor *= -1 if source["polarity"] else 1
            np.testing.assert_allclose(item.refs[name], factor * expected, atol=1e-6)
            seen.add((source["swap"], source["polarity"]))
    assert len(seen) == 4


@pytest.mark.parametrize(("augment", "ratio"), [("pitch=12", 2), ("pitch=-2", 0.891), ("", 1)])
@pytest.mark.parametrize("stretch", ["", "stretch=0.9", "stretch=1.1"])
def test_pitch_is_changed_without_tempo_and_tempo_without_pitch(tmp_path, augment, ratio, stretch):
    clicks = np.zeros((4 * RATE, 2))
    clicks[200 :: RATE // 4] = 0.5  # four a second
    (tmp_path / "song").mkdir()
    soundfile.write(tmp_path / "song/vocals.wav", tone(500, 4), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "song/drums.wav", clicks, RATE, subtype="FLOAT")
    item = draw(tmp_path, augment=(augment, stretch), duration_s=2.0, peak=0)
    for channel, amplitude in zip(item.refs["vocals"], (0.4, 0.2), strict=True):
        assert peak_hz(channel) == pytest.approx(500 * ratio, abs=1)
        assert np.std(channel) == pytest.approx(amplitude * 0.5**0.5, rel=0.02)
    envelope = np.convolve(np.abs(item.refs["drums"][0]), np.ones(80))
    tempo = float(stretch.partition("=")[2] or 1)
    rhythm = np.abs(np.fft.rfft(envelope - envelope.mean(), 16 * RATE))
    assert np.argmax(rhythm[:100]) / 16 == pytest.approx(4 * tempo, abs=0.1)
    for source in item.record["sources"].values():
        [piece] = source["files"]
        assert piece["stop"] - piece["start"] == pytest.approx(2 * RATE * tempo, abs=2)


def test_all_stems_of_a_song_get_the_same_pitch_and_tempo(musdb):
    sources = draw(musdb, augment="pitch,stretch").record["sources"].values()
    assert len({(source["pitch"], source["stretch"]) for source in sources}) == 1
    sources = draw(musdb, augment="pitch,stretch,remix").record["sources"].values()
    assert len({(source["pitch"], source["stretch"]) for source in sources}) == 4


def test_a_time_mask_is_silence_where_the_record_says(tones):
    item = draw(tones, augment="time-mask=0.1:0.2")
    whole = draw(tones)
    for name, source in item.record["sources"].items():
        start, stop = (round(second * RATE) for second in source["time_mask_s"])
        assert 0.1 * RATE - 1 <= stop - start <= 0.2 * RATE + 1
        assert not item.refs[name][:, start + 1 : stop - 1].any()
        outside = np.r_[0 : max(0, start - 41), stop + 41 : 4000]
        np.testing.assert_array_equal(item.refs[name][:, outside], whole.refs[name][:, outside])


def test_a_frequency_mask_takes_out_its_octaves(musdb):
    item = draw(musdb, augment="freq-mask=1", duration_s=1.0)
    for name, source in item.record["sources"].items():
        low, high = source["freq_mask_hz"]
        assert high == pytest.approx(2 * low)
        power = np.abs(np.fft.rfft(item.refs[name][0])) ** 2  # 1 Hz per bin
        inside = power[int(low) + 2 : int(high) - 1].mean()
        assert inside < 1e-6 * power.mean()


def test_one_more_augmentation_does_not_move_the_others(musdb):
    few = draw(musdb, augment="gain,swap").record["sources"]
    more = draw(musdb, augment="gain,swap,polarity,time-mask,freq-mask").record["sources"]
    for name, source in few.items():
        for what in ("files", "gain", "swap"):
            assert more[name][what] == source[what]


# --- layouts


def test_accompaniment_is_the_sum_of_all_others(musdb):
    apart = draw(musdb)
    item = draw(musdb, targets="vocals,accompaniment")
    assert list(item.refs) == ["vocals", "accompaniment"]
    others = sum(apart.refs[name] for name in ("drums", "bass", "other"))
    np.testing.assert_allclose(item.refs["accompaniment"], others, atol=1e-6)
