"""Kept spectrograms of stems: what they are, that they are made once, and what decides."""

import json
import multiprocessing
import os
import pickle
import shutil
from functools import reduce
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.data import datasets
from sepcli.data.spectra import SpectraMixer, SpectraSpec
from sepcli.errors import SepcliError
from sepcli.mixing.music import StemMixer, StemSpec
from sepcli.nn.spectral import CentredStft
from sepcli.recordings.packing import Packing, PackSpec
from sepcli.training import validation

RATE = 8000
STFT = {"window": 512, "hop": 128}
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Three songs of four stems each, stereo noise of 2 s."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for song in ("one", "two", "three"):
        (folder / song).mkdir()
        for stem in STEMS:
            noise = 0.1 * rng.standard_normal((2 * RATE, 2))
            soundfile.write(folder / song / f"{stem}.wav", noise, RATE, subtype="FLOAT")
    return folder


def spec(songs, kept, **settings):
    common = {"duration_s": 0.5, "sample_rate": RATE, **STFT, "folder": kept}
    return SpectraSpec(**{**common, "stems": songs, **settings})


def transform(sound):
    """torch's spectrogram (C, F, N) of (T, C)."""
    window = torch.hann_window(STFT["window"], dtype=torch.float64)
    return torch.stft(
        torch.from_numpy(sound.T.copy()), STFT["window"], STFT["hop"], window=window,
        return_complex=True,
    ).numpy()  # fmt: skip


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def age(folder):
    """A time of change long ago, so that a file made again is seen."""
    for path in files(folder):
        os.utime(path, ns=(1, 1))


# --- what they are


def test_an_item_is_a_piece_of_the_transforms_of_its_song(songs, tmp_path):
    for index in range(5):
        item = SpectraMixer(spec(songs, tmp_path)).draw(0, index)
        assert item.mix.shape == (2, 257, 1 + 4000 // 128)
        for name, ref in item.refs.items():
            about = item.record["sources"][name]
            whole = transform(soundfile.read(f"{about['song']}/{name}.wav")[0])
            expected = whole[..., about["start"] : about["stop"]]
            assert np.abs(ref - expected).max() < 5e-4 * np.abs(expected).max()  # float16
        assert about["stop"] <= whole.shape[-1]


def test_magnitudes_of_a_mixture_of_songs_are_those_of_its_sound(songs, tmp_path):
    item = SpectraMixer(spec(songs, tmp_path, augment="remix,gain", duration_s=2)).draw(0, 0)
    sources = item.record["sources"]
    assert len({about["song"] for about in sources.values()}) > 1
    sound = sum(
        about["factor"] * soundfile.read(f"{about['song']}/{name}.wav")[0]
        for name, about in sources.items()
    )
    expected = np.abs(transform(sound))
    error = np.abs(np.abs(item.mix) - expected)
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 3e-4


@pytest.mark.parametrize("augment", ["", "swap", "gain", "polarity", "swap,gain,polarity,remix"])
def test_augmentations_are_those_of_the_stems_of_the_same_item(songs, tmp_path, augment):
    common = {"augment": augment, "mixture_gain_db": (-6, 6)}
    plain = SpectraMixer(spec(songs, tmp_path))
    item = SpectraMixer(spec(songs, tmp_path, **common)).draw(0, 3)
    np.testing.assert_array_equal(item.mix, reduce(np.add, item.refs.values()))
    sound = StemSpec(stems=songs, duration_s=0.5, sample_rate=RATE, peak=0, **common)
    for name, about in StemMixer(sound).draw(0, 3).record["sources"].items():
        ours = item.record["sources"][name]
        assert [ours[key] for key in ("song", "factor")] == [about[k] for k in ("song", "factor")]
        assert ours.get("swap") == about.get("swap")
        if "remix" not in augment:
            expected = about["factor"] * plain.draw(0, 3).refs[name]
            expected = expected[::-1] if ours.get("swap") else expected
            np.testing.assert_allclose(item.refs[name], expected, rtol=1e-6, atol=1e-6)


def test_accompaniment_is_one_file_and_short_songs_end_in_silence(songs, tmp_path):
    about = {"targets": "vocals,accompaniment", "duration_s": 3, "downmix": True}
    item = SpectraMixer(spec(songs, tmp_path, **about)).draw(0, 0)
    assert [path.name.partition("-")[0] for path in files(tmp_path)] == ["accompaniment", "vocals"]
    song = item.record["sources"]["vocals"]["song"]
    rest = sum(soundfile.read(f"{song}/{name}.wav")[0] for name in STEMS[1:])
    expected = transform(rest.mean(axis=1, keepdims=True))
    frames = expected.shape[-1]
    found = item.refs["accompaniment"]
    assert np.abs(found[..., :frames] - expected).max() < 5e-4 * np.abs(expected).max()
    assert not found[..., frames:].any()


def test_in_a_remix_the_accompaniment_is_of_instruments_of_several_songs(songs, tmp_path):
    about = {"targets": "vocals,accompaniment", "augment": "remix,gain", "duration_s": 2}
    item = SpectraMixer(spec(songs, tmp_path, **about)).draw(0, 0)
    sources = item.record["sources"]
    assert len({sources[name]["song"] for name in STEMS[1:]}) > 1
    sound = sum(
        sources[name]["factor"] * soundfile.read(f"{sources[name]['song']}/{name}.wav")[0]
        for name in STEMS[1:]
    )
    expected = np.abs(transform(sound))
    error = np.abs(item.refs["accompaniment"]) - expected
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 3e-4


def test_songs_may_be_in_a_pack(songs, tmp_path):
    list(Packing([], [songs], PackSpec(dtype="float32", val_fraction=0)).run(tmp_path / "songs.h5"))
    packed, files_ = (
        SpectraMixer(spec(source, tmp_path / "kept", augment="remix")).draw(0, 0).mix
        for source in (tmp_path / "songs.h5", songs)
    )
    np.testing.assert_array_equal(packed, files_)
    assert len(files(tmp_path / "kept")) == 8


def test_a_song_of_another_rate_is_resampled(tmp_path):
    t = np.arange(2 * RATE) / (2 * RATE)
    for name in ("vocals", "drums"):
        (tmp_path / "in/song").mkdir(parents=True, exist_ok=True)
        sine = 0.1 * np.sin(2 * np.pi * 1000 * t)
        soundfile.write(tmp_path / f"in/song/{name}.wav", sine, 2 * RATE)
    mix = SpectraMixer(spec(tmp_path / "in", tmp_path / "kept")).draw(0, 0).mix
    assert set(np.abs(mix).argmax(axis=1).ravel()) == {1000 * 512 // RATE}


# --- made once, whole


def test_files_are_made_once_and_again_for_another_source_or_transform(songs, tmp_path):
    kept = tmp_path / "kept"
    for index in range(10):
        SpectraMixer(spec(songs, kept)).draw(0, index)
    assert len(files(kept)) == 12
    age(kept)
    for index in range(10):
        SpectraMixer(spec(songs, kept)).draw(0, index)
    assert all(path.stat().st_mtime_ns == 1 for path in files(kept))
    SpectraMixer(spec(songs, kept, hop=64)).draw(0, 0)
    assert len(files(kept)) == 16

    for name in ("vocals", "drums"):
        (tmp_path / "in/song").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"in/song/{name}.wav", np.full(RATE, 0.5), RATE)
    before = SpectraMixer(spec(tmp_path / "in", kept)).draw(0, 0).mix
    soundfile.write(tmp_path / "in/song/vocals.wav", np.full(RATE, 0.25), RATE)
    os.utime(tmp_path / "in/song/vocals.wav", ns=(5, 5))
    after = SpectraMixer(spec(tmp_path / "in", kept)).draw(0, 0).mix
    np.testing.assert_allclose(after[:, 0], 0.75 * before[:, 0], rtol=1e-3)


def test_what_a_killed_run_left_is_made_anew(songs, tmp_path):
    expected = SpectraMixer(spec(songs, tmp_path)).draw(0, 0).mix
    for cut, path in zip((0, 64, 5000, 80_000), files(tmp_path), strict=True):
        data = path.read_bytes()
        path.unlink()
        path.with_name(f"{path.name}.part").write_bytes(data[:cut])
    np.testing.assert_array_equal(SpectraMixer(spec(songs, tmp_path)).draw(0, 0).mix, expected)
    assert not any(path.name.endswith(".part") for path in files(tmp_path))
    for cut, path in zip((0, 64, 5000, 80_000), files(tmp_path), strict=True):
        os.truncate(path, cut)  # the machine went down
    np.testing.assert_array_equal(SpectraMixer(spec(songs, tmp_path)).draw(0, 0).mix, expected)


def _draw_all(mixer, connection):
    connection.send([mixer.draw(0, index).mix.sum() for index in range(6)])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 with threads about
def test_processes_share_the_work_and_the_files(songs, tmp_path):
    mixer = SpectraMixer(spec(songs, tmp_path / "a"))
    expected = [mixer.draw(0, index).mix.sum() for index in range(6)]
    assert len(pickle.dumps(mixer)) < 5000
    context = multiprocessing.get_context("fork")
    workers = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_draw_all, args=(SpectraMixer(spec(songs, tmp_path / "b")), theirs)
        )
        process.start()
        workers.append((ours, process))
    for ours, process in workers:
        assert ours.recv() == expected
        process.join(timeout=60)
    kept, again = files(tmp_path / "a"), files(tmp_path / "b")
    assert [path.name for path in again] == [path.name for path in kept]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in kept]


def test_a_folder_that_cannot_be_written_is_one_line(songs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SepcliError, match="file: a file, where a folder is needed"):
        SpectraMixer(spec(songs, tmp_path / "file")).draw(0, 0)


def test_a_stem_that_is_gone_is_one_line(songs, tmp_path):
    shutil.copytree(songs, tmp_path / "in")
    mixer = SpectraMixer(spec(tmp_path / "in", tmp_path / "kept"))
    for index in range(10):
        mixer.draw(0, index)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(SepcliError, match=r"\.wav: no such file"):
        mixer.draw(0, 0)


# --- as training data


def dataset(songs, kept, stft=(512, 128), **settings):
    section = {"kind": "spectrograms", "stems": str(songs), "folder": str(kept), "duration_s": 0.5}
    resolved = datasets.resolve(section | settings, section="data", items=0, seed=1)
    about = {"section": "data", "sample_rate": RATE, "sources": ("vocals", "bass")}
    return datasets.build(resolved, **about, stft=stft)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 with threads about
def test_workers_and_entering_in_the_middle_change_no_spectrogram(songs, tmp_path):
    data = dataset(songs, tmp_path, augment=["remix", "gain", "swap"])
    whole = list(islice(datasets.batches(data, 2, seed=0), 3))
    resumed = islice(datasets.batches(data, 2, seed=0, start=1, workers=2), 2)
    for (mix, refs), (other_mix, other_refs) in zip(whole[1:], resumed, strict=True):
        assert torch.equal(mix, other_mix)
        assert torch.equal(refs, other_refs)
    assert mix.dtype == refs.dtype == torch.complex64
    assert mix.shape == (2, 2, 257, 32)
    assert refs.shape == (2, 2, 2, 257, 32)


def test_where_sound_is_needed_there_are_no_spectrograms(songs, tmp_path):
    with pytest.raises(SepcliError, match=r"data\.kind spectrograms: sound is needed here; use s"):
        dataset(songs, tmp_path, stft=None)


def test_the_quality_of_a_transform_is_that_of_the_sound():
    stft = CentredStft(512, 128)
    generator = torch.Generator().manual_seed(0)
    refs, errors = torch.randn(2, 3, 2, 2, 2 * RATE, generator=generator)  # (B, S, C, T) each
    estimates = 0.5 * refs + 0.1 * errors
    signals = estimates, refs, refs.sum(1)
    spectra = [stft.analyse(x) for x in signals]
    for measure in validation.MEASURES.values():
        of_sound = validation.measured(measure, *signals)
        found = validation.measured(measure, *spectra)
        torch.testing.assert_close(found, of_sound, atol=0.1, rtol=0)


def test_a_model_between_transforms_is_trained_on_spectrograms(songs, tmp_path):
    stems = f"{{stems: {songs}, duration_s: 0.5, targets: [vocals, accompaniment]"
    (tmp_path / "umx.yaml").write_text(
        "model: {name: open_unmix, window: 512, hop: 128, hidden: 8, layers: 0,\n"
        "        sample_rate: 8000}\n"
        "data:\n"
        f"  train: {stems}, kind: spectrograms, folder: {tmp_path}/kept, augment: [remix]}}\n"
        f"  valid: {stems}, kind: stems, items: 2}}\n"
        "train: {steps: 30, batch: 4, warmup: 1, log_every: 10, lr: 0.02, ema: 0.5,\n"
        "        loss: {magnitude: 1}}\n"
    )
    run = ["train", f"{tmp_path}/umx.yaml", "-o", f"{tmp_path}/run", "-q"]
    before = sorted(tmp_path.rglob("*"))
    assert CliRunner().invoke(main, [*run, "--dry-run"]).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 0, result.output
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]
    assert len(files(tmp_path / "kept")) == 3 * (4 + 1)  # also the sum, for statistics
    result = CliRunner().invoke(
        main, [*run, "--overwrite", "--set", "data.valid.kind=spectrograms"]
    )
    assert result.exit_code == 1
    assert "data.valid.kind spectrograms: sound is needed here; use stems" in result.output
    result = CliRunner().invoke(
        main, [*run, "--overwrite", "--set", "train.loss={si_sdr: 1, l1: 1}"]
    )
    assert result.exit_code == 1
    assert "train.loss si_sdr needs sound; for spectrograms choose from l1, magn" in result.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": ""}, "folder must be a folder to keep spectrograms in"),
        ({"window": 511}, "window must be even, 16 to 16384, not 511"),
        ({"hop": 0}, "hop must be 1 or more"),
        ({"augment": "gain,pitch"}, "augment must be swap, polarity, remix or gain for spectrogr"),
        ({"augment": "louder"}, "augment: unknown 'louder'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SepcliError, match=message):
        SpectraSpec(**{"stems": "x", "folder": "y", **settings})
