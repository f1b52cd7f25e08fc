"""Layers that bands share, against closed forms and one another."""

import math

import numpy as np
import pytest
import torch

from sepcli.layers.band_lstm import BandEncoder, RunningMean, band_widths
from sepcli.models import build
from tests.models import TINY, randomise

SETTINGS = dict(TINY)["band_lstm"]


def test_the_last_band_has_what_the_others_leave():
    assert band_widths(257, ((12, 4), (8, 8), (12, 12))) == [4] * 12 + [8] * 8 + [12] * 11 + [13]
    assert band_widths(10, ((2, 5),)) == [5, 5]


@pytest.mark.parametrize("bands", [(), ((3, 4),), ((2, 0),), ((0, 3),)])
def test_bands_that_do_not_fit_are_refused(bands):
    with pytest.raises(ValueError, match="do not fit a spectrum of 10 bins"):
        band_widths(10, bands)


@pytest.mark.parametrize("span", [2, 11])
def test_a_span_holds_the_widest_band_and_is_no_wider_than_the_spectrum(span):
    with pytest.raises(ValueError, match="span must lie between"):
        BandEncoder(1, [3, 3, 4], span, 2)


def test_a_band_reads_the_bins_around_its_middle():
    encoder = BandEncoder(1, [2, 2, 6], 6, 1)
    assert [row[0].item() for row in encoder.bins] == [0, 0, 4]
    features = torch.zeros(1, 1, 10, 1)
    features[0, 0, 4] = 1
    with torch.no_grad():
        encoder.weight.fill_(1)
        y = encoder(features)
    np.testing.assert_array_equal(y.flatten(), [1, 1, 1])


def test_a_running_mean_is_the_weighted_mean_of_what_came_so_far():
    """By NumPy's weighted average, frame by frame; in chunks of any size."""
    rng, mean = np.random.default_rng(0), RunningMean(20.0)
    x = rng.random((2, 3, 150))
    expected = [
        np.average(x[..., : n + 1], axis=-1, weights=math.exp(-1 / 20) ** np.arange(n, -1, -1.0))
        for n in range(150)
    ]
    total, weight, parts = torch.zeros(2, 3).double(), torch.zeros(2, 1).double(), []
    for part in torch.from_numpy(x).split([1, 70, 64, 15], -1):
        y, total, weight = mean.step(part, total, weight)
        parts.append(y)
    np.testing.assert_allclose(torch.cat(parts, -1), np.stack(expected, -1), rtol=1e-12)
    np.testing.assert_allclose(mean.whole(torch.from_numpy(x)), np.stack(expected, -1), rtol=1e-12)


@pytest.mark.parametrize("gain", [1e-2, 10.0])
def test_the_gains_do_not_depend_on_the_level(gain):
    torch.manual_seed(0)
    model = randomise(build("band_lstm", **SETTINGS)).double()
    x = torch.randn(1, 1, 3000, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(gain * x), gain * model(x), rtol=1e-3, atol=1e-5 * gain)


def test_the_defaults_are_those_of_the_third_generation_of_denoise():
    model = build("band_lstm")
    assert sum(p.numel() for p in model.parameters()) == 976_410
    assert model.latency == 512


def test_features_are_dropped_in_training_alone():
    model = randomise(build("band_lstm", **SETTINGS | {"dropout": 0.5})).train()
    x = torch.randn(1, 1, 1000)
    assert not torch.equal(model(x), model(x))
    without = build("band_lstm", **SETTINGS).eval()
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), without(x))
