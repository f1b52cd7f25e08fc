"""Every recipe: a script a person could type, a configuration that holds, a number that is met."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sepcli import config
from sepcli.runs import runs

RECIPES = Path(__file__).parent.parent / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/run.sh"))

# Stands in for `sepcli`: notes what it is asked, and makes the files that a script needs next.
STUB = """#!{python}
import json, os, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
command, out = arguments[0], pathlib.Path("out")
if command == os.environ.get("FAILING"):
    sys.exit(1)
if command == "train":
    for folder in (out, out / "float"):
        folder.mkdir(exist_ok=True)
        (folder / "scores.json").write_text("{{}}")
    about = ("parameters", "minutes", "steps", "items_seen", "si_sdr_db", "improvement_db")
    scores = dict.fromkeys(about, 1000) | {{"command": "sepcli train"}}
    (out / "scores.json").write_text(json.dumps(scores))
    (out / "metrics.jsonl").write_text("")
if command == "mix" and "out/made" in arguments:
    for n in range(16):
        (out / "made" / f"{{n:06d}}").mkdir(parents=True, exist_ok=True)
        for name in ("mix", "ref.speech", "ref.noise"):
            (out / "made" / f"{{n:06d}}" / f"{{name}}.wav").touch()
if command == "eval" and arguments[-1].endswith(".json"):
    metrics = {{"si_sdri_db": {{"name": "si-sdri", "unit": "dB"}}}}
    items = [{{"target": "speech", "si_sdri_db": x}} for x in (6.0, 7.0, 8.0, None)]
    report = {{"metrics": metrics, "summary": {{"speech": {{}}}}, "items": items}}
    pathlib.Path(arguments[-1]).write_text(json.dumps(report))
elif command == "eval" and "-o" in arguments:
    scored = os.environ.get("SCORED", "vocals accompaniment").split()
    rows = (f"| {{x}} | median of median | 1.0 |\\n" for x in scored)
    pathlib.Path(arguments[arguments.index("-o") + 1]).write_text("".join(rows))
"""

DATA = {
    "vocals-open-unmix": "MUSDB",
    "vocals-tfswa": "MUSDB",
}  # which variable names recordings, where it is not DATA
RECORDINGS = ("speech", "noise", "rir", "stems", "songs", "vocals", "music")  # settings of data
# (recipe, size, recordings given) -> items to (train, validate) with; 0 is without end.
FORMS = {
    ("denoise", "", False): (0, 100),
    ("denoise", "", True): (0, 100),
    ("denoise", "SMOKE", False): (0, 16),
    ("denoise", "SMOKE", True): (0, 16),
    ("denoise-16k", "", False): (0, 100),
    ("denoise-16k", "", True): (0, 100),
    ("denoise-16k", "SMALL", False): (0, 50),
    ("denoise-16k", "SMALL", True): (0, 50),
    ("denoise-16k", "MASK", False): (0, 50),
    ("denoise-16k", "MASK", True): (0, 50),
    ("denoise-16k", "SMOKE", False): (0, 16),
    ("denoise-16k", "SMOKE", True): (0, 16),
    ("extract", "", False): (0, 96),
    ("extract", "", True): (0, 96),
    ("extract", "SMOKE", False): (0, 16),
    ("extract", "SMOKE", True): (0, 16),
    ("extract-48k", "", False): (0, 100),
    ("extract-48k", "", True): (0, 100),
    ("extract-48k", "SMOKE", False): (0, 8),
    ("extract-48k", "SMOKE", True): (0, 8),
    ("extract-48k", "V1", False): (0, 100),
    ("extract-48k", "V1", True): (0, 100),
    ("tasnet-max78000", "", False): (0, 100),
    ("tasnet-max78000", "", True): (0, 100),
    ("tasnet-max78000", "SMOKE", False): (0, 16),
    ("tasnet-max78000", "SMOKE", True): (0, 16),
    ("tasnet-toy", "", False): (5000, 200),
    ("tasnet-toy", "SMOKE", False): (5000, 32),
    ("tasnet-vocals", "", False): (0, 50),
    ("tasnet-vocals", "", True): (0, 50),
    ("tasnet-vocals", "CHIP", False): (0, 50),
    ("tasnet-vocals", "CHIP", True): (0, 50),
    ("tasnet-vocals", "SMOKE", False): (0, 8),
    ("tasnet-vocals", "SMOKE", True): (0, 8),
    ("vocals", "", False): (0, 16),
    ("vocals", "", True): (0, 16),
    ("vocals", "SMOKE", False): (0, 8),
    ("vocals", "SMOKE", True): (0, 8),
    ("vocals-open-unmix", "", False): (640, 3),
    ("vocals-open-unmix", "", True): (5504, 14),
    ("vocals-open-unmix", "SMOKE", False): (16, 3),
    ("vocals-open-unmix", "SMOKE", True): (16, 14),
    ("vocals-tfswa", "", False): (5504, 3),
    ("vocals-tfswa", "", True): (5504, 28),
    ("vocals-tfswa", "SMOKE", False): (64, 3),
    ("vocals-tfswa", "SMOKE", True): (64, 28),
}


class Script:
    """A copy of a recipe whose `sepcli` only notes what it is asked."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder / name
        shutil.copytree(RECIPES / name, self.folder, ignore=shutil.ignore_patterns("out"))
        for shared in ("card.py", "common.sh", "data-parts.sh"):
            shutil.copy(RECIPES / shared, folder)
        (folder / "average.py").touch()  # there are no weights
        self.log, self.bin = folder / "log", folder / "bin"
        self.bin.mkdir()
        stub = self.bin / "sepcli"
        stub.write_text(STUB.format(python=sys.executable, log=str(self.log)))
        stub.chmod(0o755)

    def run(self, *arguments, **variables):
        """Run it; the arguments of each `sepcli`."""
        self.log.write_text("")
        forms = (
            "SMOKE",
            "SMALL",
            "MASK",
            "CHIP",
            "TUNING",
            "V1",
            "DATA",
            "MUSDB",
            "EPOCHS",
            "FORM",
        )
        forms += ("MODEL", "TEST")
        kept = {k: v for k, v in os.environ.items() if k not in forms}
        self.process = subprocess.run(
            ["sh", self.folder / "run.sh", *arguments],
            env={**kept, **variables, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        return list(map(json.loads, self.log.read_text().splitlines()))

    def configuration(self, arguments):
        """What `sepcli train` makes of its arguments: (resolved configuration, overrides)."""
        given = [b for a, b in itertools.pairwise(arguments) if a == "--set"]
        return runs.resolve(config.load(self.folder / self.named(arguments), given)), given

    def named(self, arguments):
        """The file of the configuration in the arguments of `sepcli train`."""
        return next(word for word in arguments if word.endswith(".yaml"))


def run_form(script, size, given, *arguments):
    """Run a recipe in one of its forms; the arguments of each `sepcli`."""
    variables = {size: "1"} if size else {}
    if given:
        folder = script.folder.parent
        variables[DATA.get(script.name, "DATA")] = str(folder)
        for part, kind in itertools.product(("train", "valid"), ("speech", "noise", "rir")):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
    calls = script.run(*arguments, **variables)
    assert script.process.returncode == 0, script.process.stderr
    return calls


@pytest.mark.parametrize(("form", "items"), FORMS.items())
def test_every_form_changes_the_settings_that_it_names_and_no_other(form, items, tmp_path):
    name, size, given = form
    script = Script(name, tmp_path)
    calls = run_form(script, size, given, "--set", "train.seed=7")
    train = next(call for call in calls if call[0] == "train")
    resolved, overrides = script.configuration(train)
    plain = runs.resolve(config.load(script.folder / script.named(train)))
    named = tuple(f"{override.partition('=')[0]}." for override in overrides)
    changed = {line.partition(":")[0] for line in config.differences(plain, resolved)}
    changed.remove("data.train.seed")  # follows the seed of the training
    assert [key for key in changed if not f"{key}.".startswith(named)] == []
    assert resolved["train"]["seed"] == 7

    train, valid = resolved["data"]["train"], resolved["data"]["valid"]
    assert (train["items"], valid["items"]) == items
    assert train["seed"] != valid["seed"]
    assert train.get("target") == valid.get("target")


@pytest.mark.parametrize("form", [form for form in FORMS if form[2]])
def test_what_validates_is_no_recording_to_train_with(form, tmp_path):
    name, size, given = form
    script = Script(name, tmp_path)
    calls = [
        call
        for call in run_form(script, size, given)
        if any(word.endswith(".yaml") for word in call)
    ]
    *stages, last = [call[0] for call in calls]
    assert set(stages) <= {"train"}
    assert last in ("train", "quantize")
    for call in calls:
        data = script.configuration(call)[0]["data"]
        part = {
            name: {kind: settings[kind] for kind in RECORDINGS if settings.get(kind)}
            for name, settings in data.items()
        }
        assert part["train"].keys() & {"speech", "stems", "songs"}
        if name != "vocals":  # which is validated on whole songs
            assert part["train"].keys() == part["valid"].keys()
        for found, sources in part.items():
            for paths in sources.values():
                assert [f"/{found}" in path for path in paths] == [True]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_an_executable_posix_script(name):
    script = RECIPES / name / "run.sh"
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)


@pytest.fixture
def vocals(tmp_path):
    return Script("vocals-open-unmix", tmp_path)


@pytest.mark.parametrize(
    "fault", [{"FAILING": "separate"}, {"FAILING": "eval"}, {"SCORED": "vocals"}]
)
def test_songs_that_are_not_separated_or_scored_fail_the_recipe(vocals, fault):
    vocals.run(**fault)
    assert vocals.process.returncode == 1
    vocals.run()
    assert vocals.process.returncode == 0
    rows = vocals.process.stdout.splitlines()[2:]
    assert rows[0] == "| none | the mixture itself | 1.0 | 1.0 |"
    assert rows[1:4] == [
        f"| 25 epochs | {phase} | 1.0 | 1.0 |" for phase in ("mixture", "wiener", "griffin-lim")
    ]
    assert len(rows) == 1 + 3 * 3 + 3


def test_integers_of_the_chip_are_streamed_by_torch_as_graphs_differ_by_one_at_times(tmp_path):
    for chip, engines in (("", ["auto", "auto"]), ("1", ["auto", "torch"])):
        calls = Script("tasnet-vocals", tmp_path / f"chip{chip}").run(CHIP=chip)
        assert [c[c.index("--engine") + 1] for c in calls if "--verify" in c] == engines


def test_the_epochs_to_score_may_be_chosen(vocals):
    calls = vocals.run(EPOCHS=" 3  7 ")
    train, _ = vocals.configuration(next(call for call in calls if call[0] == "train"))
    assert (train["train"]["epochs"], train["train"]["keep_epochs"]) == (7, [3, 7])
    models = [call[call.index("-m") + 1] for call in calls if call[0] == "separate"]
    assert models == [f"out/epoch-{n}.safetensors" for n in (3, 3, 3, 7, 7, 7)]


def test_a_model_may_be_scored_without_training(vocals, tmp_path):
    for song in ("A - One", "B - Two"):
        (tmp_path / "songs" / song).mkdir(parents=True)
        for stem in ("mixture", "vocals", "other"):
            (tmp_path / "songs" / song / f"{stem}.wav").touch()
    (tmp_path / "my.safetensors").touch()
    calls = vocals.run(MODEL=str(tmp_path / "my.safetensors"), TEST=str(tmp_path / "songs"))
    assert vocals.process.returncode == 0, vocals.process.stderr
    assert sorted(call[0] for call in calls) == ["eval"] * 4 + ["separate"] * 3
    separated = [call for call in calls if call[0] == "separate"]
    ways = [set(call) & {"--wiener", "--griffin-lim"} for call in separated]
    assert ways == [set(), {"--wiener"}, {"--griffin-lim"}]
    for call in separated:
        assert call[call.index("-m") + 1] == str(tmp_path / "my.safetensors")
        assert str(tmp_path / "songs") in call
    links = sorted((vocals.folder / "out/mixtures").rglob("*.wav"))
    assert [link.name for link in links] == ["accompaniment.wav", "vocals.wav"] * 2
    assert all(link.resolve().name == "mixture.wav" for link in links)
    vocals.run(MODEL="vocals")
    assert (vocals.process.returncode, "add TEST=FOLDER" in vocals.process.stderr) == (2, True)


def test_a_training_that_is_run_again_goes_on_and_a_smoke_test_begins_anew(vocals, tmp_path):
    def how(**variables):
        calls = vocals.run("--threads", "1", **variables)
        asked = next((call for call in calls if call[0] == "train"), ())
        return [flag for flag in ("--resume", "--overwrite") if flag in asked]

    assert how(SMOKE="1") == how(SMOKE="1") == ["--overwrite"]
    assert how() == ["--overwrite"]  # in place of the smoke test
    assert how() == how(EPOCHS="25 50 150 300") == ["--resume"]
    for other in ({"SMOKE": "1"}, {"MUSDB": str(tmp_path)}):
        assert how(**other) == []
        assert vocals.process.returncode == 1
        assert "holds a training of another form (made); move it" in vocals.process.stderr
    assert how() == ["--resume"]


def test_the_numbers_of_a_card_are_those_of_the_reports(tmp_path):
    """Of 6, 7 and 8 dB, the mean is 7 and its standard error 1 / sqrt 3."""
    script = Script("denoise", tmp_path)
    calls = script.run()
    lines = script.process.stdout.splitlines()
    assert lines[0].startswith("1,000 parameters; 1000.0 minutes, 1,000 steps, 1,000 items")
    assert "    sepcli train" in lines
    assert lines[-5] == "| mixtures | target | items | SI-SDRi dB |"
    assert [line.split(" | ", 1)[1] for line in lines[-3:]] == ["speech | 4 | 7.00 ± 0.58 |"] * 3
    assert (script.folder / "out/card.md").read_text() == script.process.stdout
    scored = [call for call in calls if call[0] == "mix"]
    assert [call[call.index("--rir-prob") + 1] for call in scored] == ["0", "1", "0"]


def test_recordings_are_packed_once_and_the_packs_serve_as_data(tmp_path):
    script = Script("denoise", tmp_path)
    for part in ("train", "valid", "test"):
        (tmp_path / "data" / part).mkdir(parents=True)
    calls = script.run(DATA=str(tmp_path / "data"))
    packed = [call[call.index("-o") + 1] for call in calls if call[0] == "pack"]
    assert packed == ["out/train.h5", "out/valid.h5", "out/test.h5"]
    assert all("--skip-existing" in call for call in calls if call[0] == "pack")
    packs = tmp_path / "packs"
    packs.mkdir()
    for part in ("train", "valid", "test"):
        (packs / f"{part}.h5").touch()
    calls = Script("denoise", packs).run(DATA=str(packs))
    assert "pack" not in {call[0] for call in calls}
    for call in calls:
        if call[0] == "mix":
            assert call[call.index("--speech") + 1] == "out/test.h5"


def test_a_denoiser_that_is_run_again_goes_on(tmp_path):
    script = Script("denoise", tmp_path)
    how = []
    for variables in ({"SMOKE": "1"}, {"SMOKE": "1"}, {}, {}, {"SMOKE": "1"}):
        train = [call for call in script.run(**variables) if call[0] == "train"]
        how += [flag for call in train for flag in call if flag in ("--resume", "--overwrite")]
    assert how == ["--overwrite", "--overwrite", "--overwrite", "--resume"]
    assert "holds a training of another form (made); move it" in script.process.stderr


CONFIGS = sorted(RECIPES.glob("*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_configuration_is_valid_and_holds_only_what_differs_from_the_defaults(path):
    given = config.load(path)
    resolved = runs.resolve(given)
    for section, settings in given["train"].items():
        assert resolved["train"][section] == settings
    defaults = runs.resolve({**given, "train": {}, "model": {"name": given["model"]["name"]}})
    for section in ("train", "model"):
        for key in given[section].keys() - {"name"}:
            assert given[section][key] != defaults[section][key], f"{section}.{key} is the default"


@pytest.mark.parametrize("name", NAMES)
def test_our_number_reaches_the_documented_one_and_is_in_the_table(name):
    expected = json.loads((RECIPES / name / "expected.json").read_text())
    for score in expected["scores"].values():
        assert score["ours"] >= score["documented"] - score["tolerance"]
    row = next(x for x in (RECIPES / "README.md").read_text().splitlines() if f"`{name}`" in x)
    for score in expected["scores"].values():
        assert f"{score['ours']:.1f}" in row


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_form_finishes_and_writes_its_scores(name):
    scores = RECIPES / name / "out" / "scores.json"
    scores.unlink(missing_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", RECIPES / name / "run.sh"],
        env={**os.environ, "SMOKE": "1", "PATH": path},
        check=True,
    )
    assert json.loads(scores.read_text())
