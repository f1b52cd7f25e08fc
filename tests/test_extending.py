"""A kind of data, a loss, a metric and a command of one's own: one file and one line each."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import sepcli
from sepcli import cli
from sepcli.data.datasets import KINDS, Kind
from sepcli.losses import LOSSES, Loss
from sepcli.metrics import METRICS, Metric
from sepcli.runs.runs import resolve
from sepcli.runs.trial import dry_run

PACKAGE = '''
from dataclasses import dataclass

import click
import numpy as np

from sepcli.metrics.bsseval import Frames
from sepcli.metrics.score import Score
from sepcli.mixing.source import Drawn, Source


@dataclass(frozen=True)
class ClicksSpec:
    sample_rate: int = 16000
    every: int = 100


class Clicks(Source):
    def __init__(self, spec):
        self.spec = spec

    def draw(self, seed, index, step=None):
        clicks = np.zeros((1, 2000), np.float32)
        clicks[:, :: self.spec.every] = 0.5
        hum = np.full((1, 2000), 0.1 * (1 + index), np.float32)
        return Drawn(clicks + hum, {"clicks": clicks, "hum": hum})


def cubed(estimate, reference, *, scale=1.0):
    return scale * (estimate - reference).abs().pow(3).mean()


def peak(estimate, reference, sample_rate, mixture=None):
    assert reference is None or reference.shape == estimate.shape
    return Score(np.abs(estimate).max())


def loudest(blocks, *, window, hop, names):
    x = np.concatenate(list(blocks()), -1)  # (2, S, C, T)
    frames = x[0].reshape(x.shape[1], -1, window)
    silent = np.zeros((2, len(frames), frames.shape[1]), bool)
    return Frames({name: np.abs(frames).max(-1) for name in names}, silent)


@click.command("hello")
@click.argument("name")
def command(name):
    """Say hello."""
    click.echo(f"hello {name}")
'''


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "own_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_package", None)


def test_what_contributing_names_is_there():
    root = Path(sepcli.__file__).parents[1]
    text = (root / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:sepcli|tests)/[\w/.]+)`", text))
    assert "sepcli/nn/model.py" in named
    assert [path for path in named if not (root / path).exists() and "/my" not in path] == []
    for table, path in re.findall(r"`([A-Z]+)`\s\(`(sepcli/[\w/.]+)`\)", text):
        assert f"\n{table} = " in (root / path).read_text()


def test_a_kind_of_data_and_a_loss_of_ones_own_train_a_model(monkeypatch):
    monkeypatch.setitem(KINDS, "clicks", Kind("own_package:ClicksSpec", "own_package:Clicks"))
    monkeypatch.setitem(LOSSES, "cubed", Loss("own_package:cubed"))
    model = {"name": "conv_tasnet", "sources": ["clicks", "hum"], "filters": 8, "blocks": 1}
    data = {"kind": "clicks", "items": 2, "every": 50}
    train = {"batch": 2, "loss": {"cubed": {"weight": 2.0, "scale": 0.5}}}
    config = resolve({"model": model, "data": {"train": data, "valid": data}, "train": train})
    assert config["data"]["train"] == {"kind": "clicks", "items": 2, "seed": 0, "every": 50}
    about = dry_run(config)
    assert about["mixture"] == [2, 1, 2000]
    assert about["loss"] > 0


def test_a_command_of_ones_own_is_listed_and_runs(monkeypatch):
    import own_package

    monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, "hello-you": "Say hello."})
    monkeypatch.setitem(sys.modules, "sepcli.commands.hello_you", own_package)
    run = CliRunner().invoke
    assert "Say hello." in run(cli.main, ["--help"]).output
    assert run(cli.main, ["hello-you", "world"]).output == "hello world\n"


def test_a_metric_of_ones_own_may_need_no_reference_and_less_may_be_better(package, monkeypatch):
    metric = Metric(
        "own_package:peak", "", "the largest sample", needs_reference=False, more_is_better=False
    )
    monkeypatch.setitem(METRICS, "peak", metric)
    run, report = CliRunner().invoke, str(package / "old.json")
    for key, level in (("one", 0.25), ("two", 0.5)):
        sepcli.write(package / "x" / key / "est.speech.wav", level * np.ones((1, 100)), 8000)
    place = [str(package / "x"), "--metrics", "peak"]
    result = run(cli.main, ["eval", *place, "--json", "-o", report])
    assert result.exit_code == 0, result.output
    scores = json.loads((package / "old.json").read_text())
    assert scores["summary"]["speech"]["peak"]["mean"] == 0.375
    for limit, code in ((0.4, 0), (0.3, 1)):
        result = run(cli.main, ["eval", *place, "--fail-under", f"peak={limit}"])
        assert result.exit_code == code
    assert "mean peak of speech is 0.375, over the limit of 0.3" in result.stderr

    sepcli.write(package / "x" / "two" / "est.speech.wav", 0.4 * np.ones((1, 100)), 8000)
    result = run(cli.main, ["eval", *place, "--compare", report, "--json"])
    compared = json.loads(result.stdout)["compared"]["summary"]["speech"]["peak"]
    assert (compared["better"], compared["worse"]) == (1, 0)


def test_a_framewise_metric_of_ones_own_is_scored_beside_others(package, monkeypatch):
    metric = Metric("own_package:loudest", "", "the largest sample of a frame", framewise=True)
    monkeypatch.setitem(METRICS, "loudest", metric)
    ramp = np.linspace(0.1, 0.5, 8000, dtype=np.float32)[None]
    for name in ("est", "ref"):
        sepcli.write(package / "x" / f"{name}.speech.wav", ramp, 8000)
    names = "loudest,sdr,snr"
    args = ["eval", str(package / "x"), "--metrics", names, "--window", "0.5", "--json"]
    result = CliRunner().invoke(cli.main, args)
    item = json.loads(result.stdout)["items"][0]
    assert item["loudest"] == pytest.approx(0.4, abs=1e-3)  # the median of 0.3 and 0.5
    assert item["frames"]["loudest"] == {"count": 2, "finite": 2}
