"""`sepcli train`: runs that are ended, killed, made longer, or begun with other weights."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sepcli import config
from sepcli.models import modelfile
from sepcli.training.settings import Settings, learning_rate
from tests.trainings import (
    AT_STEP_8,
    assert_same_run,
    records,
    sepcli,
    stop_at_step_8,
    trained,
)

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("action", "code", "step"),
    [
        # No handler sees this; steps 6 to 8 are lost and done again.
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, 5),
        # Reaches the worker process too, as from a terminal or a batch system.
        ("os.killpg(0, signal.SIGTERM)", 143, 8),
    ],
)
def test_a_killed_run_goes_on_to_the_same_weights(action, code, step):
    trained(output="whole")
    python = [sys.executable, "-c", AT_STEP_8.format(action=action)]
    train = ["train", "tiny.yaml", "-o", "run", "--threads", "1", "--set", "train.workers=1"]
    killed = subprocess.run([*python, *train], start_new_session=True, capture_output=True)
    assert killed.returncode == code, killed.stderr.decode()
    assert torch.load("run/last.ckpt", weights_only=True)["step"] == step
    assert records()[-1]["step"] == 8
    trained("--resume")
    assert_same_run("whole", "run")


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")]
)
def test_a_signal_saves_and_the_run_goes_on_to_the_same_weights(monkeypatch, number, code, name):
    trained(output="whole")
    stop_at_step_8(monkeypatch, number)
    handler = signal.getsignal(number)
    result = sepcli("tiny.yaml", "-o", "run")
    assert result.exit_code == code
    assert result.stderr.endswith(
        f"Stopped by {name} and saved at step 8 of 12; resume with --resume\n"
    )
    assert result.stdout == ""
    assert signal.getsignal(number) == handler
    assert torch.load("run/last.ckpt", weights_only=True)["step"] == 8
    trained("--resume")
    assert_same_run("whole", "run")


@pytest.mark.parametrize("start", [4, 10])
def test_a_run_with_discriminators_goes_on_to_the_same_weights(monkeypatch, start):
    gan = f"train.gan={{from_step: {start}, ramp_steps: 4, shrink: 8}}"
    trained("--set", gan, output="whole")
    stop_at_step_8(monkeypatch, signal.SIGTERM)
    assert sepcli("tiny.yaml", "-o", "run", "--set", gan).exit_code == 143
    begun = torch.load("run/last.ckpt", weights_only=True)["adversary"]
    assert (begun is None) == (start == 10)
    trained("--set", gan, "--resume")
    assert_same_run("whole", "run")
    nets = [
        torch.load(f"{run}/last.ckpt", weights_only=True)["adversary"]["net"]
        for run in ("whole", "run")
    ]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert records()[-2]["discriminator"] > 0


def test_a_run_with_a_teacher_goes_on_to_the_same_weights(monkeypatch):
    trained(output="first")
    taught = ("--set", "train.teacher=first", "--set", "train.teacher_weight=0.7")
    trained(*taught, output="whole")
    stop_at_step_8(monkeypatch, signal.SIGTERM)
    assert sepcli("tiny.yaml", "-o", "run", *taught).exit_code == 143
    trained(*taught, "--resume")
    assert_same_run("whole", "run")
    means = [r for r in records() if r["event"] == "train"]
    assert all(r["loss"] == pytest.approx(0.3 * r["si_sdr"] + 0.7 * r["teacher"]) for r in means)


def test_a_line_cut_short_by_a_kill_is_dropped(folder):
    trained("--set", "train.steps=10")
    before = records()
    with open("run/metrics.jsonl", "a") as file:
        file.write('{"event": "train", "st')
    trained("--set", "train.steps=10", "--resume")
    assert records() == before


def test_a_finished_run_has_nothing_left_to_do(folder):
    trained()
    saved = (folder / "run/last.ckpt").stat().st_mtime_ns
    assert trained("--resume").stdout == "run/best.safetensors\n"
    assert (folder / "run/last.ckpt").stat().st_mtime_ns == saved


def test_speed_may_be_changed_on_resume_but_nothing_that_changes_the_weights(monkeypatch):
    stop_at_step_8(monkeypatch, signal.SIGTERM)
    sepcli("tiny.yaml", "-o", "run")
    result = sepcli("tiny.yaml", "-o", "run", "--resume", "--set", "train.lr=0.5")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: run: was started with another configuration (train.lr: 0.001 -> 0.5); put that "
        "back, or start a new run with -o\n"
    )
    trained("--resume", "--set", "train.save_minutes=1", "--set", "train.log_every=4")


def test_a_finished_run_goes_on_when_it_is_to_be_longer():
    """The weights of the steps to come are those of any way to come to them."""
    longer = ("--resume", "--set", "train.steps=20")
    for name in ("run", "pieces"):
        trained(output=name)
    trained(*longer)
    rates = [record["lr"] for record in records() if record["event"] == "train"]
    assert rates[11] < rates[12] > rates[19]  # at the end of the first length, then on the new one
    assert rates[12:] == [
        learning_rate(step, Settings(steps=20, warmup=2)) for step in range(12, 20)
    ]
    assert config.load("run/config.yaml")["train"]["steps"] == 20
    assert json.loads(Path("run/scores.json").read_text())["steps"] == 20
    trained("--resume", "--set", "train.steps=16", output="pieces")
    trained("--resume", "--set", "train.steps=17", output="pieces")
    assert records("pieces")[-1]["step"] == 17
    trained(*longer)  # nothing left to do
    result = sepcli("tiny.yaml", "-o", "run", "--resume")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: run: was started for 20 steps; resume with --set train.steps=20 (or more, for a "
        "longer training)\n"
    )


def test_a_longer_run_may_be_stopped_and_goes_on_to_the_same_weights(monkeypatch):
    longer = ("--resume", "--set", "train.steps=10")
    for name in ("whole", "run"):
        trained("--set", "train.steps=6", output=name)
    trained(*longer, output="whole")
    stop_at_step_8(monkeypatch, signal.SIGTERM)
    assert sepcli("tiny.yaml", "-o", "run", *longer).exit_code == 143
    trained(*longer)
    assert_same_run("whole", "run")


def test_a_run_of_an_earlier_version_lacks_settings_and_goes_on(folder):
    trained("--set", "train.steps=6", output="run")
    settings = config.load("run/config.yaml")
    del settings["train"]["init"], settings["data"]["train"]["noise_db"]
    (folder / "run/config.yaml").write_text(config.dump(settings))
    trained("--resume", "--set", "train.steps=7")
    assert config.load("run/config.yaml")["train"]["init"] == ""


def test_a_run_begins_with_the_weights_of_another_model(folder):
    trained(output="first")
    result = trained("--init", "first", "--set", "train.steps=1", "--set", "train.lr=1e-12")
    count = len(modelfile.load_model("first")[0].state_dict())
    assert result.stderr.startswith(f"Initialised all {count} tensors from first\n")
    best = json.loads((folder / "first/scores.json").read_text())
    assert records()[0]["si_sdr_db"] == pytest.approx(best["si_sdr_db"], abs=1e-4)
    assert config.load("run/config.yaml")["train"]["init"] == "first"
    (folder / "first/best.safetensors").unlink()  # is not needed any more
    trained("--resume", "--set", "train.steps=2", "--set", "train.lr=1e-12")
    assert config.load("run/config.yaml")["train"]["init"] == "first"


def test_what_does_not_fit_of_other_weights_is_named():
    trained(output="first")
    more = trained("--init", "first", "--set", "model.blocks=3", "--set", "train.steps=1").stderr
    assert "tensors from first; new: " in more
    assert ", separator.tcn.blocks.2." in more.splitlines()[0]
    assert " more" in more.splitlines()[0]
    line = sepcli("tiny.yaml", "--init", "first", "--set", "model.hidden=5").stderr
    assert re.match(
        r"Error: first: \d+ tensors differ in shape \(.*blocks.* 5x4x1.*; .* more\);", line
    )
    assert line.count("\n") == 1
    line = sepcli("tiny.yaml", "--init", "vocals").stderr
    assert (
        line
        == "Error: vocals: a deep_unet, whose weights have other names than those of this model\n"
    )
    assert sepcli("tiny.yaml", "--init", "nowhere").stderr.startswith("Error: no model 'nowhere'")
    assert not Path("runs").exists()
    result = sepcli("tiny.yaml", "-o", "first", "--init", "vocals", "--resume")
    assert result.exit_code == 2
    assert "--init is for a new run" in result.stderr


def test_of_the_last_models_as_many_are_kept_as_are_wanted(folder):
    settings = ["--set", "train.validate_every=2", "--set", "train.keep_last=2"]
    trained(*settings)
    kept = sorted(path.name for path in Path("run").glob("step-*"))
    last = json.loads(Path("run/scores.json").read_text())["steps"]
    assert kept == [f"step-{step:08d}.safetensors" for step in (last - 2, last)]
    model, _ = modelfile.load_model(Path("run") / kept[-1])
    newest, _ = modelfile.load_model("run/last.safetensors")
    assert all(map(torch.equal, model.parameters(), newest.parameters()))
    trained("--overwrite")
    assert not list(Path("run").glob("step-*"))
