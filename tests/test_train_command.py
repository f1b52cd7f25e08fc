"""`sepcli train` and its run folder: what is written, how it stops, and how it goes on."""

import json

import numpy as np
import pytest
import torch

from sepcli import audio, config
from sepcli.models import modelfile
from sepcli.runs import runlog, runs
from tests.trainings import assert_same_run, records, sepcli, trained, weights

FILES = {"best.safetensors", "config.yaml", "last.ckpt", "last.safetensors", "metrics.jsonl"}

pytestmark = pytest.mark.usefixtures("folder")


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
