"""Training as Open-Unmix does it: statistics, epochs, a learning rate that falls on plateaus."""

import numpy as np
import pytest
import soundfile
import torch

from sepcli.data import datasets
from sepcli.errors import SepcliError
from sepcli.models.modelfile import load_model
from sepcli.runs import runs
from sepcli.training.settings import Plateau, Settings

RATE = 8000


@pytest.fixture
def config(tmp_path):
    """A configuration of a tiny Open-Unmix and three songs of 2 s in two stems."""
    rng = np.random.default_rng(0)
    for song in "abc":
        for stem, level in (("vocals", 0.1), ("accompaniment", 0.2)):
            path = tmp_path / "songs" / song / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = level * rng.standard_normal((2 * RATE, 2)).cumsum(0) % 1 - 0.5
            soundfile.write(path, level * sound, RATE, subtype="FLOAT")
    stems = {"kind": "stems", "stems": [str(tmp_path / "songs")], "duration_s": 0.5}
    return {
        "model": {
            "name": "open_unmix", "sample_rate": RATE, "window": 64, "hop": 32, "hidden": 6,
            "layers": 1, "bandwidth_hz": 3000.0,
        },
        "data": {
            "train": {**stems, "items": 10, "augment": ["gain", "swap", "remix"]},
            "valid": {**stems, "items": 2},
        },
        "train": {
            "epochs": 3, "batch": 4, "keep_epochs": [1, 3], "warmup": 0,
            "loss": {"magnitude": {"n_fft": 64, "hop": 32}}, "plateau": {"patience": 80},
        },
    }  # fmt: skip


def train(config, folder):
    run = runs.start(runs.resolve(config), folder)
    return run, list(run.records())


def test_an_epoch_is_one_pass_and_one_validation_and_chosen_models_are_kept(config, tmp_path):
    _, records = train(config, tmp_path / "run")
    validated = [record["step"] for record in records if record["event"] == "valid"]
    assert validated == [0, 3, 6, 9]  # 10 items in batches of 4
    kept = sorted(path.name for path in (tmp_path / "run").glob("epoch-*"))
    assert kept == ["epoch-1.safetensors", "epoch-3.safetensors"]
    first, last = (load_model(tmp_path / "run" / name)[0].state_dict() for name in kept)
    newest = load_model(tmp_path / "run" / "last.safetensors")[0].state_dict()
    assert all(torch.equal(last[name], newest[name]) for name in last)
    assert not torch.equal(*(w["networks.vocals.fc1.weight"] for w in (first, last)))


def test_a_new_run_in_the_folder_removes_the_kept_models(config, tmp_path):
    train(config, tmp_path / "run")
    config["train"]["keep_epochs"] = []
    run = runs.start(runs.resolve(config), tmp_path / "run", overwrite=True)
    assert not list((tmp_path / "run").glob("epoch-*"))
    assert run.settings.steps == 9


def test_epochs_without_an_end_are_refused(config, tmp_path):
    config["data"]["train"]["items"] = 0
    with pytest.raises(SepcliError, match=r"train\.epochs needs data\.train\.items"):
        train(config, tmp_path / "run")


def test_inputs_start_with_the_statistics_of_the_unaugmented_mixtures(config, tmp_path):
    run = runs.start(runs.resolve(config), tmp_path / "run")
    next(run.records())
    plain = {**config["data"]["train"], "augment": []}
    expected = runs.Run("", runs.resolve({**config, "data": {**config["data"], "train": plain}}))
    frames = []
    for mix, _ in (expected.train_data[i] for i in range(10)):
        spectra = torch.stft(
            mix, 64, 32, window=torch.hann_window(64), pad_mode="reflect", return_complex=True
        )
        frames.append(spectra.abs().mean(0).T.double().numpy())  # (N, F)
    frames = np.concatenate(frames)
    deviation = np.maximum(frames.std(0), 1e-4 * frames.std(0).max())  # as StandardScaler has it
    network = run.model.networks["vocals"]
    assert len(network.input_mean) == 25  # 3000 of 4000 Hz
    got = network.input_mean.detach(), network.input_scale.detach()
    np.testing.assert_allclose(got[0], -frames.mean(0)[:25], rtol=1e-4)
    np.testing.assert_allclose(got[1], 1 / deviation[:25], rtol=1e-4)


def test_bins_that_never_vary_are_not_blown_up(config):
    model = runs.Run("", runs.resolve(config)).model
    model.set_statistics(torch.zeros(33), torch.cat([torch.tensor([2.0]), torch.zeros(32)]))
    scale = model.networks["vocals"].input_scale
    assert scale[0].item() == 0.5
    assert scale[1].item() == pytest.approx(1 / 2e-4)


def test_a_resumed_run_goes_on_from_its_weights_and_its_plateau(config, tmp_path):
    whole, _ = train(config, tmp_path / "whole")
    run = runs.start(runs.resolve(config), tmp_path / "run")
    for record in run.records():
        if record["event"] == "step" and record["step"] == 5:
            run.save()
            break
    again = runs.resume(runs.resolve(config), tmp_path / "run")
    list(again.records())
    assert again.state.plateau == whole.state.plateau
    pairs = zip(again.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3), (3, 2)])
def test_the_learning_rate_falls_when_that_of_torch_does(patience, cooldown):
    losses = np.random.default_rng(patience).standard_normal(60).cumsum() + 20
    losses[20:25] = losses[19] * (1 - 5e-5)  # not enough to be lower
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience, cooldown=cooldown, eps=0
    )
    ours = Plateau(patience=patience, cooldown=cooldown)
    past = ours.start()
    for loss in losses:
        theirs.step(float(loss))
        past = ours.step(past, float(loss))
        assert past["scale"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert past["scale"] < 0.3


def test_training_ends_when_validations_stop_improving(config, tmp_path):
    config["train"] |= {"epochs": 50, "lr": 1e-12, "keep_epochs": []}
    config["train"]["plateau"] = {"patience": 1, "stop_after": 4, "factor": 0.5, "cooldown": 0}
    _, records = train(config, tmp_path / "run")
    validated = [record["step"] for record in records if record["event"] == "valid"]
    assert 4 * 3 <= validated[-1] < 50 * 3


@pytest.mark.parametrize("epochs", [25, ["last"]])
def test_epochs_to_keep_are_a_list_of_numbers(epochs):
    with pytest.raises(SepcliError, match=r"train\.keep_epochs must be a list of epochs such as"):
        Settings(keep_epochs=epochs)


def test_a_plateau_with_unknown_settings_is_refused():
    with pytest.raises(SepcliError, match=r"unknown setting train\.plateau\.patient; did you mean"):
        Settings(plateau={"patient": 3})


def test_the_best_model_may_be_that_of_one_source_and_the_loss_of_one_too(config, tmp_path):
    config["train"] |= {"best": "si_sdr_db.vocals", "source_weights": {"vocals": 1}, "epochs": 4}
    run, records = train(config, tmp_path / "run")
    valid = [record for record in records if record["event"] == "valid"]
    scores = [record["si_sdr_db_vocals"] for record in valid]
    best, record_best = float("-inf"), []
    for score in scores:
        record_best.append(score > best)
        best = max(best, score)
    assert [record["best"] for record in valid] == record_best
    assert run.state.best["si_sdr_db_vocals"] == best
    # The accompaniment is the rest of the mixture, and has a loss of its own.
    alone = load_model(tmp_path / "run/last.safetensors")[0].state_dict()
    config["train"]["source_weights"] = {}
    train(config, tmp_path / "both")
    both = load_model(tmp_path / "both/last.safetensors")[0].state_dict()
    assert any(not torch.equal(alone[name], both[name]) for name in both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"best": "si_sdr_db.drums"}, r"train\.best: the model has no drums; choose from vocals"),
        ({"source_weights": {"drums": 1}}, r"train\.source_weights: the model has no drums"),
        ({"source_weights": {"vocals": 0}}, r"train\.source_weights must be weights of sources"),
        ({"best": "pesq.vocals"}, r"train\.best must be .* or si_sdr_db\.SOURCE"),
    ],
)
def test_sources_that_the_model_lacks_are_refused(config, tmp_path, settings, message):
    config["train"] |= settings
    with pytest.raises(SepcliError, match=message):
        runs.start(runs.resolve(config), tmp_path / "run")


def test_items_of_a_step_are_of_one_length_that_differs_from_step_to_step(config):
    config["data"]["train"] |= {"duration_s": "0.2:0.4"}
    data = runs.Run("", runs.resolve(config)).train_data
    made = datasets.batches(data, 4, seed=0, per_step=2)
    lengths = [next(made)[0].shape[-1] for _ in range(8)]  # also across epochs of 10 items
    assert lengths[::2] == lengths[1::2]
    assert len(set(lengths)) == 4
    assert all(0.2 * RATE <= length <= 0.4 * RATE for length in lengths)
    resumed = datasets.batches(data, 4, seed=0, start=3, per_step=2)
    assert [next(resumed)[0].shape[-1] for _ in range(3)] == lengths[3:6]
