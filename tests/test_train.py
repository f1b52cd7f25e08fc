"""The training loop, without files: what it learns, skips, saves and continues."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.mixing.source import Drawn, Source
from sepcli.models import build
from sepcli.nn.model import Model
from sepcli.runs import checkpoint
from sepcli.training import validation
from sepcli.training.loop import (
    State,
    clip_gradients,
    fit,
    move_average,
    renew_statistics,
)
from sepcli.training.settings import Settings, learning_rate
from sepcli.training.validation import evaluate

T = 400
QUICK = {"lr": 0.05, "batch": 2, "warmup": 0, "log_every": 1, "validate_every": 100}


class Shares(Source):
    """White noise x as the mixture of `a` = 0.8 x and `b` = 0.2 x; the items in `bad` are NaN."""

    def __init__(self, bad=()):
        self.bad = bad

    def draw(self, seed, index, step=None):
        x = np.random.default_rng([seed, index]).standard_normal((1, T), dtype=np.float32)
        x = x * np.float32(np.nan) if index in self.bad else x
        return Drawn(x, {"a": np.float32(0.8) * x, "b": np.float32(0.2) * x})


class Louder(Shares):
    """Shares that grow with the step."""

    def draw(self, seed, index, step=None):
        drawn = super().draw(seed, index)
        loudness = np.float32(100 if step is None else 1 + step)
        return Drawn(loudness * drawn.mix, {k: loudness * x for k, x in drawn.refs.items()})


class Gains(Model):
    """One gain for each source; (B, 1, T) -> (B, 2, 1, T)."""

    sample_rate, sources, channels = 1000, ("a", "b"), 1

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, x):
        return self.gain[:, None, None] * x[:, None]


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


def data(items=0, seed=0, **source):
    return Items(Shares(**source), ("a", "b"), items=items, seed=seed)


def make(model=Gains, **settings):
    """A fresh (state, settings) of the quick settings changed by `settings`."""
    torch.manual_seed(0)
    settings = Settings(**QUICK | settings)
    return State(model(), settings), settings


def train(state, settings, *, train_data=None, stop=None):
    """Run the loop, to the step `stop` where given; returns the records."""
    records = []
    for record in fit(state, train_data or data(), data(4, seed=1), settings):
        records.append(record)
        if record["event"] == "step" and record["step"] == stop:
            break
    return records


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


def exhaust(generator):
    """What the generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


class Tones(Source):
    """A tone as `a`, its quadrature at a tenth of the amplitude (or silence, item 1) as `b`."""

    def draw(self, seed, index, step=None):
        phase = 2 * np.pi * 5 * np.arange(T)[None] / T
        a = np.sin(phase).astype(np.float32)
        b = np.float32(0.1) * np.cos(phase).astype(np.float32) * (index != 1)
        return Drawn(a + b, {"a": a, "b": b})


def test_validation_scores_are_means_of_known_values():
    """The mixture as the estimate: +20 dB for `a` and -20 dB for `b`; silence has none."""
    settings = Settings(batch=2, loss={"l1": 1.0})
    tones = Items(Tones(), ("a", "b"), items=3, seed=0)
    model = Gains()
    nn.init.ones_(model.gain)
    scores, audio = exhaust(evaluate(model, tones, settings))
    assert scores["silent"] == 1
    assert scores["items"] == 3
    assert scores["clean"] == 1  # where `b` is silent, the mixture is `a`
    assert scores["si_sdri_db"] == pytest.approx(0, abs=1e-6)
    assert scores["si_sdr_db_b"] == pytest.approx(-20, abs=1e-3)
    perfect_db = 10 * math.log10(T / 2 / 1e-8)  # item 1 is `a` alone: the energy over epsilon
    assert scores["si_sdr_db_a"] == pytest.approx((20 + perfect_db + 20) / 3, abs=0.1)
    assert scores["snr_db"] == pytest.approx((20 - 20 + perfect_db + 20 - 20) / 5, abs=0.1)
    assert set(audio) == {
        f"{i}/{n}" for i in (0, 1) for n in ("mix", "ref.a", "ref.b", "est.a", "est.b")
    }


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("spectral_tasnet", {"sources": ["a", "b"]}),
        ("open_unmix", {"sources": ["a", "b"], "window": 256, "hop": 64, "hidden": 8, "layers": 1}),
    ],
)
def test_what_a_step_on_spectra_sounds_like_are_their_signals(name, settings):
    model = build(name, **settings)
    refs = 0.1 * torch.randn(3, 2, model.channels, 4096)
    mix, estimates = refs.sum(1), 0.5 * refs
    spectra = [model.analyse(x) for x in (mix, refs, estimates)]
    plain = validation.listen(model, mix, refs, estimates, 4096)
    heard = validation.listen(model, *spectra, 4096)
    assert plain.keys() == heard.keys()
    for key, signal in plain.items():
        torch.testing.assert_close(heard[key], signal, atol=1e-5, rtol=0)
    estimates[0, 0, 0, 7] = math.nan  # of a step that is skipped
    assert validation.listen(model, mix, refs, estimates, 4096)["0/est.a"].isfinite().all()


class Noisy(Tones):
    """The tones in noise of -20 dB, which is neither; the right channel of `b` is silent."""

    def draw(self, seed, index, step=None):
        tones = super().draw(seed, index)
        noise = np.random.default_rng([seed, index]).standard_normal((1, T))
        b = np.concatenate([tones.refs["b"], 0 * tones.refs["b"]])  # (2, T)
        a = np.concatenate([tones.refs["a"]] * 2)
        return Drawn(a + b + np.float32(0.1) * noise, {"a": a, "b": b})


def test_what_has_no_score_is_left_out_of_the_means():
    """A model that halves everything improves nothing: 0 dB in all that can be improved."""
    settings = Settings(batch=2, loss={"l1": 1.0})
    for source, silent, clean in ((Tones(), 1, 1), (Noisy(), 1, 0), (Shares(), 0, 6)):
        scores, _ = exhaust(evaluate(Gains(), Items(source, ("a", "b"), items=3, seed=0), settings))
        assert (scores["silent"], scores["clean"]) == (silent, clean)
        improvement = scores["si_sdri_db"]
        assert math.isnan(improvement) if clean == 6 else abs(improvement) < 1e-3
        if not clean:  # the left channel's: that of the right has none
            assert scores["si_sdr_db_b"] == pytest.approx(-20, abs=1)


def test_the_examples_of_a_model_of_one_source_have_the_rest_of_the_mixture():
    class First(Gains):
        sources = ("a",)

        def forward(self, x):
            return super().forward(x)[:, :1]

    tones = Items(Tones(), ("a",), items=1, seed=0)
    _, audio = exhaust(evaluate(First(), tones, Settings()))
    assert set(audio) == {"0/mix", "0/ref.a", "0/est.a", "0/ref.rest"}
    torch.testing.assert_close(audio["0/ref.rest"], torch.tensor(Tones().draw(0, 0).refs["b"]))


def test_log_lines_have_the_quality_of_the_training_items_that_are_not_silent():
    """The mixture as the estimate, before the first step: as in validation."""
    state, settings = make(steps=1, loss={"l1": 1.0}, batch=3)
    nn.init.ones_(state.model.gain)
    tones = Items(Tones(), ("a", "b"), items=3, seed=0)
    line = next(r for r in train(state, settings, train_data=tones) if r["event"] == "train")
    perfect_db = 10 * math.log10(T / 2 / 1e-8)
    assert line["snr_db"] == pytest.approx(perfect_db / 5, abs=0.1)
    assert line["si_sdr_db"] == pytest.approx(perfect_db / 5, abs=0.1)
    assert "audible" not in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"train\.steps must be at least 1, not 0"),
        ({"batch": -1}, r"train\.batch must be at least 1, not -1"),
        ({"lr": 0.0}, r"train\.lr must be above 0, not 0\.0"),
        ({"ema": 1.0}, r"train\.ema must be at least 0 and below 1, not 1\.0"),
        ({"clip": -1.0}, r"train\.clip must be 0 or more, not -1\.0"),
        ({"loss": {"mse": 1.0}}, "unknown loss 'mse'"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, message):
    with pytest.raises(SepcliError, match=message):
        Settings(**settings)
