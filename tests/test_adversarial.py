"""The phase of a training in which discriminators listen."""

import numpy as np
import pytest
import torch
from torch import nn

from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.layers.hifigan import adversarial_loss, discriminator_loss, feature_loss
from sepcli.mixing.source import Drawn, Source
from sepcli.nn.model import Model
from sepcli.runs import checkpoint
from sepcli.training import stepping
from sepcli.training.loop import State, fit, seed_of_step
from sepcli.training.settings import Settings
from tests.test_train import assert_same_state, tensors

T = 1000
GAN = {"from_step": 2, "alone_steps": 2, "ramp_steps": 2, "shrink": 8}
QUICK = {"lr": 2e-3, "batch": 2, "warmup": 0, "log_every": 1, "validate_every": 100}
QUICK |= {"loss": {"l1": 1.0}, "betas": [0.8, 0.99], "accumulate": 2}


class Buzz(Source):
    """Pulses in noise; every third target is absent."""

    def __init__(self, absent=False):
        self.absent = absent

    def draw(self, seed, index, step=None):
        rng = np.random.default_rng([seed, index])
        noise = 0.3 * rng.standard_normal((1, T), dtype=np.float32)
        pulses = np.zeros((1, T), np.float32)
        if index % 3 != 2 and not self.absent:
            pulses[:, rng.integers(50) :: 50] = 1
        return Drawn(pulses + noise, {"pulses": pulses})


class Net(Model):
    """A convolution with dropout."""

    sample_rate, sources, channels = 1000, ("pulses",), 1

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 4, 9, padding=4), nn.PReLU(), nn.Dropout(0.2), nn.Conv1d(4, 1, 1)
        )

    def forward(self, x):
        return self.net(x)[:, None]


def make(gan=None, **settings):
    torch.manual_seed(0)
    settings = Settings(**QUICK | settings | {"gan": GAN if gan is None else gan})
    return State(Net(), settings), settings


def train(state, settings, stop=None, source=None):
    """Run the loop up to the step `stop`; the log lines."""
    items = [Items(source or Buzz(), ("pulses",), items=n, seed=n) for n in (0, 2)]
    lines = []
    for record in fit(state, *items, settings):
        lines += [record] if record["event"] == "train" else []
        if record["event"] == "step" and record["step"] == stop:
            break
    return lines


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_that_stops_before_or_in_the_phase_goes_on_to_the_same_bits(stop, tmp_path):
    whole, settings = make(steps=7)
    lines = train(whole, settings)
    state, settings = make(steps=7)
    train(state, settings, stop)
    checkpoint.save(tmp_path / "last.ckpt", state.state_dict())
    torch.manual_seed(123)
    resumed = State(Net(), settings)
    if stop < GAN["from_step"]:  # the discriminators are those of the seed
        torch.manual_seed(0)
        resumed = State(Net(), settings)
    resumed.load_state_dict(checkpoint.load(tmp_path / "last.ckpt"))
    rest = train(resumed, settings)
    assert_same_state(whole, resumed)
    for name in ("loss", "discriminator", "adversarial", "features"):
        assert rest[-1][name] == lines[-1][name]


def test_the_model_hears_nothing_before_the_phase_and_while_they_learn_alone():
    plain, settings = make({}, steps=5)
    other, phased = make(steps=5)
    for stop in range(1, 6):
        train(plain, settings, stop)
        train(other, phased, stop)
        assert all(map(torch.equal, plain.model.parameters(), other.model.parameters()))
    # Of the steps, counted from 0, the ramp begins in number 4, with nothing.
    train(plain, Settings(**QUICK | {"steps": 6}), 6)
    train(other, Settings(**QUICK | {"steps": 6, "gan": GAN}), 6)
    assert not any(map(torch.equal, plain.model.parameters(), other.model.parameters()))


def test_they_learn_from_the_first_step_of_the_phase_on():
    state, settings = make(steps=4)
    before = tensors(state.adversary.state_dict()["net"])
    for stop, changed in ((2, False), (3, True)):
        train(state, settings, stop)
        after = tensors(state.adversary.state_dict()["net"])
        moved = {n for n in before if not torch.equal(before[n], after[n])}
        assert bool(moved) == changed
        before = {name: x.clone() for name, x in after.items()}
    lines = train(*make(GAN | {"alone_steps": 99}, steps=30, lr=1e-3))
    found = [line["discriminator"] for line in lines if "discriminator" in line]
    assert len(found) == 28
    assert np.mean(found[-3:]) < 0.5 * found[0]


def test_the_loss_is_the_sum_of_what_it_says():
    gan = {"adversarial": 0.3, "features": 5.0, "shrink": 8}
    state, settings = make(gan, steps=1, accumulate=1, batch=3)
    [line] = train(state, settings)
    torch.manual_seed(0)
    fresh = State(Net(), settings)
    items = Items(Buzz(), ("pulses",), items=0, seed=0)
    mix, refs = (torch.stack(x) for x in zip(*(items[i] for i in range(3)), strict=True))
    torch.manual_seed(seed_of_step(settings.seed, 0))
    fresh.model.train()
    estimates, refs, _ = stepping.separated(fresh, (mix, refs), settings, "cpu")
    present = refs.square().sum((1, 2, 3)) > 0
    assert present.tolist() == [True, True, False]
    net = fresh.adversary.net
    real, _ = net(refs[present][:, 0])
    fake, _ = net(estimates[present][:, 0])
    assert line["discriminator"] == pytest.approx(discriminator_loss(real, fake).item(), rel=1e-5)
    _, wanted = net(refs[present][:, 0])
    scores, features = net(estimates[present][:, 0])
    heard = 0.3 * adversarial_loss(scores) + 5 * feature_loss(wanted, features)
    total = (estimates - refs).abs().mean() + heard
    assert line["loss"] == pytest.approx(total.item(), rel=1e-4)


def test_absent_targets_are_nothing_to_tell_apart():
    state, settings = make({"shrink": 8}, steps=2)
    before = tensors(state.adversary.state_dict()["net"])
    lines = train(state, settings, source=Buzz(absent=True))
    assert [line["discriminator"] for line in lines] == [0, 0]
    after = tensors(state.adversary.state_dict()["net"])
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan": {"form_step": 3}}, r"unknown setting train\.gan\.form_step; did you"),
        ({"gan": {"shrink": 2}, "loss": {"stft_si_sdr": 1}}, r"train\.gan must be empty beside"),
        ({"betas": [0.9]}, r"train\.betas must be two numbers below 1, not \[0\.9\]"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, message):
    with pytest.raises(SepcliError, match=message):
        Settings(**settings)


def test_the_training_may_end_when_nothing_gets_better():
    state, settings = make({}, steps=100, lr=1e-12, validate_every=1, stop_after=3)
    train(state, settings)
    assert state.step == 3
