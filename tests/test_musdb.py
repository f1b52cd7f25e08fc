"""A folder of MUSDB18 or MUSDB18-HQ as it is unpacked: separated and scored as one types it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.models import build, modelfile
from sepcli.samples.folders import read_folder
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.models import randomise
from tests.sounds import put_tracks
from tests.test_audio_foreign import snr_db

RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")  # the order of the tracks in MUSDB18's files
TRACKS = ("AM Contra - Heart", "Zeno - Signs")


def song(seed, seconds=1.2):
    """Stem -> (2, T): a tone of its own in noise, so that no two are alike."""
    rng, t = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    stems = {
        name: 0.1 * np.sin(2 * np.pi * hz * t) + 0.005 * rng.standard_normal((2, t.size))
        for name, hz in zip(STEMS, (1300, 90, 700, 400), strict=True)
    }
    return {name: stem.astype(np.float32) for name, stem in stems.items()}


def put_song(folder, stems):
    folder.mkdir(parents=True)
    for name, signal in {"mixture": sum(stems.values()), **stems}.items():
        audio.write(folder / f"{name}.wav", signal, RATE)


def put_stem_file(path, stems):
    """An MPEG-4 file of five AAC tracks, the mixture and the stems."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_tracks(path, [sum(stems.values()), *(stems[name] for name in STEMS)], RATE)


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    """HQ/test/TRACK/STEM.wav, and MP4/test/TRACK.stem.mp4 of the same songs."""
    folder = tmp_path_factory.mktemp("musdb")
    for seed, track in enumerate(TRACKS):
        put_song(folder / "HQ/test" / track, song(seed))
        put_stem_file(folder / f"MP4/test/{track}.stem.mp4", song(seed))
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """An Open-Unmix for vocals alone, with random weights."""
    settings = {
        "sources": ["vocals"],
        "residual": 0,
        "hidden": 6,
        "layers": 1,
        "window": 1024,
        "hop": 512,
    }
    model = randomise(build("open_unmix", **settings))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    modelfile.save(path, "open_unmix", settings, model.state_dict(), {})
    return str(path)


def invoke(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize("form", ["HQ", "MP4"])
def test_a_raw_folder_is_separated_and_scored_as_typed(musdb, form, tmp_path):
    done = invoke("separate", musdb / form / "test", "-o", tmp_path / "est")
    assert done.exit_code == 0, done.output
    names = {str(path.relative_to(tmp_path / "est")) for path in (tmp_path / "est").rglob("*.*")}
    assert names == {f"{t}/{s}.wav" for t in TRACKS for s in ("vocals", "accompaniment")}
    done = invoke("eval", tmp_path / "est", musdb / form / "test", "--median-of-median", "--json")
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert {item["key"] for item in scores["items"]} == set(TRACKS)
    assert {item["target"] for item in scores["items"]} == {"vocals", "accompaniment"}
    assert all(np.isfinite(item["sdr_db"]) for item in scores["items"])


def test_a_model_of_vocals_alone_leaves_the_accompaniment_too(musdb, model_file, tmp_path):
    done = invoke("separate", "-m", model_file, musdb / "HQ/test", "-o", tmp_path / "est")
    assert done.exit_code == 0, done.output
    for track in TRACKS:
        stems = [audio.read(path)[0] for path in sorted((tmp_path / "est" / track).iterdir())]
        assert len(stems) == 2
        mixture, _ = audio.read(musdb / "HQ/test" / track / "mixture.wav")
        np.testing.assert_allclose(sum(stems), mixture, atol=1e-6)
    chosen = ("-m", model_file, "--target", "vocals", "-o", tmp_path / "one")
    one = invoke("separate", musdb / "HQ/test", *chosen)
    assert one.exit_code == 0, one.output
    assert {path.name for path in (tmp_path / "one").rglob("*.wav")} == {"vocals.wav"}


def test_in_a_tar_songs_stay_samples_with_their_references(musdb, model_file, tmp_path):
    done = invoke("separate", "-m", model_file, musdb / "MP4/test", "-o", tmp_path / "est.tar")
    assert done.exit_code == 0, done.output
    samples = list(read_samples(tmp_path / "est.tar"))
    assert [sample.key for sample in samples] == list(TRACKS)
    for sample in samples:
        assert set(sample.refs()) == set(STEMS)
        assert list(sample.ests()) == ["vocals"]
        assert sample.audio("ref.bass").shape == sample.audio("mix").shape


def test_every_track_of_a_stem_file_is_the_stem_it_stands_for(musdb):
    for seed, sample in enumerate(read_folder(musdb / "MP4")):
        assert sample.key == TRACKS[seed]
        stems = song(seed)
        for name, stem in {"mix": sum(stems.values()), **stems}.items():
            heard = sample.audio(name if name == "mix" else f"ref.{name}")
            assert heard.shape == stem.shape
            assert snr_db(heard, stem) > 15
            others = [other for other in stems if other != name]
            assert max(snr_db(heard, stems[other]) for other in others) < 1


def test_stem_files_are_kept_as_wav_in_folders(musdb, tmp_path):
    with open_sample_writer(tmp_path / "kept") as writer:
        for sample in read_folder(musdb / "MP4"):
            writer.write(sample)
    for before, after in zip(
        read_folder(musdb / "MP4"), read_folder(tmp_path / "kept"), strict=True
    ):
        np.testing.assert_array_equal(before.audio("ref.vocals"), after.audio("ref.vocals"))
    kept = (tmp_path / "kept" / TRACKS[0] / "ref.vocals.wav").read_bytes()
    assert kept[:4] == b"RIFF"


def test_one_stem_file_is_scored_by_its_name(musdb, tmp_path):
    [path] = (musdb / "MP4/test").glob("AM*")
    done = invoke("separate", path, "-o", tmp_path / "est")
    assert done.exit_code == 0, done.output
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / path.name).symlink_to(path)
    done = invoke("eval", tmp_path / "est", tmp_path / "ref", "--median-of-median", "--json")
    assert done.exit_code == 0, done.output
    assert [item["key"] for item in json.loads(done.stdout)["items"]] == [TRACKS[0]] * 2


def test_a_track_that_is_not_there_is_an_error(musdb):
    path = musdb / f"MP4/test/{TRACKS[0]}.stem.mp4#5"
    with pytest.raises(SepcliError, match="5 audio tracks; they are counted from 0 on"):
        audio.read(path)
