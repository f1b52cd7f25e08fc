"""The data recipes, on made-up packages and miniatures of the corpora; nothing is fetched."""

import os
import shutil
import signal

import pytest
from click.testing import CliRunner

from sepcli.cli import main
from tests.machines import FFMPEG, FILES, GAMES, RECIPES, Machine, fill

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


# Kills all of the script, as a power cut would, before the move whose turn it is.
FATAL_MV = """#!/bin/sh
echo mv >>"$PACKAGES/moves"
[ $(wc -l <"$PACKAGES/moves") -ne "$DEADLY" ] || kill -9 0
exec "$MV" "$@"
"""


def tree(folder):
    """{path: contents} of all files in a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


@pytest.mark.parametrize("name", ["data-debian.sh", "data-parts.sh", "data-prepare.sh"])
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
