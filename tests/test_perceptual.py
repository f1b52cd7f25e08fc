"""The loss that hears as PESQ does, beside PESQ itself."""

import numpy as np
import pytest
import torch

from sepcli.losses.perceptual import BANDS, LOWEST_HZ, _bark, _hearing, perceptual_loss
from sepcli.metrics.pesq import pesq_wide_band
from sepcli.mixing import synthetic

RATE = 16000


def spectra(x):
    """(T,) to (1, 1, 1, F, N), as models see it."""
    frames = torch.from_numpy(np.asarray(x, np.float32)).unfold(-1, 512, 256)
    return torch.fft.rfft(frames * torch.hann_window(512).sqrt()).T[None, None, None]


@pytest.fixture(scope="module")
def speech():
    rng = np.random.default_rng(0)
    return 0.1 * synthetic.speech(2 * RATE, RATE, rng, 1), 0.03 * rng.standard_normal(2 * RATE)


def test_it_falls_as_pesq_rises(speech):
    clean, noise = speech
    scores, values = [], []
    for gain in (1.0, 0.3, 0.1, 0.03):
        heard = clean + gain * noise
        scores.append(pesq_wide_band(heard[None], clean[None], RATE))
        values.append(float(perceptual_loss(spectra(heard), spectra(clean))))
    assert scores == sorted(scores)
    assert values == sorted(values, reverse=True)


def test_an_equal_estimate_loses_next_to_nothing_at_any_level(speech):
    clean, noise = (spectra(x) for x in speech)
    assert float(perceptual_loss(clean, clean)) < 1e-3
    one, other = (float(perceptual_loss(g * (clean + noise), g * clean)) for g in (1.0, 0.01))
    assert one == pytest.approx(other, rel=1e-2)


def test_added_noise_is_worse_than_as_much_that_is_missing(speech):
    clean = spectra(speech[0])
    louder, softer = (float(perceptual_loss(g * clean, clean)) for g in (4.0, 0.25))
    assert louder > 2 * softer


def test_gradients_are_finite_where_nothing_sounds(speech):
    clean = spectra(speech[0])
    clean[..., 20:60] = 0
    estimate = torch.zeros_like(clean).requires_grad_()
    perceptual_loss(estimate, clean).backward()
    assert torch.isfinite(torch.view_as_real(estimate.grad)).all()


def test_bands_share_all_bins_above_the_lowest_frequency():
    bands, threshold = _hearing(257, RATE)
    assert bands.shape == (BANDS, 257)
    whole = torch.linspace(0, RATE / 2, 257) - RATE / 4 / 256 > LOWEST_HZ
    np.testing.assert_allclose(bands.sum(0)[whole][:-1], 1, rtol=1e-4)
    assert float(threshold.min()) == pytest.approx(10**-0.5, rel=0.2)  # -5 dB near 3.3 kHz
    assert float(_bark(torch.tensor(8000.0))) == pytest.approx(19.7, abs=0.1)
