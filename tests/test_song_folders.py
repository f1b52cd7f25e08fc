"""Songs: where their stems lie, how long they are, and stretches in which they sound."""

import pickle

import numpy as np
import pytest
import soundfile

from sepcli.data.spectra import SpectraMixer, SpectraSpec
from sepcli.errors import SepcliError
from sepcli.mixing.music import AUGMENTATIONS, StemMixer, StemSpec
from sepcli.recordings.packing import Packing, PackSpec, find_sources
from sepcli.recordings.songs import find_songs
from tests.songs import CUT, RATE, draw, peak_hz, tone, write_musdb, write_tones


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    return write_musdb(tmp_path_factory.mktemp("musdb"))


@pytest.fixture
def tones(tmp_path):
    return write_tones(tmp_path)


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
