"""Every example of README and docs is run, in a real shell, on small files of the same names."""

import os
import re
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import torch

import sepcli
from sepcli import cli
from sepcli.mixing import synthetic
from sepcli.models import MODELS, build, modelfile
from tests.models import randomise
from tests.shell import Shell

ROOT = Path(sepcli.__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FAILS = {"--check": 1, "--fail-under": 1}  # of these a failure is the answer, where it is one
PROGRAMS = {  # what stands for programs of other people
    "arecord": "head -c 64000 /dev/zero",
    "sox": "cat > /dev/null",
    "aplay": "cat > /dev/null",
    "make": "true",
    "sbatch": "true",
    "parallel": "true",
}
UMX = {"window": 128, "hop": 32, "hidden": 8, "layers": 1}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def sound(path, seconds=1.0, rate=16000, channels=1, seed=0, what="speech"):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = round(seconds * rate)
    rngs = [np.random.default_rng([seed, channel]) for channel in range(channels)]
    if what == "speech":
        signals = np.stack([synthetic.speech(samples, rate, rng, seed) for rng in rngs])
    else:
        signals = np.stack([synthetic.noise(samples, rate, rng, "pulsing") for rng in rngs])
    signals = signals.astype(np.float32)
    sepcli.write(path, 0.2 * signals / np.abs(signals).max(), rate)


def songs(folder, stems, rate=44100):
    for track in ("one", "two"):
        for seed, stem in enumerate(stems):
            what = "speech" if stem == "vocals" else "noise"
            sound(folder / track / f"{stem}.wav", 2.0, rate, 2, seed, what)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder that the examples speak of."""
    folder = tmp_path_factory.mktemp("docs") / "files"
    for speaker in ("anna", "ben", "cleo"):
        for number in range(2):
            sound(folder / f"speech/{speaker}/{number}.wav", 5.0, seed=number)
    for number in range(10):
        sound(folder / f"noise/{number}.wav", 5.0, seed=number, what="noise")
    decay = 10 ** (-3 * np.arange(8000) / 16000 / 0.3)
    for room in ("hall", "room"):
        rir = np.random.default_rng(0).choice([-1, 1], 8000) * decay
        (folder / "rooms").mkdir(exist_ok=True)
        sepcli.write(folder / f"rooms/{room}.wav", rir[None].astype(np.float32), 16000)
    sepcli.write(folder / "hall.wav", rir[None].astype(np.float32), 16000)
    for name in ("noisy.wav", "recordings/a.wav", "recordings/b.wav"):
        sound(folder / name)
    for name in ("anna.wav", "meeting.wav", "meetings/a.wav", "meetings/b.wav"):
        sound(folder / name, seed=len(name))
    for name in ("estimates", "clean", "noisy"):
        sound(folder / name / "a.wav", 1.0, seed=len(name))
    for name in ("song.wav", "album/one.flac", "album/two.flac"):
        sound(folder / name, 3.0, 44100, 2)
    songs(folder / "musdb/test", ("mixture", "vocals", "drums", "bass", "other"))
    songs(folder / "tracks", ("vocals", "drums"))
    songs(folder / "estimated", ("vocals", "accompaniment"))
    os.symlink(ROOT / "recipes", folder / "recipes")
    (folder / "runs/mine").mkdir(parents=True)
    torch.manual_seed(0)
    weights = randomise(build("open_unmix", **UMX)).state_dict()
    modelfile.save(folder / "runs/mine/best.safetensors", "open_unmix", UMX, weights, {})
    (folder / "umx").mkdir()
    (folder / "umx/best.safetensors").write_bytes(
        (folder / "runs/mine/best.safetensors").read_bytes()
    )
    return folder


@pytest.fixture(scope="module")
def shell(files):
    """A shell beside `files`; every page gets a copy of these."""
    with Shell(files.parent, PROGRAMS | {"ffmpeg": f"cat {files}/noisy.wav"}) as running:
        assert running.run("cd files; sepcli mix -n 5 --duration 1 -o mixtures.tar")[0] == 0
        yield running


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(shell, files, page):
    shutil.copytree(files, files.parent / page.stem, symlinks=True)
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            code, printed = shell.run(f"cd {page.stem}; {line}")
            allowed = {0} | {FAILS[word] for word in line.split() if word in FAILS}
            assert code in allowed, f"{line}\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(shell, files, page, monkeypatch):
    monkeypatch.chdir(files)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


def test_readme_is_short():
    assert README.count("\n") <= 150


def test_every_link_leads_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "recipes/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_is_in_the_table():
    for name in cli.COMMANDS:
        assert f"| `sepcli {name}` |" in README
        assert cli.main.get_command(click.Context(cli.main), name)


def test_every_recipe_is_in_the_table():
    folders = {path.parent.name for path in ROOT.glob("recipes/*/run.sh")}
    assert folders == set(re.findall(r"\]\(recipes/([a-z0-9-]+)\)", README))


def test_every_shipped_model_and_architecture_is_described():
    text = (ROOT / "docs/models.md").read_text()
    for name in [*MODELS, *modelfile.shipped()]:
        assert f"`{name}`" in text
