"""The forms of recipes/vocals-tfswa learn: progressive, self-supervised, and four stems at once."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sepcli import config
from sepcli.data import datasets
from sepcli.data.masked import Masked, MaskedSpec
from sepcli.errors import SepcliError
from sepcli.losses.stfts import magnitude_l1_loss
from sepcli.models import modelfile
from sepcli.models.tfswa_unet import TfswaUnet
from sepcli.runs import runs
from sepcli.training.settings import Settings
from tests.models import TFSWA

RECIPE = Path(__file__).parent.parent / "recipes/vocals-tfswa"
RATE = 8000
SMALL = {
    "model": {
        "sample_rate": RATE, "window": 128, "hop": 64, "dims": [4, 8], "depths": [1, 1],
        "heads": 2, "tile": 4, "shift": 2, "patch": [1, 4], "checkpointing": False,
    },
    "train": {
        "epochs": 0, "validate_epochs": 1, "steps": 30, "batch": 4, "lr": 0.02, "warmup": 0,
        "autocast": "none", "workers": 0, "keep_every": 0,
        "loss": {"magnitude_l1": {"n_fft": 128, "hop": 64}},
    },
}  # fmt: skip


@pytest.fixture
def songs(tmp_path, monkeypatch):
    """Songs of 2 s whose stems have frequencies of their own, in out/songs."""
    monkeypatch.chdir(tmp_path)
    t = np.arange(2 * RATE) / RATE
    for part in ("train", "valid"):
        for number in range(3):
            rng = np.random.default_rng([number, part == "valid"])
            beat = np.exp(-20 * (t % rng.uniform(0.2, 0.4)))
            noise = np.diff(rng.standard_normal(t.size + 2), 2)  # mostly above 2.7 kHz
            stems = {
                "vocals": np.sin(2 * np.pi * rng.uniform(500, 900) * t)
                * (0.6 + 0.4 * np.sin(9 * t)),
                "drums": 0.5 * beat * noise,
                "bass": np.sin(2 * np.pi * rng.uniform(60, 130) * t),
                "other": np.sin(2 * np.pi * rng.uniform(1500, 2000) * t),
            }
            for name, sound in stems.items():
                path = tmp_path / "out/songs" / part / f"song{number}" / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(
                    path, 0.2 * np.stack([sound, 0.8 * sound], 1), RATE, subtype="FLOAT"
                )
    return tmp_path


def small(form, **train):
    """The configuration of a form, for a network and songs of a few seconds of training."""
    given = config.load(RECIPE / f"{form}.yaml")
    for section, settings in SMALL.items():
        given[section] |= settings
    given["train"] |= train
    for part in given["data"].values():
        part |= {"duration_s": 0.5, "items": 16 if part is given["data"]["train"] else 4}
        part.pop("augment", None)
    return runs.resolve(given)


def trained(form, folder, **train):
    run = runs.start(small(form, **train), folder)
    return run, list(run.records())


def test_four_stems_are_learnt_at_once(songs):
    run, _ = trained("stems", songs / "run")
    scores = run.scores()
    assert scores["improvement_db"] > 3
    for name in ("vocals", "drums", "bass", "other"):
        assert scores[f"si_sdr_db_{name}"] > run.state.first[f"si_sdr_db_{name}"] + 1


def test_progressive_training_learns_with_ever_more_of_its_resolution(songs, monkeypatch):
    seen = []
    features = TfswaUnet.features

    def noted(self, x):
        seen.append((self.training, self.resolution))
        return features(self, x)

    monkeypatch.setattr(TfswaUnet, "features", noted)
    run, records = trained("progressive", songs / "run", progressive=[[4, 6], [2, 12]])
    assert run.scores()["improvement_db"] > 3
    assert [r for training, r in seen if training] == [4] * 6 + [2] * 6 + [1] * 18
    assert {r for training, r in seen if not training} == {1}  # what is validated and kept
    low = sum(r["loss"] for r in records if r["event"] == "step" and r["step"] in (4, 5, 6))
    first = next(r["loss"] for r in records if r["event"] == "step")
    assert low / 3 < first  # it learns before it sees everything


def test_a_resumed_progressive_run_has_the_resolution_of_its_step(songs):
    stages = {"progressive": [[4, 2], [2, 4]], "steps": 6}
    whole, _ = trained("progressive", songs / "whole", **stages)
    run = runs.start(small("progressive", **stages), songs / "run")
    for record in run.records():
        if record["event"] == "step" and record["step"] == 3:
            run.save()
            break
    again = runs.resume(small("progressive", **stages), songs / "run")
    list(again.records())
    pairs = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_reconstruction_is_learnt_and_begins_a_separation(songs):
    run, _ = trained("pretrain", songs / "before", steps=80, lr=0.01)
    items = map(run.valid_data.__getitem__, range(4))
    left = [magnitude_l1_loss(mix, refs[0], n_fft=128, hop=64).item() for mix, refs in items]
    assert run.scores()["loss"] < 0.95 * sum(left) / 4  # that of leaving things as they are
    after = runs.start(small("config", init=str(songs / "before"), steps=15), songs / "after")
    assert "new: last.mask.weight, last.mask.bias" in after.initial
    theirs = modelfile.load_model(songs / "before")[0].state_dict()
    ours = after.model.state_dict()
    same = [name for name in theirs if name in ours and torch.equal(theirs[name], ours[name])]
    assert len(same) == len(theirs) - 2
    list(after.records())
    assert after.scores()["improvement_db"] > 1


def test_masked_items_lack_patches_and_nothing_else(songs):
    spec = MaskedSpec(recordings=("out/songs/train",), sample_rate=RATE, duration_s=1.0)
    item, again = Masked(spec).draw(3, 5), Masked(spec).draw(3, 5)
    assert np.array_equal(item.mix, again.mix)
    whole, missing = item.refs["mixture"], item.refs["mixture"] - item.mix
    assert item.mix.shape == (2, RATE)
    assert 0 < np.square(missing).sum() < np.square(whole).sum()
    assert np.square(item.mix).sum() < np.square(whole).sum()
    nothing = Masked(MaskedSpec(**{**vars(spec), "patches": 0})).draw(3, 5)
    assert np.array_equal(nothing.mix, nothing.refs["mixture"])
    one = MaskedSpec(**{**vars(spec), "patches": 1, "patch_s": 0.25, "patch_octaves": 1.0})
    for index in range(5):
        item = Masked(one).draw(0, index)
        missing = item.refs["mixture"] - item.mix
        heard = np.flatnonzero(np.abs(missing).max(0) > 1e-6)
        assert heard.size == 0 or heard[-1] - heard[0] < 0.25 * RATE


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "recordings must be folders, lists or packs of recordings"),
        ({"recordings": ["out"], "channels": 3}, "channels must be 1 to 2"),
        ({"recordings": ["out"], "min_rms_db": -3}, "silent or quieter than -3 dB re full scale"),
    ],
)
def test_masked_items_that_cannot_be_had_are_one_line(songs, settings, match):
    section = {"kind": "masked", **settings}
    about = {"section": "data.train", "sample_rate": RATE, "sources": ["mixture"]}
    resolved = datasets.resolve(section, section="data.train", items=1, seed=0)
    with pytest.raises(SepcliError, match=match):
        _ = datasets.build(resolved, **about)[0]


@pytest.mark.parametrize(
    "stages", [[[2, 10], [4, 20]], [[4, 20], [2, 10]], [[1, 5]], [4, 2], [[4]]]
)
def test_stages_that_make_no_sense_are_refused(stages):
    with pytest.raises(SepcliError, match=r"train\.progressive must be pairs like"):
        Settings(progressive=stages)


def test_a_model_of_one_resolution_is_not_trained_progressively(songs):
    given = small("progressive")
    given["model"] = {
        "name": "mask_unet",
        "sample_rate": RATE,
        "window": 128,
        "hop": 32,
        "bins": 32,
    }
    given["model"] |= {"widths": [4]}
    with pytest.raises(SepcliError, match="the model has one resolution only"):
        runs.start(runs.resolve(given), songs / "run")


@pytest.mark.parametrize("resolution", [2, 4])
@pytest.mark.parametrize("multiscale", [True, False])
def test_a_lower_resolution_has_masks_of_the_same_size(resolution, multiscale):
    torch.manual_seed(0)
    model = TfswaUnet(**TFSWA, multiscale=multiscale).eval()
    x = torch.randn(1, 2, 1500)
    before = model(x)
    model.resolution = resolution
    assert model(x).shape == before.shape
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize("form", ["config", "lite", "progressive", "pretrain", "stems"])
def test_every_form_is_a_configuration(form):
    given = config.load(RECIPE / f"{form}.yaml")
    resolved = runs.resolve(given)
    assert resolved["train"] | given["train"] == resolved["train"]
