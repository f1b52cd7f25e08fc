"""The data recipes, on made-up packages and miniatures of the corpora; nothing is fetched."""

import io
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.recordings import pools
from sepcli.recordings.packing import speaker_of

RECIPES = Path(__file__).parent.parent / "recipes"

# The tools of POSIX that the scripts use; ffmpeg is there when a test puts it there.
TOOLS = """
    sh awk basename cat cp cut dirname find grep head ln ls mkdir mv rm rmdir sed sort tail touch wc
"""

APT_GET = """#!/bin/sh
case $3 in missing-*|torcs-data) echo "E: Unable to locate package $3" >&2; exit 100;; esac
echo $3 >>"$PACKAGES/fetched"
echo $3 >$3_1%3a2-3_all.deb
"""
APT_CACHE = """#!/bin/sh
[ -e "$PACKAGES/no-lists" ] && exit 0
case $2 in wesnoth-1) printf 'wesnoth-1.14-data\\nwesnoth-1.16-data\\nwesnoth-1.16-core\\n';;
*) echo $2;; esac
"""
DPKG_DEB = """#!/bin/sh
case $1 in -f) echo 1:2-3;; -x) cp -R "$PACKAGES/$(cat "$2")/." "$3";; esac
"""
# Stands for both directions: what it decodes is copied, to every output it is given.
FFMPEG = """#!/bin/sh
for word; do
    case $before in -i) input=$word;; esac
    case $word in *.flac|*.wav) cp "$input" "$word";; esac
    before=$word
done
"""
# Kills all of the script, as a power cut would, before the move whose turn it is.
FATAL_MV = """#!/bin/sh
echo mv >>"$PACKAGES/moves"
[ $(wc -l <"$PACKAGES/moves") -ne "$DEADLY" ] || kill -9 0
exec "$MV" "$@"
"""

GAMES = "usr/share/games"
SOUNDS = "usr/share/asterisk/sounds"
FISH = f"{GAMES}/fillets-ng/sound"
HORIZONS = "usr/share/unknown-horizons/content/audio"
SONGS = f"{GAMES}/fretsonfire/data/songs/muldjord"
FILES = {
    "fillets-ng-data-cs": {
        f"{FISH}/air/cs/let-m-one.ogg": "speech/fillets-cs-m/air-cs-let-m-one.ogg",
        f"{FISH}/air/cs/let-v-two.ogg": "speech/fillets-cs-v/air-cs-let-v-two.ogg",
        f"{FISH}/air/cs/let-x-crab.ogg": None,
    },
    "klettres-data": {
        "usr/share/klettres/da/alpha/a.ogg": "speech/klettres-da/alpha-a.ogg",
        "usr/share/klettres/da/syllab/a.ogg": "speech/klettres-da/syllab-a.ogg",
        "usr/share/klettres/uk/alpha/a.ogg": None,
        "usr/share/klettres/id/sounds.xml": None,
    },
    "asterisk-core-sounds-en-g722": {
        f"{SOUNDS}/en_US_f_Allison/digits/1.g722": "speech/asterisk-en_US_f_Allison/digits-1.flac",
        f"{SOUNDS}/en_US_f_Allison/silence/1.g722": None,
        f"{SOUNDS}/en_US_f_Allison/beep.g722": None,
    },
    "sonic-pi-samples": {
        "usr/share/sonic-pi/samples/vinyl_hiss.flac": "noise/sonic-pi-samples/vinyl_hiss.flac",
        "usr/share/sonic-pi/samples/ambi_choir.flac": None,
    },
    "tuxpaint-stamps-default": {
        "usr/share/tuxpaint/stamps/animals/birds/crow.ogg": (
            "noise/tuxpaint-stamps-default/animals-birds-crow.ogg"
        ),
        "usr/share/tuxpaint/stamps/animals/birds/crow_desc.ogg": None,
        "usr/share/tuxpaint/stamps/animals/birds/crow_desc_fr.ogg": None,
        "usr/share/tuxpaint/stamps/symbols/math/1.ogg": None,
    },
    "supertuxkart-data": {
        f"{GAMES}/supertuxkart/data/sfx/rain.ogg": "noise/supertuxkart-data/rain.ogg",
        f"{GAMES}/supertuxkart/data/sfx/sara_airport_pa.ogg": None,
        f"{GAMES}/supertuxkart/data/music/cave.ogg": "music/supertuxkart-data/cave.ogg",
    },
    "lincity-ng-data": {
        f"{GAMES}/lincity-ng/sounds/Mill1.wav": "noise/lincity-ng-data/Mill1.wav",
    },
    "wesnoth-1.16-data": {
        f"{GAMES}/wesnoth/1.16/data/core/sounds/ambient/ship.ogg": (
            "noise/wesnoth-1.16-data/ambient-ship.ogg"
        ),
        f"{GAMES}/wesnoth/1.16/data/core/sounds/human-die-1.ogg": None,
    },
    "widelands-data": {
        f"{GAMES}/widelands/data/sound/farm/ox_00.ogg": "noise/widelands-data/farm-ox_00.ogg",
        f"{GAMES}/widelands/data/music/menu.ogg": "music/widelands-data/menu.ogg",
    },
    "unknown-horizons": {
        f"{HORIZONS}/sounds/smith.ogg": "noise/unknown-horizons/smith.ogg",
        f"{HORIZONS}/sounds/events/new_era.ogg": None,
        f"{HORIZONS}/voice/en/0/new_world/0.ogg": None,
        f"{HORIZONS}/music/a.ogg": "music/unknown-horizons/a.ogg",
    },
    "asterisk-moh-opsound-g722": {
        "usr/share/asterisk/moh/cold_day.g722": "music/asterisk-moh-opsound-g722/cold_day.flac",
    },
    "fretsonfire-songs-muldjord": {
        f"{SONGS}/chaos_god/guitar.ogg": "stems/chaos_god/guitar.ogg",
        f"{SONGS}/chaos_god/song.ogg": "stems/chaos_god/rest.ogg",
        f"{SONGS}/armygeddon/guitar.ogg": "stems/armygeddon/guitar.ogg",
        f"{SONGS}/armygeddon/song.ogg": "stems/armygeddon/rest.ogg",
        f"{SONGS}/internal_degeneration/guitar.ogg": None,
        f"{SONGS}/internal_degeneration/song.ogg": None,
    },
}


def recording(form):
    """Half a second of a loud tone at 16 kHz, as the bytes of a file."""
    tone = 0.5 * np.sin(np.arange(8000) * 0.05)
    data = io.BytesIO()
    soundfile.write(data, tone, 16000, format=form)
    return data.getvalue()


def fill(folder, names):
    """Write a recording to every name below the folder; what the extension says, or FLAC."""
    contents = {form: recording(form) for form in ("OGG", "WAV", "FLAC")}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        form = path.suffix[1:].upper()
        path.write_bytes(contents[form if form in contents else "FLAC"])


def tree(folder):
    """{path: contents} of all files in a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Machine:
    """A PATH of its own for the scripts, with the given commands beside the tools of POSIX."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool))

    def add(self, name, script):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def run(self, script, *arguments, **environment):
        return subprocess.run(
            [self.bin / "sh", RECIPES / script, *arguments],
            env={"PATH": str(self.bin), "PACKAGES": str(self.folder / "packages"), **environment},
            start_new_session=True,  # so that a test may kill all of it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def debian(machine):
    """A machine where apt knows the packages in FILES, and that has ffmpeg."""
    for package, files in FILES.items():
        root = machine.folder / "packages" / package
        fill(root, [name for name in files if not name.endswith(".xml")])
        notice = root / f"usr/share/doc/{package}/copyright"
        notice.parent.mkdir(parents=True)
        notice.write_text(f"{package} is free\n")
    (machine.folder / "packages/klettres-data/usr/share/klettres/id").mkdir()
    (machine.folder / f"packages/lincity-ng-data/{GAMES}/lincity-ng/sounds/none.wav").touch()
    for name, script in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg-deb", DPKG_DEB)):
        machine.add(name, script)
    machine.add("ffmpeg", FFMPEG)
    return machine


def get(debian, *packages, **environment):
    """(process, folder) of the script for Debian; without packages, for those in FILES."""
    folder = debian.folder / "my data"
    names = packages or [name.replace("wesnoth-1.16", "wesnoth") for name in FILES]
    return debian.run("data-debian.sh", folder, *names, **environment), folder


@pytest.mark.parametrize("name", ["data-debian.sh", "data-prepare.sh"])
def test_the_scripts_are_executable_posix_scripts_that_show_how_to_use_them(name, machine):
    script = RECIPES / name
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    process = machine.run(name)
    assert process.returncode == 2
    assert name in process.stderr
    assert process.stdout == ""


def test_packages_become_speech_noise_music_and_stems_with_the_voices_left_out(debian):
    process, folder = get(debian)
    assert process.returncode == 0, process.stderr
    made = tree(folder)
    wanted = {to: (package, name) for package in FILES for name, to in FILES[package].items() if to}
    rows = {f"{to}\t{package}\t1:2-3" for to, (package, _) in wanted.items()}
    assert set(made.pop("MANIFEST").decode().splitlines()) == rows
    for package in FILES:
        assert made.pop(f"LICENSES/{package}").decode() == f"{package} is free\n"
    assert set(made) == set(wanted)
    for to, (package, name) in wanted.items():
        assert made[to] == (debian.folder / "packages" / package / name).read_bytes()
    assert process.stdout == ""
    assert "fillets-ng-data-cs 1:2-3: 2 files\n" in process.stderr


def test_what_it_made_is_what_mix_reads(debian):
    _, folder = get(debian, "klettres-data", "lincity-ng-data", "widelands-data")
    arguments = ["mix", "-n", "2", "--speech", folder / "speech", "--noise", folder / "noise"]
    arguments += ["--noise", f"{folder / 'music'}=0.1", "-o", debian.folder / "out"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert (debian.folder / "out/000001/ref.speech.wav").exists()


def test_a_second_run_fetches_nothing_and_changes_nothing(debian):
    packages = ("lincity-ng-data", "fretsonfire-songs-muldjord", "wesnoth-data")
    _, folder = get(debian, *packages)
    fetched, made = (debian.folder / "packages/fetched").read_text(), tree(folder)
    process, _ = get(debian, *packages)
    assert process.returncode == 0
    assert (process.stdout, process.stderr) == ("", "")
    assert (debian.folder / "packages/fetched").read_text() == fetched
    assert tree(folder) == made


@pytest.mark.parametrize("move", [1, 3, 4, 6, 12, 13, 14])
def test_a_run_that_is_killed_leaves_whole_packages_and_the_next_one_goes_on(debian, move):
    packages = ("lincity-ng-data", "fretsonfire-songs-muldjord", "klettres-data")
    debian.add("mv", FATAL_MV)
    real = {"MV": shutil.which("mv")}
    process, folder = get(debian, *packages, DEADLY=str(move), **real)
    assert process.returncode == -signal.SIGKILL
    for song in folder.glob("stems/*"):
        assert sorted(os.listdir(song)) == ["guitar.ogg", "rest.ogg"]
    if (folder / "MANIFEST").exists():
        for row in (folder / "MANIFEST").read_text().splitlines():
            name, package, _ = row.split("\t")
            assert (folder / name).exists()
            assert (folder / "LICENSES" / package).exists()
    process, _ = get(debian, *packages, DEADLY="0", **real)
    assert process.returncode == 0, process.stderr
    made = tree(folder)
    listed = [row.split("\t")[0] for row in made["MANIFEST"].decode().splitlines()]
    wanted = [to for package in packages for to in FILES[package].values() if to]
    assert sorted(listed) == sorted(wanted)
    assert set(made) == {"MANIFEST", *wanted, *(f"LICENSES/{package}" for package in packages)}


def test_without_ffmpeg_it_goes_on_without_telephone_recordings_and_says_so_once(debian):
    (debian.bin / "ffmpeg").unlink()
    noise, speech = "lincity-ng-data", "asterisk-core-sounds-en-g722"
    process, folder = get(debian, speech, noise, "asterisk-moh-opsound-g722")
    assert process.returncode == 0
    [line] = [line for line in process.stderr.splitlines() if "ffmpeg" in line]
    assert f"without {speech} asterisk-moh-opsound-g722; install it" in line
    assert (folder / "noise/lincity-ng-data/Mill1.wav").exists()
    assert not list(folder.glob("*/*asterisk*"))
    debian.add("ffmpeg", FFMPEG)
    get(debian, speech)
    assert (folder / "speech/asterisk-en_US_f_Allison/digits-1.flac").exists()


def test_a_package_that_cannot_be_fetched_is_named_and_the_others_are_done(debian):
    process, folder = get(debian, "torcs-data", "lincity-ng-data")
    assert process.returncode == 1
    assert "torcs-data: E: Unable to locate package torcs-data\n" in process.stderr
    assert (folder / "noise/lincity-ng-data/Mill1.wav").exists()


def test_a_package_with_another_layout_is_an_error_that_leaves_nothing(debian):
    shutil.rmtree(debian.folder / f"packages/lincity-ng-data/{GAMES}")
    process, folder = get(debian, "lincity-ng-data")
    assert process.returncode == 1
    assert f"lincity-ng-data 1:2-3: has no {GAMES}/lincity-ng/sounds;" in process.stderr
    assert tree(folder) == {}


def test_missing_package_lists_and_missing_tools_are_one_line_that_helps(debian):
    (debian.folder / "packages/no-lists").touch()
    process, _ = get(debian)
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "data-debian.sh: apt has no package lists; run: sudo apt-get update"
    ]
    (debian.bin / "dpkg-deb").unlink()
    process, _ = get(debian)
    assert process.returncode == 1
    assert (
        process.stderr == "data-debian.sh: no dpkg-deb here; run this on Debian or its relatives\n"
    )


def test_an_unknown_package_is_refused_before_anything_is_fetched(debian):
    process, folder = get(debian, "lincity-ng-data", "lincity")
    assert process.returncode == 1
    assert "lincity: not known here; choose from fillets-ng-data-cs" in process.stderr
    assert tree(folder) == {}


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
