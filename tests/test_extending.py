"""A kind of data, a loss and a command of one's own: one file and one line each."""

import sys

import pytest
from click.testing import CliRunner

from sepcli import cli
from sepcli.mixing.datasets import KINDS, Kind
from sepcli.training.losses import LOSSES, Loss
from sepcli.training.runs import dry_run, resolve

PACKAGE = '''
from dataclasses import dataclass

import click
import numpy as np

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

    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, "hello-you"))
    monkeypatch.setitem(sys.modules, "sepcli.commands.hello_you", own_package)
    run = CliRunner().invoke
    assert "Say hello." in run(cli.main, ["--help"]).output
    assert run(cli.main, ["hello-you", "world"]).output == "hello world\n"
