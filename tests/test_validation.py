"""Scores of a model on a fixed data set, against values that are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.mixing.source import Drawn, Source
from sepcli.models import build
from sepcli.training import validation
from sepcli.training.settings import Settings
from sepcli.training.validation import evaluate
from tests.loops import Gains, Shares, T, exhaust, make, train


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
