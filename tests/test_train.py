"""The training loop, without files: what it learns, skips, saves and continues."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.mixing.source import Drawn
from sepcli.nn.model import Model
from sepcli.runs import checkpoint
from sepcli.training.loop import (
    clip_gradients,
    fit,
    move_average,
    renew_statistics,
)
from sepcli.training.settings import Settings, learning_rate
from sepcli.training.validation import evaluate
from tests.loops import Gains, Shares, T, data, exhaust, make, train


class Louder(Shares):
    """Shares that grow with the step."""

    def draw(self, seed, index, step=None):
        drawn = super().draw(seed, index)
        loudness = np.float32(100 if step is None else 1 + step)
        return Drawn(loudness * drawn.mix, {k: loudness * x for k, x in drawn.refs.items()})


class Everything(Model):
    """What a resumed run could get wrong: dropout, batch norm's statistics, several layers."""

    sample_rate, sources, channels = 1000, ("a", "b"), 1

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 4, 3, padding=1),
            nn.BatchNorm1d(4),
            nn.PReLU(),
            nn.Dropout(0.3),
            nn.Conv1d(4, 2, 1),
        )

    def forward(self, x):
        return self.net(x)[:, :, None]


def tensors(tree, name=""):
    """All tensors in a nest of dicts and lists, by their path."""
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    nested = ((f"{name}.{k}", v) for k, v in items if isinstance(v, dict | list | torch.Tensor))
    return {path: x for key, value in nested for path, x in tensors(value, key).items()}


def assert_same_state(one, other):
    one, other = tensors(one.state_dict()), tensors(other.state_dict())
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_loop_finds_the_gains_of_the_sources():
    state, settings = make(steps=60, loss={"l1": 1.0})
    records = train(state, settings)
    torch.testing.assert_close(state.model.gain.data, torch.tensor([0.8, 0.2]), atol=0.02, rtol=0)
    valid = [record for record in records if record["event"] == "valid"]
    assert [record["step"] for record in valid] == [0, 60]
    assert valid[1]["loss"] < 0.05 * valid[0]["loss"]


def test_the_order_of_sources_is_not_exchanged():
    state, settings = make(steps=60, loss={"l1": 1.0})
    swapped = Items(Shares(), ("b", "a"), items=0, seed=0)
    train(state, settings, train_data=swapped)
    torch.testing.assert_close(state.model.gain.data, torch.tensor([0.2, 0.8]), atol=0.02, rtol=0)


def test_accumulating_two_batches_of_two_is_a_batch_of_four():
    (one, wide), (two, narrow) = (
        make(steps=5, loss={"l1": 1.0}, batch=4),
        make(steps=5, loss={"l1": 1.0}, batch=2, accumulate=2),
    )
    logs = train(one, wide), train(two, narrow)
    torch.testing.assert_close(one.model.gain, two.model.gain)
    losses = [[r["loss"] for r in log if r["event"] == "train"] for log in logs]
    assert losses[0] == pytest.approx(losses[1])


def test_mixture_consistency_holds_for_what_is_scored():
    """Gains of 0.5 + 0.5 with the rest spread over both cannot leave the sum of one."""
    state, settings = make(steps=40, loss={"l1": 1.0}, mixture_consistency=True)
    with torch.no_grad():
        state.model.gain.copy_(torch.tensor([0.9, 0.9]))
    audio = next(r for r in train(state, settings) if r["event"] == "valid")["audio"]
    torch.testing.assert_close(audio["0/est.a"] + audio["0/est.b"], audio["0/mix"])
    assert (state.model.gain[0] - state.model.gain[1]).item() == pytest.approx(0.6, abs=0.04)


def test_records_average_over_the_steps_between_log_lines():
    state, settings = make(steps=6, loss={"l1": 2.0, "si_sdr": 0.0}, log_every=3)
    records = train(state, settings)
    steps = [record["loss"] for record in records if record["event"] == "step"]
    lines = [record for record in records if record["event"] == "train"]
    assert [line["step"] for line in lines] == [3, 6]
    assert [line["loss"] for line in lines] == pytest.approx(
        [sum(steps[:3]) / 3, sum(steps[3:]) / 3]
    )
    assert lines[0]["l1"] == pytest.approx(lines[0]["loss"] / 2)
    assert lines[1]["lr"] == pytest.approx(learning_rate(5, settings))
    assert lines[0]["skipped"] == 0
    assert lines[0]["items_per_s"] > 0


def test_a_batch_that_is_not_finite_is_skipped_without_a_trace():
    """Batch 1 (items 2 and 3) is bad: weights and running statistics must stay as they were."""
    state, settings = make(Everything, steps=2, ema=0.5)
    for record in fit(state, data(bad=(3,)), data(4, seed=1), settings):
        if record["event"] == "step" and record["step"] == 1:
            before = copy.deepcopy(state.model.state_dict())
            average = [weights.clone() for weights in state.average.parameters()]
    after = state.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(map(torch.equal, average, state.average.parameters()))
    assert all(value.isfinite().all() for value in state.average.state_dict().values())
    assert state.skipped == 1
    assert record["event"] == "valid"
    assert math.isfinite(record["loss"])


def test_many_bad_steps_in_a_row_end_the_training_with_one_line():
    state, settings = make(steps=50, max_bad_steps=3)
    bad = {k for k in range(8, 200) if k != 11}  # every batch from the fifth on has one
    with pytest.raises(SepcliError, match="training diverged: steps 5 to 7 had no finite loss"):
        train(state, settings, train_data=data(bad=bad))
    assert state.model.gain.isfinite().all()


def test_a_good_step_between_bad_ones_starts_the_count_again():
    state, settings = make(steps=8, max_bad_steps=2)
    train(state, settings, train_data=data(bad=(2, 6, 10)))  # steps 1, 3 and 5
    assert state.skipped == 3
    assert state.bad_in_a_row == 0


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_a_run_continued_from_a_checkpoint_is_the_uninterrupted_run(stop, tmp_path):
    options = {"steps": 8, "accumulate": 2, "ema": 0.9, "warmup": 3, "validate_every": 3}
    (whole, settings), (first, _), (second, _) = (make(Everything, **options) for _ in range(3))
    train(whole, settings, train_data=data(5))
    train(first, settings, train_data=data(5), stop=stop)
    checkpoint.save(tmp_path / "last.ckpt", first.state_dict())
    torch.manual_seed(99)  # whatever the new process did before
    second.load_state_dict(checkpoint.load(tmp_path / "last.ckpt"))
    train(second, settings, train_data=data(5))
    assert_same_state(whole, second)
    assert whole.best == pytest.approx(second.best, rel=0, abs=0, nan_ok=True)
    assert whole.first == pytest.approx(second.first, rel=0, abs=0, nan_ok=True)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 with threads about
def test_what_depends_on_the_step_is_the_same_in_a_continued_run(tmp_path):
    options = {"steps": 6, "accumulate": 2, "loss": {"l1": 1.0}, "lr": 1e-9}
    (whole, settings), (first, _), (second, helped) = (
        make(**options, workers=n) for n in (0, 0, 2)
    )
    louder = Items(Louder(), ("a", "b"), items=5, seed=0)
    records = train(whole, settings, train_data=louder)
    losses = [record["loss"] for record in records if record["event"] == "train"]
    assert losses == pytest.approx([losses[0] * (1 + step) for step in range(6)], rel=0.2)
    train(first, settings, train_data=louder, stop=3)
    checkpoint.save(tmp_path / "last.ckpt", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "last.ckpt"))
    train(second, helped, train_data=louder)
    assert_same_state(whole, second)


def test_a_run_stopped_before_a_validation_makes_up_for_it():
    state, settings = make(steps=6, validate_every=3)
    train(state, settings, stop=3)
    assert state.validated == 0
    events = [record["event"] for record in train(state, settings)]
    assert events[:4] == ["validating", "validating", "valid", "train"]
    assert train(state, settings) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 with threads about
def test_worker_processes_do_not_change_the_weights():
    (alone, one), (helped, two) = (make(Everything, steps=4, workers=n) for n in (0, 2))
    train(alone, one)
    train(helped, two)
    assert_same_state(alone, helped)


def test_the_learning_rate_rises_linearly_and_falls_as_half_a_cosine():
    settings = Settings(lr=1.0, final_lr=0.1, warmup=4, steps=104)
    assert [learning_rate(step, settings) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(54, settings) == pytest.approx(0.55)
    assert learning_rate(29, settings) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(104, settings) == pytest.approx(0.1)


def test_the_gradient_is_cut_to_the_norm_asked_for():
    model = Gains()
    for clip, length in ((1.0, 1.0), (0.0, 5.0), (7.0, 5.0)):
        model.gain.grad = torch.tensor([3.0, 4.0])
        assert clip_gradients(model, clip) == pytest.approx(5.0)
        assert model.gain.grad.norm().item() == pytest.approx(length, rel=1e-5)


def test_the_moving_average_follows_fast_at_first_and_then_with_its_decay():
    average, model = Gains(), Gains()
    nn.init.zeros_(average.gain)
    nn.init.ones_(model.gain)
    move_average(average, model, 0.9, updates=0)
    assert average.gain[0].item() == pytest.approx(0.9)  # decay 1 / 10
    nn.init.zeros_(average.gain)
    move_average(average, model, 0.9, updates=10_000)
    assert average.gain[0].item() == pytest.approx(0.1)


def test_the_average_gets_the_statistics_of_its_own_weights():
    """After averaging, batch norm must know the mean and variance of what it is given now."""
    torch.manual_seed(0)
    model = Everything().eval()
    nn.init.normal_(model.net[0].weight, std=3.0)  # the statistics it starts with do not fit
    mixes = torch.randn(3, 2, 1, T)
    renew_statistics(model, [(mix, None) for mix in mixes])
    with torch.no_grad():
        heard = torch.stack([model.net[0](mix) for mix in mixes])  # (3, B, 4, T)
    torch.testing.assert_close(model.net[1].running_mean, heard.mean((0, 1, 3)))
    torch.testing.assert_close(model.net[1].running_var, heard.var((1, 3)).mean(0))
    assert not any(layer.training for layer in model.modules())


def test_the_average_is_what_is_validated():
    state, settings = make(steps=3, ema=0.999, loss={"l1": 1.0})
    train(state, settings)
    scores, _ = exhaust(evaluate(state.average, data(4, seed=1), settings))
    assert state.last == pytest.approx({"step": 3, **scores}, nan_ok=True)
    assert scores != exhaust(evaluate(state.model, data(4, seed=1), settings))[0]
