"""`sepcli mix` with recordings that cannot be read: others are drawn, and each is named once."""

import json
import tarfile

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.mixing.mixtures import Mixer, draw_among_good
from sepcli.mixing.specs import MixtureSpec

RATE = 8000
QUICK = ["--duration", "0.3", "--sample-rate", RATE]


def run(*args):
    return CliRunner().invoke(main, ["mix", *map(str, args), *map(str, QUICK)])


def write(path, seed=0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal((RATE, channels))
    soundfile.write(path, noise, RATE, subtype="FLOAT")


def empty(path):
    path.write_bytes(b"")


def no_sound(path):
    path.write_bytes(b"<html>404 Not Found</html>" * 10)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:9000])


def not_finite(path):
    """A few samples in the middle of it, so that most stretches can be read."""
    signal, rate = soundfile.read(path, dtype="float32")
    signal[4000:4010] = np.nan
    soundfile.write(path, signal, rate, subtype="FLOAT")


damages = pytest.mark.parametrize("damage", [empty, no_sound, cut_off, not_finite])
KINDS = {  # what to mix, what is damaged
    "speech": (["--speech", "in/speech", "--noise", "in/noise"], "in/speech/s3/a.wav"),
    "noise": (["--speech", "in/speech", "--noise", "in/noise"], "in/noise/s3/a.wav"),
    "rir": (["--speech", "in/speech", "--rir", "in/rir", "--rir-prob", 1], "in/rir/s3/a.wav"),
    "speakers": (["--speech", "in/speech", "--interferers", "1", "--enroll"], "in/speech/s3"),
    "songs": (["--stems", "in/songs", "--downmix"], "in/songs/s3/vocals.wav"),
    "remixed songs": (
        ["--stems", "in/songs", "--downmix", "--augment", "remix"],
        "in/songs/s3/vocals.wav",
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Recordings of all kinds, two of each of four speakers, noises, rooms; four songs."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        for what in ("speech", "noise", "rir"):
            for name in "ab":
                write(tmp_path / "in" / what / f"s{number}" / f"{name}.wav", number)
        for stem in ("vocals", "other"):
            write(tmp_path / "in" / "songs" / f"s{number}" / f"{stem}.wav", number)
    return tmp_path


def damaged(here, kind, damage):
    """Damage what there is of a kind: a file, or all files of a speaker; returns them."""
    place = here / KINDS[kind][1]
    paths = sorted(place.iterdir()) if place.is_dir() else [place]
    for path in paths:
        damage(path)
    return [str(path.relative_to(here)) for path in paths]


@kinds
@damages
def test_a_bad_recording_is_named_once_and_all_samples_are_made(here, kind, damage):
    bad = damaged(here, kind, damage)
    result = run(*KINDS[kind][0], "-n", 20, "-o", "out.tar")
    *failed, wrote, error = result.stderr.splitlines()
    assert result.exit_code == 1
    assert 1 <= len(failed) <= len(bad)
    assert all(line.startswith(tuple(f"Failed: {path}: " for path in bad)) for line in failed)
    assert wrote == "Wrote 20 samples to out.tar"
    assert error.startswith(f"Error: {len(failed)} recording")
    assert error.endswith("could not be used, and others were drawn instead; see above")
    with tarfile.open("out.tar") as archive:
        made = [json.load(archive.extractfile(m)) for m in archive if m.name.endswith(".json")]
    assert [record["index"] for record in made] == list(range(20))
    if damage is not not_finite:
        assert not any(path in json.dumps(made) for path in bad)


@kinds
def test_what_comes_out_depends_on_the_seed_and_the_recordings_alone(here, kind):
    """Neither on what was drawn before, nor on who draws it."""
    damaged(here, kind, not_finite)
    args = (*KINDS[kind][0], "--seed", 5)
    assert run(*args, "-n", 12, "-o", "one.tar").stderr.count("Failed") > 0
    run(*args, "-n", 12, "-o", "two.tar", "-j", 2)
    with open("one.tar", "rb") as one, open("two.tar", "rb") as two:
        assert one.read() == two.read()


def test_an_item_is_the_same_alone_as_after_others(here):
    damaged(here, "speech", empty)
    spec = MixtureSpec(speech="in/speech", noise="in/noise", sample_rate=RATE, duration_s=0.3)
    one = Mixer(spec)
    in_order = [draw_among_good(one, 0, index)[0] for index in range(12)]
    for index in (11, 7, 3):
        alone, _ = draw_among_good(Mixer(spec), 0, index)
        assert alone == in_order[index]


@pytest.mark.parametrize("damage", [empty, no_sound, cut_off])
@kinds
def test_where_nothing_can_be_read_the_reason_is_one_line(here, kind, damage):
    what = KINDS[kind][1].split("/")[1]
    for path in (here / "in" / what).rglob("*.wav"):
        damage(path)
    result = run(*KINDS[kind][0], "-n", 20, "-o", "out.tar")
    assert result.exit_code == 1
    assert not (here / "out.tar").exists()
    lines = result.stderr.splitlines()
    assert 2 <= len(lines) <= 9
    assert all(line.startswith(f"Failed: in/{what}/") for line in lines[:-1])
    assert lines[-1].startswith("Error: ")


def test_hundreds_of_bad_recordings_are_counted(here):
    for number in range(40):
        (here / "in" / "speech" / f"bad-{number}.wav").touch()
    result = run("--speech", "in/speech", "-n", 60, "-o", "out")
    lines = result.stderr.splitlines()
    assert sum(line.startswith("Failed: ") for line in lines) == 21
    assert lines[20].endswith(" more")
    assert lines[21] == "Wrote 60 samples to out"
