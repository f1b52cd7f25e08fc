"""`sepcli quantize` as a user runs it, and fine-tuning that can be taken up again."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.models import build, modelfile
from sepcli.quant import cpu
from sepcli.runs import quantize
from sepcli.runs.runs import CHECKPOINT

SETTINGS = {
    "filters": 16, "bottleneck": 8, "hidden": 8, "skip": 8, "blocks": 2, "repeats": 1,
    "sources": ["modulated", "sines"],
}  # fmt: skip
DATA = {"kind": "toy", "duration_s": 0.25}


@pytest.fixture
def model(tmp_path):
    """A model file that learned nothing, and says what it would have learned from."""
    torch.manual_seed(0)
    card = {
        "data": {"train": DATA, "valid": {**DATA, "items": 4, "seed": 5}},
        "train": {"batch": 2, "mixture_consistency": True},
        "summary": "A test.",
        "scores": {"si_sdr_db": 0},
    }
    path = tmp_path / "tiny.safetensors"
    network = build("conv_tasnet", init="random", **SETTINGS)
    modelfile.save(path, "conv_tasnet", SETTINGS, network.state_dict(), card)
    return path


def invoke(*args):
    return CliRunner().invoke(main, ["quantize", *map(str, args)])


def quantised(model, *args):
    """The report on `model` after calibration with a second of sound."""
    out = model.with_name("int8.safetensors")
    short = "--calib-minutes", "0.02", "--items", "2", "--no-onnx"
    result = invoke(model, "-o", out, *short, "--max-drop", "9", "--json", *args)
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_a_quantised_model_runs_like_any_other(model):
    out, report = quantised(model)
    scores = report["scores"]
    assert scores["integer"] == scores["fake_quantised"] != scores["float"]
    loss = scores["float"]["si_sdr_db"] - scores["integer"]["si_sdr_db"]
    assert report["si_sdr_drop_db"] == pytest.approx(loss)
    assert report["weight_bytes"] == sum(row["weight_bytes"] for row in report["layers"])
    assert report["calibration_minutes"] == 0.02
    about = sepcli.describe(out)["card"]["quantized"]
    assert (about["target"], about["mode"], about["parent"]) == ("cpu", "ptq", model.name)
    assert about["parent_sha256"] == modelfile.digest(model)
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    before = sepcli.load(model).separate(audio, 16000)
    after = sepcli.load(out).separate(audio, 16000)
    error = sum(np.square(before[name] - after[name]).sum() for name in before)
    assert 0 < error < 1e-3 * sum(np.square(x).sum() for x in before.values())


def test_the_table_names_layers_bytes_and_scores(model):
    out = model.with_name("int8.safetensors")
    result = invoke(model, "-o", out, "--calib-minutes", "0.01", "--items", "1", "--no-onnx")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["layer", "op", "in", "out", "weights", "activations"]
    assert lines[3].split() == ["separator.bottleneck", "Conv1d", "16x1", "8x1", "192", "8"]
    assert any(line.startswith("total, bytes") for line in lines)
    assert any(line.startswith("integer") and "si_sdr_db" in line for line in lines)
    assert lines[-1] == f"{out}: {out.stat().st_size:,} bytes"


def test_a_lost_decibel_is_an_error_and_nothing_is_written(model):
    out = model.with_name("int8.safetensors")
    short = "--calib-minutes", "0.01", "--items", "1", "--no-onnx"
    result = invoke(model, "-o", out, *short, "--max-drop", "-9")
    assert result.exit_code == 1
    assert "dB SI-SDR in cpu integers, more than --max-drop -9; fine-tune" in result.stderr
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_too_many_bytes_are_an_error_that_names_the_largest_layer(model):
    out = model.with_name("int8.safetensors")
    short = "--calib-minutes", "0.01", "--items", "1", "--no-onnx", "--max-drop", "9"
    result = invoke(model, "-o", out, *short, "--budget", "1000")
    assert result.exit_code == 1
    assert "bytes of weights, more than the budget of 1,000; the largest layer is" in result.stderr
    assert not out.exists()


def test_a_model_is_quantised_once(model):
    out, _ = quantised(model)
    result = invoke(out, "-o", model.with_name("again.safetensors"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {out}: quantised already; start from the model that it was made from\n",
    )


def test_the_graph_of_a_quantised_model_is_not_exported_anew(model):
    out, _ = quantised(model)
    result = CliRunner().invoke(main, ["export", str(out), "-o", str(out.with_name("x.onnx"))])
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {out}: quantised; sepcli quantize wrote its graph beside it\n",
    )


def test_an_output_that_exists_stays_unless_told_otherwise(model):
    out, _ = quantised(model)
    result = invoke(model, "-o", out)
    assert result.exit_code == 1
    assert "exists; use --overwrite or --skip-existing" in result.stderr
    quantised(model, "--overwrite")


@pytest.mark.parametrize(
    ("output", "blocked"),
    [("int8.safetensors", "int8.onnx"), ("folder", "folder/tiny-cpu.safetensors")],
)
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    model, monkeypatch, output, blocked
):
    monkeypatch.setattr(quantize, "calibrate", None)
    (model.parent / blocked).mkdir(parents=True)
    result = invoke(model, "-o", model.with_name(output), "--overwrite")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {model.parent / blocked}: a folder; name a file in it\n",
    )


def test_the_name_of_a_graph_is_not_that_of_a_model(model):
    result = invoke(model, "-o", model.with_name("int8.onnx"))
    assert result.exit_code == 2
    assert "name the model file; its graph is written beside it" in result.stderr


def test_calibration_with_recordings_at_another_rate(model, tmp_path):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise = np.random.default_rng(0).standard_normal((2, 4410)).astype(np.float32)
    sepcli.write(sounds / "a.wav", 0.1 * noise, 44100)
    _, report = quantised(model, "--calib", sounds, "--calib-minutes", "1")
    assert report["calibration_minutes"] == pytest.approx(2 * 0.1 / 60, abs=0.01)


def test_recordings_that_cannot_be_read_are_left_out_of_the_calibration(model, tmp_path):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name in ("a", "c"):
        sepcli.write(sounds / f"{name}.wav", 0.1 * np.ones((1, 1600), np.float32), 16000)
    (sounds / "b.wav").write_text("no sound")
    (sounds / "d.wav").write_bytes(b"")
    told = []
    network, _ = modelfile.load_model(model)
    heard = list(quantize.heard(sounds, network, told.append))
    assert [signal.shape for signal in heard] == [(1, 1, 1600)] * 2
    assert [record["event"] for record in told] == ["warning"] * 2
    assert all(record["message"].endswith("; left out of the calibration") for record in told)
    quantised(model, "--calib", sounds)


def test_silence_without_samples_calibrates_nothing():
    twin = cpu.prepare(build("conv_tasnet", **SETTINGS))
    with pytest.raises(SepcliError, match="nothing to calibrate with: name samples or sound"):
        quantize.calibrate(twin, [np.zeros((1, 1, 0), np.float32)], 1.0)


def test_more_sound_than_asked_for_is_not_heard():
    twin = cpu.prepare(build("conv_tasnet", **SETTINGS))
    quiet, loud = np.full((2, 1, 1600), 0.1, np.float32), np.ones((1, 1, 16000), np.float32)
    assert quantize.calibrate(twin, [quiet, loud], 0.1 / 60) == pytest.approx(0.1 / 60)
    assert not any(layer.phase == "observe" for layer in twin.grids)


def fine_tuned(model, folder, *args):
    out = folder / "int8.safetensors"
    result = invoke(
        model, "-o", out, "--mode", "qat", "--steps", 6, "--lr", "1e-3", "--calib-minutes", "0.02",
        "--items", "2", "--no-onnx", "--max-drop", "9", "--set", "train.validate_every=2",
        "--json", *args,
    )  # fmt: skip
    return out, result


def test_fine_tuning_goes_on_where_it_was_stopped(model, tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    out, result = fine_tuned(model, whole)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 6

    def stop_at(record):
        if record["event"] == "step" and record["step"] == 3:
            raise ZeroDivisionError

    monkeypatch.setattr("sepcli.commands.quantize.teller", lambda *_: stop_at)
    assert isinstance(fine_tuned(model, halves)[1].exception, ZeroDivisionError)
    monkeypatch.undo()
    _, resumed = fine_tuned(model, halves, "--resume")
    assert resumed.exit_code == 0, resumed.output
    states = [
        torch.load(folder / "int8.qat" / CHECKPOINT, weights_only=True)["model"]
        for folder in (whole, halves)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert out.read_bytes() == (halves / out.name).read_bytes()


def test_ranges_move_first_and_are_frozen_in_the_end(model, tmp_path):
    network, card = modelfile.load_model(model)
    config = {"train": {"steps": 4, "validate_every": 9}}
    choices = quantize.Choices(mode="qat", config=config, items=1, folder=str(tmp_path / "run"))
    twin = cpu.prepare(network)
    quantize.calibrate(twin, [np.full((1, 1, 1600), 1e-3, np.float32)], 1.0)
    ranges = []

    def note(record):
        if record["event"] == "step":
            ranges.append(torch.cat([g.high[None] for g in twin.grids]).clone())

    settings = quantize.resolve(card, choices)
    quantize.fine_tune(twin, card, settings, {"target": "cpu"}, choices, note)
    assert not torch.equal(ranges[0], ranges[1])
    assert torch.equal(ranges[2], ranges[3])


def test_averaged_weights_are_refused(model):
    result = invoke(model, "--mode", "qat", "--set", "train.ema=0.9", "-o", model.with_name("x"))
    assert (result.exit_code, result.stderr) == (
        1, "Error: train.ema: the ranges of tensors are not averaged; leave it out\n"
    )  # fmt: skip


def test_integers_that_differ_are_refused(model, monkeypatch):
    monkeypatch.setattr(cpu, "shift_half_even", lambda total, shift: total >> shift)
    result = invoke(model, "--calib-minutes", "0.01", "-o", model.with_name("x.safetensors"))
    assert result.exit_code == 1
    assert "item 0: the integer and the fake-quantised model differ" in result.stderr


def test_own_data_are_used_only_if_they_need_no_files():
    card = modelfile.Card("x", "conv_tasnet", {}, {"data": {"train": DATA, "valid": DATA}})
    assert quantize.resolve(card, quantize.Choices())["data"]["valid"]["kind"] == "toy"
    on_disk = {"kind": "mixtures", "speech": ["here"]}
    card = modelfile.Card("x", "conv_tasnet", {}, {"data": {"train": on_disk, "valid": on_disk}})
    data = quantize.resolve(card, quantize.Choices(items=7))["data"]
    assert (data["valid"]["speech"], data["valid"]["items"]) == ((), 7)
