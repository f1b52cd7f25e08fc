"""What the training of attention networks for songs asks for besides."""

import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from sepcli import losses
from sepcli.audio import write
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.losses import stfts
from sepcli.models import build, modelfile
from sepcli.runs import runs
from sepcli.training.loop import is_better
from sepcli.training.settings import Settings
from tests.models import OFFLINE, TFSWA
from tests.test_song_training import config, train  # noqa: F401  a fixture

SMALL = {"name": "tfswa_unet", "sample_rate": 8000, **TFSWA, "dims": [2, 2], "depths": [1, 1]}
SMALL |= {"hop": 64, "patch": [1, 8]}


@pytest.fixture
def attentive(config):  # noqa: F811
    config["model"] = SMALL
    config["train"] = {"epochs": 4, "batch": 5, "loss": {"magnitude_l1": {"n_fft": 64, "hop": 32}}}
    return config


def test_epochs_are_kept_without_validations_and_validations_come_when_asked_for(
    attentive, tmp_path
):
    attentive["train"] |= {"validate_epochs": 3, "keep_every": 1, "log_every": 100}
    _, records = train(attentive, tmp_path / "run")
    assert [r["step"] for r in records if r["event"] == "valid"] == [0, 6, 8]
    kept = sorted(path.name for path in (tmp_path / "run").glob("epoch-*"))
    assert kept == [f"epoch-{n}.safetensors" for n in (1, 2, 3, 4)]
    states = [modelfile.load_model(tmp_path / "run" / name)[0].state_dict() for name in kept]
    name = "encoder.0.0.enter.weight"
    assert not any(torch.equal(a[name], b[name]) for a, b in itertools.pairwise(states))


def test_a_log_line_has_attention_maps_beside_the_norm_of_gradients(attentive, tmp_path):
    attentive["train"] |= {"epochs": 1, "log_every": 2}
    train(attentive, tmp_path / "run")
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in board.Scalars("train/grad_norm")] == [2]
    kinds = ("time", "frequency", "windows")
    expected = {
        f"attention/{block}/{kind}" for block in ("encoder.0.0", "encoder.1.0") for kind in kinds
    }
    assert expected <= set(board.Tags()["images"])
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[1])
    assert "pictures" not in line


def test_attention_maps_change_no_weight(attentive, tmp_path, monkeypatch):
    one, _ = train(attentive | {"train": attentive["train"] | {"log_every": 1}}, tmp_path / "one")
    monkeypatch.setattr(runs, "has_attention", lambda model: False)
    two, _ = train(attentive | {"train": attentive["train"] | {"log_every": 1}}, tmp_path / "two")
    pairs = zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("best", "wanted"), [("si_sdr_db", 2), ("snr_db", 1), ("loss", 0)])
def test_the_best_model_is_that_of_the_score_asked_for(best, wanted):
    scores = [
        {"si_sdr_db": 1.0, "snr_db": 2.0, "loss": 0.1},
        {"si_sdr_db": 2.0, "snr_db": 3.0, "loss": 0.2},
        {"si_sdr_db": 3.0, "snr_db": 1.0, "loss": 0.3},
    ]
    found = None
    for score in scores:
        found = score if is_better(score, found, best) else found
    assert found is scores[wanted]
    assert not is_better({best: float("nan")}, found, best)


def test_what_makes_no_sense_is_one_line():
    with pytest.raises(SepcliError, match=r"train\.best must be si_sdr_db or snr_db or loss"):
        Settings(best="sdr")
    with pytest.raises(SepcliError, match=r"train\.validate_epochs must be 1 without epochs"):
        Settings(validate_epochs=5)


def test_the_l1_distance_of_magnitudes_is_that_of_torch():
    e, t = torch.randn(2, 2, 1, 1, 3000).unbind(0)
    window = torch.hann_window(256)
    magnitudes = [
        torch.stft(x.flatten(0, 2), 256, 64, window=window, return_complex=True).abs()
        for x in (e, t)
    ]
    expected = nn.functional.l1_loss(*magnitudes)
    found = stfts.magnitude_l1_loss(e, t, n_fft=256, hop=64)
    torch.testing.assert_close(found, expected)
    spectra = [torch.polar(x, torch.rand_like(x))[:, None] for x in magnitudes]
    torch.testing.assert_close(stfts.magnitude_l1_loss(*spectra), expected)


def twice_and_thrice():
    """A network of two layers with known outputs."""
    network = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.Conv1d(1, 1, 1, bias=False))
    nn.init.constant_(network[0].weight, 2.0)
    nn.init.constant_(network[1].weight, 3.0)
    return network


def test_features_are_those_of_the_network_that_is_named(tmp_path):
    e, t = torch.rand(2, 2, 2, 1, 50).unbind(0)
    e.requires_grad_()
    network = "tests.test_attentive_training:twice_and_thrice"
    relative = (e - t).abs().mean() / t.abs().mean()
    for layers in ((), ("0",), ("0", "1")):
        features = {"network": network, "layers": list(layers)}
        loss, _ = losses.weighted({"features": features})(e, t)
        torch.testing.assert_close(loss, relative, rtol=1e-4, atol=0)
    loss.backward()
    assert e.grad is not None
    path = tmp_path / "judge.safetensors"
    settings = next(settings for name, settings in OFFLINE if name == "mask_unet")
    modelfile.save(path, "mask_unet", settings, build("mask_unet", **settings).state_dict(), {})
    stereo = torch.rand(1, 1, 2, 900)
    judged = losses.weighted({"features": {"network": str(path), "layers": ["middle"]}})
    assert judged(stereo, stereo)[0] == 0
    assert judged(0.5 * stereo, stereo)[0] > 0.01
    for network, match in (
        ("tests.nothing:here", "No module named"),
        (str(path), "no nothere, but"),
    ):
        wrong = {"network": network, "layers": ["nothere"]}
        with pytest.raises(SepcliError, match=match):
            losses.weighted({"features": wrong})(stereo, stereo)


def test_weights_and_biases_gets_the_numbers_where_it_is_asked_for(
    attentive, tmp_path, monkeypatch
):
    logged = []
    run = SimpleNamespace(
        log=lambda numbers, step: logged.append((step, numbers)),
        finish=lambda: logged.append("end"),
    )

    def init(**about):
        logged.append(about)
        return run

    attentive["train"] |= {"epochs": 1, "log_every": 1, "wandb": "songs"}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SepcliError, match="wandb is not installed; pip install wandb"):
        train(attentive, tmp_path / "without")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    train(attentive, tmp_path / "run")
    assert (logged[0]["project"], logged[0]["id"], logged[-1]) == ("songs", "run", "end")
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    expected = [(x["step"], x["loss"]) for x in lines]
    found = [(step, x.get("train/loss", x.get("valid/loss"))) for step, x in logged[1:-1]]
    assert found == expected


def test_info_draws_what_a_model_attends_to(tmp_path):
    path, song = tmp_path / "net.safetensors", tmp_path / "song.wav"
    settings = {key: value for key, value in SMALL.items() if key != "name"}
    weights = build("tfswa_unet", **settings).state_dict()
    modelfile.save(path, "tfswa_unet", settings, weights, {})
    write(song, np.random.default_rng(0).standard_normal((2, 22050)).astype(np.float32), 11025)

    def info(*arguments):
        return CliRunner().invoke(main, ["info", *map(str, arguments)])

    picture = tmp_path / "maps.png"
    result = info(path, "--attention", song, "-o", picture)
    assert result.stdout == f"{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    about = json.loads(info(path, "--attention", song, "-o", picture, "--json").stdout)
    assert about["maps"] == 9  # of an encoder, a bottleneck and a decoder
    assert info(path, "--attention", song).exit_code == 2
    assert info("--attention", song, "-o", picture).exit_code == 2
    result = info("denoise", "--attention", song, "-o", picture)
    assert (result.exit_code, "has no attention maps" in result.stderr) == (1, True)
