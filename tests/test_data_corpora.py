"""The script that makes lists of the usual corpora, on miniatures of them."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.recordings import pools
from sepcli.recordings.packing import speaker_of
from tests.machines import FFMPEG, FILES, RECIPES, Machine, fill


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


MINIATURES = {
    "dns": {
        "datasets_fullband/clean_fullband/read_speech/a b.wav": "speech.txt",
        "datasets_fullband/clean_fullband/vctk/p1/c.flac": "speech.txt",
        "datasets_fullband/noise_fullband/n.wav": "noise.txt",
        "datasets_fullband/impulse_responses/SLR28/RIRS_NOISES/real_rirs_isotropic_noises/"
        "air_type1_rir_1.wav": "rir.txt",
        "datasets_fullband/impulse_responses/SLR28/RIRS_NOISES/real_rirs_isotropic_noises/"
        "RWCP_type1_noise_1.wav": None,
        "datasets_fullband/dev_testset/clean/x.wav": None,
        "datasets/test_set/synthetic/no_reverb/clean/x.wav": None,
    },
    "ears": {
        "p001/rainbow_01_regular.wav": "speech-train.txt",
        "p001/nonverbal_01.wav": None,
        "p099/sentences_01_loud.wav": "speech-train.txt",
        "p100/rainbow_01_regular.wav": "speech-valid.txt",
        "p107/rainbow_01_regular.wav": "speech-test.txt",
    },
    "librispeech": {
        "LibriSpeech/train-clean-100/19/198/19-198-0000.flac": "speech-train.txt",
        "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac": "speech-valid.txt",
        "LibriSpeech/test-other/367/130732/367-130732-0000.flac": "speech-test.txt",
    },
    "musan": {
        "speech/librivox/speech-librivox-0000.wav": "speech.txt",
        "noise/free-sound/noise-free-sound-0000.wav": "noise.txt",
        "music/fma/music-fma-0000.wav": "music.txt",
    },
    "slr26": {"simulated_rirs_16k/smallroom/Room001/Room001-00001.wav": "rir.txt"},
    "slr28": {
        "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav": "rir.txt",
        "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_1.wav": "rir.txt",
        "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_1.wav": "noise.txt",
        "RIRS_NOISES/pointsource_noises/noise-free-sound-0000.wav": "noise.txt",
    },
    "vctk": {
        "wav48_silence_trimmed/p225/p225_001_mic1.flac": "speech.txt",
        "wav48_silence_trimmed/p225/p225_001_mic2.flac": None,
        "VCTK-Corpus/wav48/p226/p226_001.wav": "speech.txt",
    },
    "wham": {
        "wham_noise/tr/01.wav": "noise-train.txt",
        "wham_noise/cv/02.wav": "noise-valid.txt",
        "wham_noise/tt/03.wav": "noise-test.txt",
    },
}


@pytest.mark.parametrize("corpus", MINIATURES)
def test_a_corpus_becomes_lists_of_its_recordings_and_of_nothing_else(corpus, machine):
    files, out = MINIATURES[corpus], machine.folder / "lists of it"
    fill(machine.folder / corpus, files)
    for _ in range(2):  # the second time over the first
        process = machine.run("data-prepare.sh", corpus, machine.folder / corpus, out)
        assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(out)) == sorted({name for name in files.values() if name})
    for name in os.listdir(out):
        wanted = sorted(str(machine.folder / corpus / f) for f, to in files.items() if to == name)
        assert pools.find_audio(str(out / name)) == wanted
        assert f"{out / name}: {len(wanted)} recordings\n" in process.stderr


@pytest.mark.parametrize(
    ("corpus", "speakers"),
    [
        ("librispeech", {"19", "84", "367"}),
        ("vctk", {"p225", "p226"}),
        ("ears", {"p001", "p099", "p100", "p107"}),
    ],
)
def test_the_documented_patterns_find_the_speakers(corpus, speakers):
    readme = (RECIPES / "README.md").read_text()
    pattern = re.search(rf"^\| `{corpus} .*`(.*)` \|$", readme, re.MULTILINE)[1]
    for names in (MINIATURES[corpus], [f"/data/{name}" for name in MINIATURES[corpus]]):
        assert {speaker_of(name, pattern) for name in names} == speakers


def test_the_readme_names_every_corpus_and_package():
    readme = (RECIPES / "README.md").read_text()
    for corpus in (*MINIATURES, "musdb18-hq", "musdb18"):
        assert f"| `{corpus} " in readme
    for package in FILES:
        stem = re.sub("-(cs|nl|en-g722|1.16-data)$", "-", package)
        assert f"`{stem}" in readme, package


def test_the_lists_of_a_corpus_are_what_mix_reads(machine):
    fill(machine.folder / "dns", MINIATURES["dns"])
    lists = machine.folder / "lists"
    machine.run("data-prepare.sh", "dns", machine.folder / "dns", lists)
    arguments = ["mix", "-n", "2", "--rir-prob", "1", "-o", str(machine.folder / "out")]
    for kind in ("speech", "noise", "rir"):
        arguments += [f"--{kind}", str(lists / f"{kind}.txt")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output


MUSDB_STEMS = ("mixture", "drums", "bass", "other", "vocals")
MUSDB_TRACKS = {
    "train/A Classic Education - NightOwl": "train",
    "train/Johnny Lokke - Promises & Lies": "valid",
    "test/AM Contra - Heart Peripheral": "test",
}


@pytest.mark.parametrize("corpus", ["musdb18-hq", "musdb18"])
def test_musdb_becomes_tracks_for_training_validation_and_test(corpus, machine):
    root, out = machine.folder / corpus, machine.folder / "my tracks"
    for track in MUSDB_TRACKS:
        hq = [f"{track}/{stem}.wav" for stem in MUSDB_STEMS]
        fill(root, hq if corpus == "musdb18-hq" else [f"{track}.stem.mp4"])
    machine.add("ffmpeg", FFMPEG)
    for _ in range(2):
        process = machine.run("data-prepare.sh", corpus, root, out)
        assert process.returncode == 0, process.stderr
    found = {f"{path.parent.name}/{path.name}" for path in out.glob("*/*")}
    assert found == {f"{part}/{Path(track).name}" for track, part in MUSDB_TRACKS.items()}
    for path in out.glob("*/*"):
        assert sorted(os.listdir(path)) == sorted(f"{stem}.wav" for stem in MUSDB_STEMS)
    result = CliRunner().invoke(
        main, ["mix", "-n", "1", "--stems", str(out / "train"), "-o", str(machine.folder / "mixed")]
    )
    assert result.exit_code == 0, result.output
    assert (machine.folder / "mixed/000000/ref.vocals.wav").exists()


def test_musdb18_needs_ffmpeg_and_says_so(machine):
    (machine.folder / "musdb18").mkdir()
    process = machine.run("data-prepare.sh", "musdb18", machine.folder / "musdb18", "out")
    assert process.returncode == 1
    assert "no ffmpeg to decode AAC; install it, or take musdb18-hq" in process.stderr


@pytest.mark.parametrize(
    ("corpus", "path", "message"),
    [
        ("dnss", ".", "dnss: not a corpus this knows; choose from dns ears"),
        ("dns", "nowhere", "nowhere: no such folder; name the one with dns in it"),
        ("dns", ".", "does not look like dns; name the folder that has its parts in it"),
        ("musdb18-hq", ".", "does not look like musdb18-hq"),
    ],
)
def test_a_wrong_corpus_or_folder_is_one_line_that_helps(corpus, path, message, machine):
    (machine.folder / "empty").mkdir()
    path = machine.folder / "empty" / path
    process = machine.run("data-prepare.sh", corpus, path, machine.folder / "out")
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert message in line
