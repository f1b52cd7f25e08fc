"""`sepcli export-max78000 --check`: what keeps a model off the chip."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from sepcli.max78000 import export as exporting
from sepcli.max78000.check import check
from sepcli.max78000.export import export
from sepcli.models import build
from tests.chips import make, run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def tasnet(tmp_path):
    path = tmp_path / "tasnet.yaml"
    path.write_text("model: {name: conv_tasnet, bias: false}")
    return path


def test_the_check_of_the_tasnet_finds_every_depthwise_convolution_and_its_cost(tasnet):
    """Published figures: 241,024 weights, dense 458,752; 1,374 columns of the blocks alone."""
    about = check(tasnet)
    assert (about["totals"]["weights"], about["totals"]["weights_all"]) == (241_024, 458_752)
    rows = {row["name"]: row for row in about["layers"]}
    depthwise = [row for name, row in rows.items() if name.endswith("depthwise.0")]
    assert len(depthwise) == 18
    for row in depthwise:
        assert row["violations"] == ["64 groups: the chip has 1"]
        assert row["replacement"] == "a dense convolution, 192 -> 12,288 weights"
    assert sum(row["columns"] for name, row in rows.items() if ".blocks." in name) == 1374
    assert "stride 16: the chip has 1" in rows["encoder.conv"]["violations"]
    assert "which is exact" in rows["encoder.conv"]["replacement"]
    assert about["violations"][-3:] == [
        "in all: 144 layers, the chip has 32",
        "in all: 454,656 bytes of weights, the chip has 442,368",
        "in all: 1,403 weight columns, the chip has 768",
    ]


def test_the_check_tells_the_activations_of_each_layer_and_what_is_kept(tasnet):
    """Of one hop; published: the blocks keep 24,192 values; 3 * 16 samples are kept outside."""
    about = check(tasnet)
    rows = {row["name"]: row for row in about["layers"]}
    dilated = rows["separator.tcn.blocks.17.depthwise.0"]
    assert (dilated["inputs"], dilated["output"]) == (((64, 65),), (64, 1))
    assert dilated["activation_bytes"] == 64 * 65 + 64
    assert rows["encoder.conv"]["inputs"] == ((1, 32),)
    assert about["totals"]["state_bytes"] == 24_192 + 3 * 16
    text = run(tasnet, "--check").stdout
    assert "4,224 bytes at most, in separator.tcn.blocks.5.depthwise.0" in text
    assert "24,240 bytes of past, kept from hop to hop" in text


def test_the_check_of_dense_convolutions_finds_no_groups(tasnet):
    tasnet.write_text("model: {name: conv_tasnet, bias: false, depthwise: false}")
    about = check(tasnet)
    assert not any("groups" in line for line in about["violations"])
    assert about["totals"]["weights"] == about["totals"]["weights_all"] == 458_752


def test_the_check_knows_which_batch_norm_folds(tmp_path):
    def unfoldable(**settings):
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({"model": {"name": "conv_tasnet", **settings}}))
        return sum("cannot be folded" in line for line in check(path)["violations"])

    assert unfoldable() == 36
    assert unfoldable(norm_first=True) == 0


def test_the_check_counts_the_weights_of_recurrent_networks(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("model: {name: open_unmix, hidden: 32}")
    model = build("open_unmix", hidden=32)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert check(path)["totals"]["weights"] == matrices


def test_the_check_fails_with_1_and_writes_nothing(tasnet):
    result = run(tasnet, "--check")
    assert result.exit_code == 1
    assert "blocks.13.depthwise.0  64 groups: the chip has 1 -> a dense conv" in result.stdout
    assert "PReLU: the chip has none -> ReLU, and train again" in result.stdout
    assert "sigmoid: the chip has none -> a table of 256 values" in result.stdout
    assert "241,024 weights become 458,752" in result.stdout
    assert result.stdout.endswith("tasnet.yaml cannot run on the MAX78000 as it is.\n")
    assert os.listdir(tasnet.parent) == ["tasnet.yaml"]
    about = json.loads(run(tasnet, "--check", "--json").stdout)
    assert about["totals"]["weights_dense"] == 454_656


def test_the_check_of_a_model_that_fits_says_so(model):
    result = run(model, "--check")
    assert result.exit_code == 0, result.stderr
    assert "10 layers, of 32" in result.stdout
    assert re.search(r"keep2 +64x\d+ +64x20 +[\d,]+ bytes  copy", result.stdout)
    assert result.stdout.endswith("can run on the MAX78000.\n")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"name": "conv_tasnet", "norm": "cln"}, "norm over each frame"),
        ({"name": "conv_tasnet", "norm": "gln", "causal": False}, "norm over time"),
        ({"name": "conv_tasnet", "tcn_kernel": 5}, "5 taps with dilation 4: the chip has 3 taps"),
        ({"name": "spectral_tasnet"}, "Fourier transform: the chip has none"),
        ({"name": "dmgtcm_unet", "width": 8}, "kernel 1x4: the chip has 1x1 and 3x3"),
        ({"name": "open_unmix", "hidden": 32}, "LSTM: the chip has none"),
    ],
)
def test_the_check_names_what_other_models_need(tmp_path, settings, found):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"model": settings}))
    assert any(found in line for line in check(path)["violations"])


def test_the_check_of_an_export_finds_what_was_changed_since(model, tmp_path):
    folder = tmp_path / "chip"
    export(model, folder)
    assert run(folder, "--check").exit_code == 0
    text = (folder / "network.yaml").read_text()
    (folder / "network.yaml").write_text(text.replace("pad: 0", "pad: 3", 1))
    result = run(folder, "--check")
    assert result.exit_code == 1
    assert "layer 0 (bottleneck): pad 3, the chip has 0 to 0 for 1 taps\n" in result.stdout
    (folder / "network.yaml").write_text(text)
    expected = np.load(folder / "expected_output.npy")
    expected[5, 5] += 1
    np.save(folder / "expected_output.npy", expected)
    result = run(folder, "--check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["violations"] == [
        "expected_output.npy is not what the network computes of sample_input.npy"
    ]


@pytest.mark.parametrize("name", ["network.yaml", "checkpoint.pth.tar", "sample_input.npy"])
@pytest.mark.parametrize("data", [b"", b"[1, 2]", b"layers: 3"])
def test_a_file_that_is_no_part_of_an_export_is_one_line(model, tmp_path, name, data):
    export(model, tmp_path / "chip")
    (tmp_path / "chip" / name).write_bytes(data)
    result = run(tmp_path / "chip", "--check")
    assert result.exit_code == 1
    assert result.stderr.count("\n") <= 1
    assert "not an export of sepcli" in result.stderr or "lacks" in result.stdout


def test_every_template_is_in_the_package():
    for name in ("host.c", "host.h"):
        assert Path(exporting.__file__).with_name(name).is_file()
