"""`sepcli train` and its run folder: what is written, how it stops, and how it goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli import audio, config
from sepcli.cli import main
from sepcli.models import modelfile
from sepcli.runs import runlog, runs
from sepcli.training import validation
from sepcli.training.settings import Settings, learning_rate
from tests.disks import disk_of

TINY = """
model: {name: conv_tasnet, sources: [modulated, sines], filters: 8, kernel: 20, bottleneck: 4,
        hidden: 4, skip: 4, blocks: 2, repeats: 1}
data:
  train: {kind: toy, items: 10, duration_s: 0.05}
  valid: {kind: toy, items: 3, duration_s: 0.05}
train: {steps: 12, batch: 2, warmup: 2, log_every: 1, validate_every: 5, ema: 0.9}
"""
FILES = {"best.safetensors", "config.yaml", "last.ckpt", "last.safetensors", "metrics.jsonl"}
TIMES = ("minutes", "items_per_s")

# Runs `sepcli` and does something to its own process right after step 8 was logged.
AT_STEP_8 = """
import os, signal
from sepcli.training import runlog
write = runlog.RunLog.write
def write_and_act(self, record):
    write(self, record)
    if record["event"] == "train" and record["step"] == 8:
        {action}
runlog.RunLog.write = write_and_act
from sepcli.cli import main
main()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with tiny.yaml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def sepcli(*arguments):
    return CliRunner().invoke(main, ["train", "--threads", "1", *map(str, arguments)])


def trained(*arguments, output="run"):
    result = sepcli("tiny.yaml", "-o", output, "--device", "cpu", *arguments)
    assert result.exit_code == 0, result.output
    return result


def records(output="run"):
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, Path(output, "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def weights(output="run"):
    """Every tensor of the checkpoint, as one list."""
    state = torch.load(f"{output}/last.ckpt", weights_only=True)
    moments = [x for s in state["optimizer"]["state"].values() for x in s.values()]
    return [*state["model"].values(), *state["average"].values(), *moments]


def assert_same_run(one, other):
    assert records(one) == records(other)
    pairs = list(zip(weights(one), weights(other), strict=True))
    assert len(pairs) > 50
    assert all(torch.equal(a, b) for a, b in pairs)
    for name in ("best", "last"):
        models = [modelfile.load_model(f"{run}/{name}.safetensors")[0] for run in (one, other)]
        states = [list(model.state_dict().values()) for model in models]
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def stop_at_step_8(monkeypatch, number):
    """Send this process the signal `number` while step 8 is logged, once."""
    write = runlog.RunLog.write

    def write_and_signal(self, record):
        write(self, record)
        if record["event"] == "train" and record["step"] == 8:
            monkeypatch.setattr(runlog.RunLog, "write", write)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(runlog.RunLog, "write", write_and_signal)


def test_a_run_leaves_models_logs_and_scores(folder):
    result = trained()
    assert result.stdout == "run/best.safetensors\n"
    made = {path.name for path in (folder / "run").iterdir()}
    events = {name for name in made if name.startswith("events.out.tfevents.")}
    assert made - events == FILES | {"scores.json"}
    assert len(events) == 1

    valid = [record for record in records() if record["event"] == "valid"]
    assert [record["step"] for record in valid] == [0, 5, 10, 12]
    assert [r["step"] for r in records() if r["event"] == "train"] == list(range(1, 13))

    scores = json.loads((folder / "run/scores.json").read_text())
    best = max(valid, key=lambda record: record["si_sdr_db"])
    assert scores["si_sdr_db"] == best["si_sdr_db"]
    assert scores["untrained_si_sdr_db"] == valid[0]["si_sdr_db"]
    assert scores["improvement_db"] == pytest.approx(best["si_sdr_db"] - valid[0]["si_sdr_db"])
    assert scores["loss_drop"] == pytest.approx(valid[0]["loss"] - best["loss"])
    assert (scores["steps"], scores["items_seen"]) == (12, 24)


def test_the_model_files_know_what_they_are(folder):
    trained()
    model, card = modelfile.load_model("run")
    assert model.sources == ("modulated", "sines")
    assert card.card["data"]["train"]["kind"] == "toy"
    assert card.card["train"]["steps"] == 12
    scores = json.loads((folder / "run/scores.json").read_text())
    assert card.card["scores"]["si_sdr_db"] == scores["si_sdr_db"]
    assert not model.training


def test_tensorboard_finds_the_curves_and_examples_to_hear(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained()
    board = EventAccumulator(str(folder / "run")).Reload()
    scalars = board.Scalars("valid/si_sdr_db")
    assert [scalar.step for scalar in scalars] == [0, 5, 10, 12]
    assert "train/grad_norm" in board.Tags()["scalars"]
    examples = {"0/mix", "0/ref.sines", "0/est.modulated"}
    assert examples <= set(board.Tags()["audio"])
    assert examples <= set(board.Tags()["images"])


@pytest.mark.parametrize("files", [True, False])
def test_sounds_of_training_and_validation_are_kept_every_so_many_steps(folder, files):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained("--set", "train.audio_every=5", "--set", f"train.audio_files={files}")
    board = EventAccumulator(str(folder / "run")).Reload()
    for tag, steps in {
        "train/0/mix": [5, 10],
        "train/0/est.sines": [5, 10],
        "train/0/ref.modulated": [5, 10],
        "0/est.sines": [0, 5, 10, 12],
        "0/mix": [0],
    }.items():
        assert [sound.step for sound in board.Audio(tag)] == steps
    sounds = {str(p.relative_to(folder / "run/audio")) for p in folder.glob("run/audio/*/*")}
    names = {"mix", "ref.sines", "ref.modulated", "est.sines", "est.modulated"}
    validated = {f"{step:08d}/valid-0-{n}.wav" for step in (0, 5, 10, 12) for n in names}
    heard = {f"{step:08d}/train-0-{n}.wav" for step in (5, 10) for n in names}
    assert sounds >= validated | heard if files else not sounds
    for path in sounds:
        sound, rate = audio.read(folder / "run/audio" / path)
        assert rate == 16000
        assert np.isfinite(sound).all()
    if files:
        parts = [
            audio.read(folder / f"run/audio/00000005/train-0-{name}.wav")[0]
            for name in ("mix", "ref.sines", "ref.modulated")
        ]
        np.testing.assert_allclose(parts[0], parts[1] + parts[2], atol=1e-5)
        trained("--overwrite")
        assert not list(folder.glob("run/audio/*/*"))


def test_listening_changes_no_weight_and_may_begin_on_resume(folder):
    trained()
    trained("--set", "train.audio_every=3", output="heard")
    for plain, heard in zip(weights("run"), weights("heard"), strict=True):
        torch.testing.assert_close(plain, heard, rtol=0, atol=0)
    more = ("--set", "train.audio_every=7", "--set", "train.audio_files=true")
    trained("--resume", "--set", "train.steps=15", *more, output="heard")
    kept = {path.name for path in folder.glob("heard/audio/*")}
    assert kept == {"00000014", "00000015"}  # a step, and the last validation


def test_the_picture_of_a_sine_is_one_white_row_at_its_frequency_counted_from_the_bottom():
    sine = torch.sin(2 * torch.pi * 40 / 512 * torch.arange(8000))  # in bin 40 of 0...256
    picture = runlog.spectrogram(sine)[0, :, 2:-2]  # (F, N)
    assert picture.shape[0] == 257
    assert picture[256 - 40].min() == pytest.approx(1, abs=1e-3)
    assert picture.median() == 0


def test_the_configuration_in_the_run_folder_is_complete_and_gives_the_same_run(folder):
    trained("--set", "train.lr=3e-3")
    complete = config.load("run/config.yaml")
    assert complete["train"]["lr"] == 0.003
    assert complete["train"]["clip"] == 5.0  # a default
    assert not config.differences(complete, runs.resolve(complete))
    assert sepcli("run/config.yaml", "-o", "again").exit_code == 0
    assert_same_run("run", "again")


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
    assert result.stderr.startswith(f"Begins with {count} tensors of first, which are all\n")
    best = json.loads((folder / "first/scores.json").read_text())
    assert records()[0]["si_sdr_db"] == pytest.approx(best["si_sdr_db"], abs=1e-4)
    assert config.load("run/config.yaml")["train"]["init"] == "first"
    (folder / "first/best.safetensors").unlink()  # is not needed any more
    trained("--resume", "--set", "train.steps=2", "--set", "train.lr=1e-12")
    assert config.load("run/config.yaml")["train"]["init"] == "first"


def test_what_does_not_fit_of_other_weights_is_named():
    trained(output="first")
    more = trained("--init", "first", "--set", "model.blocks=3", "--set", "train.steps=1").stderr
    assert "tensors of first; new: " in more
    assert ", separator.tcn.blocks.2." in more.splitlines()[0]
    assert " more" in more.splitlines()[0]
    line = sepcli("tiny.yaml", "--init", "first", "--set", "model.hidden=5").stderr
    assert re.match(
        r"Error: first: \d+ tensors have another shape \(.*blocks.* 5x4x1.*; .* more\);", line
    )
    assert line.count("\n") == 1
    line = sepcli("tiny.yaml", "--init", "vocals").stderr
    assert line == "Error: vocals: a mask_unet, whose weights have other names than this model\n"
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
