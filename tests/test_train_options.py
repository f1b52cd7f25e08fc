"""`sepcli train`: its options, and faults that are one line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sepcli import config
from sepcli.runs import runs
from sepcli.training import validation
from tests.disks import disk_of
from tests.trainings import (
    AT_STEP_8,
    TIMES,
    TINY,
    assert_same_run,
    records,
    sepcli,
    stop_at_step_8,
    trained,
    weights,
)

pytestmark = pytest.mark.usefixtures("folder")


def test_the_seed_decides_the_weights():
    trained(output="zero")
    trained("--seed", "1", output="one")
    trained("--set", "train.seed=1", output="same")
    assert config.load("one/config.yaml")["train"]["seed"] == 1
    assert config.load("one/config.yaml")["data"]["train"]["seed"] == 1
    assert_same_run("one", "same")
    assert records("zero") != records("one")


def test_a_dry_run_reports_and_writes_nothing(folder):
    result = sepcli("tiny.yaml", "--dry-run")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["mixture"] == [2, 1, 800]
    assert report["references"] == [2, 2, 1, 800]
    assert report["epochs"] == pytest.approx(2.4)
    assert report["parameters"] == sum(
        p.numel() for p in runs.Run("", runs.resolve(config.load("tiny.yaml"))).model.parameters()
    )
    assert report["loss"] is not None
    assert [path.name for path in folder.iterdir()] == ["tiny.yaml"]


def test_overfitting_scores_the_items_it_learns():
    trained("--overfit", "2", "--set", "train.steps=60", "--set", "train.lr=0.02")
    data = config.load("run/config.yaml")["data"]
    assert data["train"] == data["valid"]
    assert data["train"]["items"] == 2
    scores = json.loads(Path("run/scores.json").read_text())
    assert scores["items"] == 2
    assert scores["loss_drop"] > 1


def test_progress_as_json_is_the_log_and_quiet_is_silence():
    result = trained("--progress", "json")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [{k: v for k, v in x.items() if k not in TIMES} for x in lines] == records()
    assert trained("--quiet", "--overwrite").stderr == ""
    plain = trained("--overwrite").stderr.splitlines()
    assert len(plain) == 4
    assert plain[0].startswith("step 0: validation SI-SDR ")


def test_a_run_is_not_replaced_by_accident(folder):
    trained()
    (folder / "run/notes.txt").write_text("keep me")
    before = records()
    result = sepcli("tiny.yaml", "-o", "run")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: run: holds a training run; add --resume to continue it, or --overwrite to replace "
        "it\n"
    )
    result = trained("--skip-existing", "--set", "train.steps=1")
    assert result.stderr == "run: holds a training run; left as it is\n"
    assert result.stdout == "run/best.safetensors\n"
    assert records() == before
    trained("--overwrite", "--set", "train.steps=1")
    assert len(records()) == 3
    assert len(list((folder / "run").glob("events*"))) == 1
    assert (folder / "run/notes.txt").read_text() == "keep me"


def test_a_run_that_cannot_start_leaves_the_old_one_alone(folder):
    trained()
    before = records()
    result = sepcli("tiny.yaml", "-o", "run", "--overwrite", "--set", "model.kernel=7")
    assert result.exit_code == 1
    assert records() == before


def test_the_default_folder_is_named_after_the_configuration(folder):
    (folder / "toy").mkdir()
    (folder / "toy/config.yaml").write_text(TINY)
    for name, output in (("tiny.yaml", "runs/tiny"), ("toy/config.yaml", "runs/toy")):
        result = sepcli(name, "--set", "train.steps=1")
        assert result.stdout == f"{output}/best.safetensors\n"


def test_a_score_below_its_limit_fails():
    result = sepcli("tiny.yaml", "-o", "run", "--fail-under", "si_sdr_db=90")
    assert result.exit_code == 1
    assert "Error: below the limit: si_sdr_db " in result.stderr
    trained("--overwrite", "--fail-under", "si_sdr_db=-90", "--fail-under", "loss_drop=0")
    for wrong, message in (("sdr=1", "There is no score 'sdr'"), ("loss_drop", "not NAME=NUMBER")):
        result = sepcli("tiny.yaml", "--fail-under", wrong)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_diverging_run_keeps_its_last_good_checkpoint(folder):
    result = sepcli(
        *("tiny.yaml", "-o", "run", "--set", "train.steps=400"),
        *("--set", "train.lr=1e30", "--set", "train.max_bad_steps=3"),
    )
    assert result.exit_code == 1
    assert "Error: training diverged: steps " in result.stderr
    state = torch.load("run/last.ckpt", weights_only=True)
    assert all(x.isfinite().all() for x in state["model"].values())


@pytest.mark.parametrize(
    ("settings", "end", "line"),
    [
        ("train.lr=1e30 train.steps=400", "", "training diverged: steps "),
        ("", "os.kill(multiprocessing.active_children()[0].pid, 9)", "a worker process died"),
    ],
)
def test_workers_end_with_a_training_that_fails(settings, end, line):
    """What holds standard error open would be waited for here."""
    action = "import multiprocessing; " + (end or "pass")
    python = [sys.executable, "-c", AT_STEP_8.format(action=action)]
    changes = [x for s in [*settings.split(), "train.workers=2"] for x in ("--set", s)]
    process = subprocess.run(
        [*python, "train", "tiny.yaml", "-o", "run", "--threads", "1", *changes],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(f"Error: {line}")
    assert "Traceback" not in process.stderr
    state = torch.load("run/last.ckpt", weights_only=True)
    assert all(x.isfinite().all() for x in state["model"].values())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("model.name=convtasnet", "unknown model 'convtasnet'; choose from "),
        ("model.filtres=8", "unknown setting model.filtres; did you mean filters?"),
        ("model.name=", "unknown model None; choose from"),
        ("model=", "model.name is missing; choose from"),
        ("model.kernel=7", "model: kernel 7"),
        ("model.hidden=-1", "model: "),
        ("train.stesp=8", "unknown setting train.stesp; did you mean steps?"),
        ("trian.steps=8", "unknown setting trian; did you mean train?"),
        ("train.steps=few", "train.steps must be a whole number, not 'few'"),
        ("train.loss={sdr: 1}", "unknown loss 'sdr'; choose from"),
        (
            "data.valid=",
            "data.valid.kind is missing; choose from excerpts, ",
        ),
        ("data.test.kind=toy", "unknown setting data.test; known: train, valid"),
        ("data.valid.items=0", "data.valid.items must be at least 1, not 0"),
        ("data.train={kind: mixtures, speech: nowhere/}", "data.train: nowhere"),
        ("model.sources=[speech, noise]", "the model's source 'speech' is not in the data"),
        ("train", "--set train: expected A.B=VALUE"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(folder, change, line):
    result = sepcli("tiny.yaml", "-o", "run", "--set", change)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {line}")
    assert result.stderr.count("\n") == 1
    assert not (folder / "run").exists()


def test_mixture_consistency_of_one_source_is_one_line():
    changes = ("--set", "model.sources=sines", "--set", "train.mixture_consistency=true")
    result = sepcli("tiny.yaml", *changes)
    assert result.exit_code == 1
    assert "but model.sources is only sines; name all sources" in result.stderr


def test_a_missing_configuration_is_asked_wrongly():
    result = sepcli("absent.yaml")
    assert result.exit_code == 2
    assert "File 'absent.yaml' does not exist" in result.stderr


def test_resuming_where_there_is_nothing_is_one_line(folder):
    result = sepcli("tiny.yaml", "-o", "run", "--resume")
    assert result.exit_code == 1
    assert result.stderr == "Error: run: no training run to resume; start it without --resume\n"
    trained()
    (folder / "run/last.ckpt").unlink()
    result = sepcli("tiny.yaml", "-o", "run", "--resume")
    assert result.stderr == (
        "Error: run/last.ckpt: no such checkpoint; start again with --overwrite\n"
    )


def test_a_folder_that_cannot_be_made_is_one_line(folder):
    (folder / "file").write_text("in the way")
    result = sepcli("tiny.yaml", "-o", "file/run")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: file: a file, where a folder is needed")


def test_a_configuration_that_is_no_run_is_never_replaced(folder):
    (folder / "config.yaml").write_text(TINY)
    result = sepcli("config.yaml", "-o", ".", "--overwrite")
    assert result.exit_code == 1
    assert "Error: .: holds a config.yaml that would be replaced; choose another" in result.stderr
    assert (folder / "config.yaml").read_text() == TINY


@pytest.mark.parametrize("name", ["metrics.jsonl", "best.safetensors", "last.ckpt", "events"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(monkeypatch, name):
    """Whichever file it is that has no room any more."""
    trained(output="whole")
    with monkeypatch.context() as patch:
        stop_at_step_8(patch, signal.SIGTERM)
        assert sepcli("tiny.yaml", "-o", "run").exit_code == 143
    before = weights()
    sizes = {path.name.partition(".out.")[0]: path.stat().st_size for path in Path("run").iterdir()}
    with disk_of(sizes[name] - 1):
        result = sepcli("tiny.yaml", "-o", "run", "-q", "--resume")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: run")
    assert "File too large" in result.stderr
    assert result.stderr.count("\n") == 1
    assert all(map(torch.equal, before, weights()))
    assert not list(Path("run").glob(".*"))
    trained("--resume")
    assert_same_run("whole", "run")


def test_saving_all_the_time_changes_nothing():
    """Also before the first validation is over, when there are no scores yet."""
    trained(output="whole")
    trained("--set", "train.save_minutes=0")
    assert_same_run("whole", "run")


def test_a_run_may_be_stopped_in_its_first_validation(monkeypatch):
    trained(output="whole")
    evaluate = validation.evaluate

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "evaluate", stopped)
        result = sepcli("tiny.yaml", "-o", "run")
    assert result.exit_code == 143
    assert result.stderr == "Stopped by SIGTERM and saved at step 0 of 12; resume with --resume\n"
    trained("--resume")
    assert_same_run("whole", "run")
