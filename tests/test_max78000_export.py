"""Exports as files: what is in them, that they compute the same, and all that is refused."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.errors import SepcliError
from sepcli.max78000 import export as exporting
from sepcli.max78000 import files
from sepcli.max78000.export import FILES, Package, export, write
from sepcli.max78000.plan import plan
from sepcli.models import build
from sepcli.models.modelfile import save
from sepcli.quant import chip
from tests.chips import QUANTISED, calibrated, make, run, tcn, window


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def read(folder):
    """The parsed files of an export: YAML, checkpoint, sample and expected output."""
    return (
        yaml.safe_load((folder / "network.yaml").read_text()),
        torch.load(folder / "checkpoint.pth.tar", weights_only=True),
        np.load(folder / "sample_input.npy"),
        np.load(folder / "expected_output.npy"),
    )


def test_an_export_has_all_files_in_the_types_that_the_tool_asks_for(model, tmp_path):
    about = export(model, tmp_path / "chip")
    assert {path.name for path in (tmp_path / "chip").iterdir()} == set(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["chip"]
    config, checkpoint, sample, expected = read(tmp_path / "chip")
    assert (sample.dtype, sample.shape) == (np.int64, (64, 20 + 2 * (1 + 4) + 2))
    assert (expected.dtype, expected.shape) == (np.int64, (128, 20))
    assert (checkpoint["epoch"], checkpoint["arch"]) == (0, config["arch"])
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint["state_dict"].values())
    weights = [key for key in checkpoint["state_dict"] if key.endswith(".weight")]
    convolutions = [e["name"] for e in config["layers"] if e["operation"] == "Conv1d"]
    assert weights == [f"{name}.op.weight" for name in convolutions]
    assert json.loads((tmp_path / "chip" / "report.json").read_text()) == about
    assert 0 < np.abs(sample).max() <= 127
    assert np.ptp(expected) > 20


def test_the_tool_is_told_whose_output_is_read_where_it_would_guess(model, tmp_path):
    """It warns of each layer with an offset of its own that does not say so."""
    export(model, tmp_path / "chip")
    layers = read(tmp_path / "chip")[0]["layers"]
    cropped = [e for e in layers if e.get("in_crop", [0])[0]]
    assert len(cropped) == 2
    for before, entry in pairwise(layers):
        assert entry["in_offset"] == before["out_offset"] or "in_sequences" in entry
    assert "--no-version-check" in (tmp_path / "chip" / "report.md").read_text()


def test_the_sample_gives_what_the_model_itself_computes(model, tmp_path):
    export(model, tmp_path / "chip")
    _, _, sample, expected = read(tmp_path / "chip")
    float_model = calibrated(hidden=16, dilations=[1, 4])
    features = torch.from_numpy(sample[None]).float() * 2.0**-float_model.tcn.features.exponent
    with torch.no_grad():
        logits, _ = float_model.tcn.step(features, float_model.tcn.initial_state(1))
    stored = (logits * 2.0**float_model.tcn.logits.exponent)[0].numpy()
    history = 2 * (1 + 4)  # frames; 2 more at the end are cropped
    np.testing.assert_array_equal(expected, stored[:, history : history + 20])


@settings(max_examples=20, deadline=None)
@given(
    dilations=st.lists(st.integers(1, 32), max_size=7),
    hidden=st.sampled_from([4, 48, 52, 64, 96]),
    inputs=st.sampled_from([20, 64, 128]),
    frames=st.integers(1, 40),
    bias=st.booleans(),
    bits=st.sampled_from([2, 4, 8]),
)
def test_what_is_read_back_computes_the_same(
    tmp_path_factory, dilations, hidden, inputs, frames, bias, bits
):
    network = tcn(dilations, hidden=hidden, inputs=inputs, bias=bias, bits=bits)
    if sum(d > 2 for d in dilations) * hidden * bits > 6 * 64 * 8:
        return  # too many weights, perhaps
    folder = tmp_path_factory.mktemp("chip") / "x"
    sample = window(network, frames)
    write(Package(plan(network, frames), sample), folder)
    config, checkpoint, stored, expected = read(folder)
    np.testing.assert_array_equal(expected, chip.run(network, sample))
    np.testing.assert_array_equal(chip.run(files.network(config, checkpoint), stored), expected)


def streamed(network, x):
    """All outputs of a network without biases, after silence, by convolutions of torch."""
    known = {chip.INPUT: torch.from_numpy(x).double()[None]}
    for layer in network.layers:
        x = known[layer.inputs[0]]
        if layer.kind == "conv":
            weight = torch.from_numpy(layer.weight).double()
            left = (layer.weight.shape[2] - 1) * layer.dilation
            x = torch.nn.functional.pad(x, (left, 0))
            x = torch.nn.functional.conv1d(x, weight, dilation=layer.dilation)
            x = (x * 2.0 ** (layer.output_shift - 7) + 0.5).floor()
            x = x.clamp(0 if layer.relu else -128, 127)
        elif layer.kind == "add":
            x = (x + known[layer.inputs[1]]).clamp(-128, 127)
        known[layer.name] = x
    return x[0].numpy()


def test_windows_run_by_run_give_what_the_stream_gives():
    network, frames, runs = tcn((1, 2, 8)), 20, 12
    rng = np.random.default_rng(0)
    x = rng.integers(0, 128, (64, frames * runs))
    history = network.context - network.dummies
    past = np.pad(x, ((0, 0), (history, 0)))
    parts = []
    for at in range(0, x.shape[1], frames):
        whatever = rng.integers(-128, 128, (64, network.dummies))
        piece = np.concatenate([past[:, at : at + history + frames], whatever], 1)
        parts.append(chip.run(network, piece))
    np.testing.assert_array_equal(np.concatenate(parts, 1), streamed(network, x))


def test_the_command_says_what_it_made(model, tmp_path):
    result = run(model, "-o", tmp_path / "chip", "--frames", 10)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path / 'chip'}: 10 layers, ")
    assert result.stdout.endswith("ms per 10 ms of audio\n")
    about = json.loads(run(model, "-o", tmp_path / "chip", "--json", "--overwrite").stdout)
    assert (about["frames_per_run"], about["latency_ms"]) == (20, 21)
    assert about["totals"]["layers"] == len(about["layers"]) == 10
    assert about["totals"]["cycles"] == sum(layer["cycles"] for layer in about["layers"])
    assert about["host"]["macs_per_frame"] == 64 * 33 * 3
    assert about["sha256"]


def test_the_report_has_a_row_per_layer_and_is_honest(model, tmp_path):
    export(model, tmp_path / "chip")
    text = (tmp_path / "chip" / "report.md").read_text()
    assert text.startswith("# tiny on the MAX78000\n")
    assert "Not tried on silicon" in text
    assert all(name in text for name in FILES if name.endswith((".yaml", ".tar", ".npy")))
    assert "| 6 dilated2 | Conv1d 3, dilation 4, ReLU | 64x29 | 16x21 | 3,072 | 16 | " in text
    rows = [line.split()[1] for line in text.splitlines() if line.startswith("| ")]
    assert [cell for cell in rows if cell.isdigit()] == [str(i) for i in range(10)]


def test_an_export_is_replaced_only_when_told_so_and_nothing_else_ever(model, tmp_path):
    folder = tmp_path / "chip"
    export(model, folder, frames=10)
    before = (folder / "network.yaml").read_text()
    refused = run(model, "-o", folder)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.endswith("chip: exists; use --overwrite or --skip-existing\n")
    assert run(model, "-o", folder, "--skip-existing").exit_code == 0
    assert (folder / "network.yaml").read_text() == before
    assert run(model, "-o", folder, "--overwrite").exit_code == 0
    assert (folder / "network.yaml").read_text() != before
    (folder / "notes.txt").write_text("mine")
    result = run(model, "-o", folder, "--overwrite")
    assert result.exit_code == 1
    assert "holds more than an export; choose another folder" in result.stderr
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["chip"]


def test_an_export_that_fails_half_way_leaves_nothing(model, tmp_path, monkeypatch):
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda what, path: real({**what, "epoch": None}, path))
    with pytest.raises(SepcliError, match="the checkpoint lacks `epoch`"):
        export(model, tmp_path / "chip")
    assert not os.listdir(tmp_path)


def test_files_that_compute_something_else_are_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.chip, "run", lambda network, x: np.random.random((128, 20)))
    with pytest.raises(SepcliError, match=r"expected_output\.npy is not what the network"):
        export(model, tmp_path / "chip")
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(model, "-o", tmp_path / "file" / "chip")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "file: a file, where a folder is needed; choose another place" in result.stderr


def test_a_run_that_takes_longer_than_its_audio_is_remarked_on(tmp_path):
    path = make(tmp_path / "x.safetensors", dilations=[32, 64], hidden=64)
    result = run(path, "-o", tmp_path / "chip", "--frames", 1)
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
    assert result.stderr.startswith("Too slow to run live: more --frames")
    assert not run(path, "-o", tmp_path / "chip", "--overwrite").stderr


def test_a_missing_output_is_asked_for(model):
    result = run(model)
    assert result.exit_code == 2
    assert "name a folder with -o, or --check" in result.stderr


@pytest.mark.parametrize(
    ("changed", "frames", "message"),
    [
        (
            {"hidden": 128, "dilations": [1, 2, 4, 8, 16, 32, 64]},
            20,
            "layer 26 (dilated7): its weights end at column 860 of 768: the kernel memory is",
        ),
        ({"dilations": [1] * 8}, 20, "layer 32 (add8): 34 layers, the chip has 32"),
        ({}, 1012, "layer 0 (bottleneck): 1024 frames of input, the chip takes 1 to 1023"),
    ],
)
def test_what_does_not_fit_is_refused_with_layer_and_number(tmp_path, changed, frames, message):
    path = make(tmp_path / "x.safetensors", **changed)
    result = run(path, "-o", tmp_path / "chip", "--frames", frames)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path}: does not fit the MAX78000: {message}")
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_shift_that_the_chip_does_not_have_is_refused(tmp_path):
    settings = {"hidden": 16, "dilations": [1]}
    model = calibrated(**settings)
    for extreme in (model.tcn.stream.low, model.tcn.stream.high):
        extreme.fill_(2.0**-18)
    path = tmp_path / "x.safetensors"
    save(path, "tcn_max78000", settings, model.state_dict(), QUANTISED)
    result = run(path, "-o", tmp_path / "chip")
    assert result.exit_code == 1
    assert "output shift" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_model_in_floating_point_is_to_be_quantised_first(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, "tcn_max78000", {}, build("tcn_max78000").state_dict(), {})
    result = run(path, "-o", tmp_path / "chip")
    assert result.exit_code == 1
    assert f"not quantised; do that first: sepcli quantize {path}" in result.stderr


def test_a_model_of_another_kind_is_pointed_to_the_check(tmp_path):
    result = run("denoise", "-o", tmp_path / "chip")
    assert result.exit_code == 1
    assert "`sepcli export-max78000 denoise --check` lists what prevents it" in result.stderr
