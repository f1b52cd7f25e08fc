"""Music from stems: layouts, exact sums, what every augmentation does, and what decides."""

import pickle
from functools import reduce

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.data.spectra import SpectraMixer, SpectraSpec
from sepcli.errors import SepcliError
from sepcli.mixing.music import AUGMENTATIONS, StemMixer, StemSpec
from sepcli.recordings.packing import Packing, PackSpec, find_sources
from sepcli.recordings.songs import find_songs

RATE = 8000
CUT = {"duration_s": 0.5, "sample_rate": RATE}


def tone(hz, seconds=2.0, rate=RATE, channels=2):
    """(T, C); the right channel has half the amplitude."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * hz * t)[:, None] * (1, 0.5)[:channels]


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    """Three tracks in MUSDB's layout, with noise of their own in every stem."""
    folder = tmp_path_factory.mktemp("musdb")
    rng = np.random.default_rng(0)
    for track in ("A - One", "B - Two", "C - Three"):
        (folder / "train" / track).mkdir(parents=True)
        stems = {name: 0.1 * rng.standard_normal((2 * RATE, 2)) for name in "vdbo"}
        stems = dict(zip(("vocals", "drums", "bass", "other"), stems.values(), strict=True))
        for name, signal in (*stems.items(), ("mixture", sum(stems.values()))):
            path = folder / "train" / track / f"{name}.wav"
            soundfile.write(path, signal, RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def tones(tmp_path):
    """One song of a 500 Hz voice and a 1000 Hz accompaniment, in folders of stems."""
    for name, hz in (("vocals", 500), ("accomp", 1000)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "song.wav", tone(hz), RATE, subtype="FLOAT")
    return tmp_path


def draw(folder, index=0, **spec):
    return StemMixer(StemSpec(**{**CUT, "stems": folder, **spec})).draw(0, index)


def peak_hz(signal):
    return np.argmax(np.abs(np.fft.rfft(signal * np.hanning(signal.size)))) * RATE / signal.size


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


def test_folders_of_stems_are_paired_by_the_name_of_the_song(tones):
    [song] = find_songs(str(tones))
    assert song.name == str(tones / "song")
    assert song.stems == {
        "accompaniment": [str(tones / "accomp/song.wav")],
        "vocals": [str(tones / "vocals/song.wav")],
    }


def test_stems_of_unrelated_names_are_remixed(tmp_path):
    """Voices of 500 and 600 Hz, and music of 1000 Hz."""
    sounds = {"vocals/anna": 500, "vocals/b/ben": 600, "accomp/beat 7": 1000}
    sounds |= {"drums/x": 700, "mixture/anna": 800}  # which neither target needs
    for name, hz in sounds.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", tone(hz), RATE, subtype="FLOAT")
    wanted = {"targets": "vocals,accompaniment", "augment": "remix"}
    items = [draw(tmp_path, i, **wanted) for i in range(20)]
    for item in items:
        assert list(item.refs) == ["vocals", "accompaniment"]
        assert peak_hz(item.refs["accompaniment"][0]) == 1000
        np.testing.assert_allclose(sum(item.refs.values()), item.mix, atol=1e-6)
    assert {peak_hz(item.refs["vocals"][0]) for item in items} == {500, 600}
    with pytest.raises(SepcliError, match="unrelated names need the augmentation remix"):
        draw(tmp_path, targets="vocals")
    with pytest.raises(SepcliError, match="no guitar, but vocals, drums, accompaniment"):
        draw(tmp_path, targets="guitar", augment="remix")


def test_instruments_of_unrelated_names_add_up_to_an_accompaniment(tmp_path):
    for name, hz in {"vocals/a": 500, "drums/b": 1000, "bass/c": 100, "bass/d": 200}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", tone(hz), RATE, subtype="FLOAT")
    items = [
        draw(tmp_path, i, targets="vocals,accompaniment", augment="remix,gain") for i in range(20)
    ]
    lows = set()
    for item in items:
        spectrum = np.abs(np.fft.rfft(item.refs["accompaniment"][0]))[:1000]  # 2 Hz each
        heard = {hz for hz in (100, 200, 500, 1000) if spectrum[hz // 2] > 50}
        assert 1000 in heard
        assert 500 not in heard
        lows |= heard - {1000}
    assert lows == {100, 200}
    (tmp_path / "bass/d.wav").unlink()
    (tmp_path / "bass/c.wav").unlink()
    item = draw(tmp_path, targets="vocals,accompaniment", augment="remix")
    assert peak_hz(item.refs["accompaniment"][0]) == 1000


def test_a_pack_of_songs_is_as_good_as_their_folder(musdb, tmp_path):
    packing = Packing([], [musdb], PackSpec(dtype="float32", val_fraction=0.4))
    list(packing.run(tmp_path / "songs.h5"))
    common = {"targets": "vocals,accompaniment", "augment": "remix,gain,pitch"}
    for index in range(3):
        folder, packed = (
            draw(source, index, **common) for source in (musdb, f"{tmp_path}/songs.h5:all")
        )
        np.testing.assert_array_equal(packed.mix, folder.mix)
        np.testing.assert_array_equal(packed.refs["vocals"], folder.refs["vocals"])
        [piece] = packed.record["sources"]["vocals"]["files"]
        assert piece["path"].startswith(f"{tmp_path}/songs.h5: samples/ref.vocals/")
    splits = [
        {song.name.rpartition("/")[2] for song in find_songs(f"{tmp_path}/songs.h5{split}")}
        for split in ("", ":validation")
    ]
    assert splits == [{"A - One", "B - Two"}, {"C - Three"}]
    mixer = StemMixer(StemSpec(**CUT, stems=f"{tmp_path}/songs.h5"))
    again = pickle.loads(pickle.dumps(mixer))
    np.testing.assert_array_equal(again.draw(0, 0).mix, mixer.draw(0, 0).mix)


def test_packs_without_songs_and_tars_are_refused(musdb, tmp_path):
    list(Packing(find_sources("noise", [str(musdb)])).run(tmp_path / "noise.h5"))
    with pytest.raises(SepcliError, match=r"noise\.h5: no stems in it; pack folders of SONG/STEM"):
        draw(f"{tmp_path}/noise.h5")
    with pytest.raises(SepcliError, match=r"a\.tar: stems are in folders or packs; make one with"):
        draw("a.tar")


def test_mono_and_other_rates_become_stereo_at_the_rate_asked_for(tmp_path):
    for name, rate in (("vocals", RATE), ("drums", 2 * RATE)):
        (tmp_path / "song").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "song" / f"{name}.wav", tone(500, 2, rate, 1), rate)
    item = draw(tmp_path)
    for ref in item.refs.values():
        np.testing.assert_array_equal(ref[0], ref[1])
        assert peak_hz(ref[0]) == pytest.approx(500, abs=2)


def test_what_is_longer_than_a_song_ends_in_silence(tones):
    item = draw(tones, duration_s=3.0)
    assert item.mix[:, : 2 * RATE - 100].any()
    assert not item.mix[:, 2 * RATE :].any()


# --- what decides, and what is refused


def test_an_item_depends_on_seed_and_index_alone_and_a_mixer_may_be_pickled(musdb):
    spec = StemSpec(**CUT, stems=musdb, augment=tuple(AUGMENTATIONS))
    forwards, mixer = [StemMixer(spec).draw(3, index) for index in range(5)], StemMixer(spec)
    for index in (4, 0, 2, 2):
        item = pickle.loads(pickle.dumps(mixer)).draw(3, index)
        np.testing.assert_array_equal(item.mix, forwards[index].mix)
        assert item.record == forwards[index].record
    assert len({item.mix.tobytes() for item in forwards}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stems": ()}, r"stems must be folders or packs of songs, not \(\)"),
        (
            {"augment": "louder"},
            "augment: unknown 'louder'; choose from swap, polarity, remix, gain",
        ),
        (
            {"augment": "gain=2:1"},
            "augment: gain=2:1 is not a range; write gain, or as gain=0.25",
        ),
        ({"augment": "swap=1"}, "augment: swap=1 is not a range"),
        ({"augment": "gain=x"}, "augment: gain=x is not a range"),
        ({"augment": "stretch=0:1"}, r"stretch=0:1 exceeds the allowed range 0\.25:4"),
        ({"augment": "pitch=1000"}, "pitch=1000 exceeds the allowed range -24:24"),
        ({"duration_s": 0}, "duration_s must be 0.1 to 3600"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SepcliError, match=message):
        StemSpec(**{"stems": "x", **settings})


def test_songs_that_do_not_fit_are_refused(musdb, tmp_path):
    with pytest.raises(SepcliError, match=r"One: no guitar, but vocals, drums, bass, other"):
        draw(musdb, targets="guitar")
    (tmp_path / "song").mkdir()
    soundfile.write(tmp_path / "song/vocals.wav", tone(500), RATE)
    with pytest.raises(SepcliError, match=r"vocals\.wav: the only stem of song; expected SONG/"):
        draw(tmp_path)
    soundfile.write(tmp_path / "song/guitar.wav", tone(500), RATE)
    with pytest.raises(SepcliError, match=r"song has vocals, guitar, but .*name targets that all"):
        draw((str(musdb), str(tmp_path)))
    soundfile.write(tmp_path / "song/guitar.wav", np.zeros((RATE, 3)), RATE)
    with pytest.raises(SepcliError, match=r"guitar\.wav: 3 channels; mix them down by --downmix"):
        draw(tmp_path)


# --- silence


@pytest.fixture(params=[StemMixer, SpectraMixer])
def half_silent(request, tmp_path):
    """Draws items of a song whose voice is silent for three quarters of its time."""
    rng = np.random.default_rng(0)
    for name, heard in (("vocals", 0.25), ("drums", 1.0)):
        signal = 0.1 * rng.standard_normal((4 * RATE, 2))
        signal[round(heard * len(signal)) :] = 0
        (tmp_path / "songs/one").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"songs/one/{name}.wav", signal, RATE, subtype="FLOAT")
    settings = {**CUT, "stems": tmp_path / "songs"}
    if request.param is SpectraMixer:
        kept = {"folder": str(tmp_path / "kept"), "window": 256, "hop": 64}
        return lambda **spec: SpectraMixer(SpectraSpec(**{**settings, **kept, **spec}))
    return lambda **spec: StemMixer(StemSpec(**{**settings, **spec}))


def test_stretches_are_drawn_again_where_a_target_is_quiet(half_silent):
    def loud(**spec):
        mixer = half_silent(**spec)
        drawn = (mixer.draw(0, index).refs["vocals"] for index in range(20))
        return [np.abs(signal).max() > 0.05 for signal in drawn]

    assert not all(loud())
    assert loud(min_rms_db=None) == loud()
    assert all(loud(min_rms_db=-26))  # a stretch at the edge of the silence may pass
    assert all(loud(min_rms_db=-26, augment="remix"))
    assert loud(min_rms_db=-26, targets="drums") == loud()  # the voice is no target


def test_levels_are_those_of_the_sound(half_silent):
    assert half_silent(min_rms_db=-21, targets="drums").draw(0, 0)  # it has -20 dB
    with pytest.raises(SepcliError, match=r"^drums: quieter than -19 dB"):
        half_silent(min_rms_db=-19, targets="drums").draw(0, 0)
    with pytest.raises(SepcliError, match=r"vocals.*lower min_rms_db, or name other songs"):
        half_silent(min_rms_db=-19).draw(0, 0)
