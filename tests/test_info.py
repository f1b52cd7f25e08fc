import json
import re

import pytest
from click.testing import CliRunner

from sepcli.about import describe
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.models import MODELS, build, modelfile


def invoke(*args):
    return CliRunner().invoke(main, ["info", *map(str, args)])


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "net.safetensors"
    model = build("conv_tasnet")
    card = {"licence": "MIT", "data": ["a", "b"], "scores": {"si_sdri_db": 5.25}}
    modelfile.save(path, "conv_tasnet", {}, model.state_dict(), card)
    return path


def test_the_facts_of_the_tiny_network(model_file):
    about = json.loads(invoke(model_file, "--json").stdout)
    assert about["parameters"] == 250_469
    assert about["latency_ms"] == 2.0  # one window of 32 samples at 16 kHz
    assert about["receptive_field_ms"] == 380.0
    assert about["sources"] == ["speech", "noise"]
    assert about["card"]["scores"] == {"si_sdri_db": 5.25}
    assert len(about["sha256"]) == 64


def test_the_work_of_the_tiny_network():
    """1,001 frames of 241,024 weights without the decoder's 2,048, which runs for both sources."""
    macs = describe_config("name: conv_tasnet\n")["macs_per_second"]
    frames = 16000 // 16 + 1
    assert macs == frames * (241_024 - 2 * 2048) + frames * 2048 + 2 * frames * 2048


def describe_config(model):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text("model:\n" + "".join(f"  {line}\n" for line in model.splitlines()))
        return describe(path)


def test_the_table_has_units_and_grouped_numbers(model_file):
    lines = invoke(model_file).stdout.splitlines()
    assert any(line.split() == ["parameters", "250,469"] for line in lines)
    assert any(line.split() == ["sample_rate", "16000"] for line in lines)
    assert any(line.split() == ["data", "a,", "b"] for line in lines)
    assert any(line.split() == ["si_sdri_db", "5.25"] for line in lines)


def test_without_a_name_models_and_architectures_are_a_table():
    result = invoke()
    assert (result.exit_code, result.stderr) == (0, "")
    shipped, architectures, hint = result.stdout.split("\n\n")
    rows = {line.split()[0]: re.split("  +", line)[1:] for line in shipped.splitlines()}
    assert rows.pop("model") == ["architecture", "parameters", "Hz", "latency ms", "sources"]
    assert list(rows) == modelfile.shipped()
    assert rows["vocals"] == [
        "deep_unet", "4,705,760", "44100", "not causal", "vocals, accompaniment",
    ]  # fmt: skip
    rows = {line.split()[0]: line for line in architectures.splitlines()[1:]}
    assert list(rows) == list(MODELS)
    assert "conv_tasnet         250,469  16000           2  speech, noise" in rows["conv_tasnet"]
    assert rows["open_unmix"].endswith("magnitude spectrograms, one for each source of a song.")
    assert hint.startswith("sepcli info MODEL")


def test_json_without_a_name_is_the_cards_of_the_shipped_models():
    output = invoke("--json").stdout.splitlines()
    files = {json.loads(line)["file"].rsplit("/", 1)[1] for line in output}
    assert files == {f"{name}.safetensors" for name in modelfile.shipped()}
    assert "denoise.safetensors" in files


def test_a_missing_model_is_one_line():
    result = invoke("nothing")
    assert result.exit_code == 1
    assert "Error: no model 'nothing': neither a file nor one of the models" in result.stderr


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("name: convtasnet", "unknown model 'convtasnet'; choose from "),
        ("name: conv_tasnet\nfilter: 3", "filter"),
        ("norm: bn", "no model section with a name"),
    ],
)
def test_a_configuration_that_describes_no_model_is_one_line(tmp_path, model, line):
    path = tmp_path / "c.yaml"
    path.write_text("model:\n" + "".join(f"  {part}\n" for part in model.splitlines()))
    result = invoke(path)
    assert result.exit_code == 1
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_work_of_attention_is_counted():
    """Of L tokens of D features: L (12 D^2) by weights, with an expansion of 4, and 2 L^2 D."""
    from sepcli.about import macs_per_second
    from sepcli.models.tfswa_unet import TfswaUnet

    small = {"sample_rate": 992, "channels": 1, "window": 64, "hop": 32, "heads": 1, "tile": 4}
    one, two = (
        macs_per_second(TfswaUnet(**small, shift=0, dims=(4,), depths=(n,))) for n in (1, 2)
    )
    N, F, D = 32, 32, 4
    layers = 3 * N * F * 12 * D**2 + 2 * N * F * D * (N + F + 4 * 4)
    assert two - one == layers + N * F * 4 * D**2


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_a_model_says_of_itself_needs_no_numbers(name, monkeypatch, tmp_path):
    """Each can be built on torch's device meta, and is the same there."""
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{name: {name}}}\n")
    whole = describe(path)
    monkeypatch.setattr("sepcli.about.LARGE", 0)
    del whole["macs_per_second"]
    assert describe(path) == whole


def test_the_numbers_of_a_large_configuration_are_not_made():
    """1.2 TB as float32, which no machine that runs this has."""
    about = describe_config("name: open_unmix\nhidden: 120000\n")
    assert about["parameters"] == 288_852_015_268
    assert "macs_per_second" not in about


def test_what_needs_numbers_to_be_built_is_built_with_them(monkeypatch, tmp_path):
    """Such as a model of one's own, however large."""
    (tmp_path / "counted_net.py").write_text(
        "from torch import linspace, nn\n"
        "class Net(nn.Module):\n"
        "    sample_rate, channels, sources = 8000, 1, ('a', 'b')\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv1d(1, 2, int(linspace(1, 9, 3).max()), padding='same')\n"
        "    def forward(self, x):\n"
        "        return self.conv(x)[:, :, None]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sepcli.about.LARGE", 0)
    about = describe_config("name: counted_net:Net\n")
    assert (about["parameters"], about["macs_per_second"]) == (20, 2 * 9 * 8000)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("hidden: wide", "model.hidden must be a whole number, not 'wide'"),
        ("hidden: [1]", "model.hidden must be a whole number, not [1]"),
        ("hiden: 8", "unknown setting model.hiden; did you mean hidden?"),
    ],
)
def test_settings_of_a_model_are_checked_as_for_a_training(settings, reason):
    with pytest.raises(SepcliError, match=rf"config\.yaml: {re.escape(reason)}"):
        describe_config(f"name: open_unmix\n{settings}\n")
    assert describe_config("name: open_unmix\nhidden: 8.0\n")["settings"] == {"hidden": 8}


def test_lists_of_settings_are_names_with_commas(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {name: open_unmix, sources: [vocals, drums]}\n")
    assert re.search(r"^  sources +vocals, drums$", invoke(path).stdout, re.MULTILINE)
