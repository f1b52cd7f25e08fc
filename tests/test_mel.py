"""Mel bands against librosa's, and magnitudes made of them against scipy's least squares."""

import librosa
import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from sepcli.dsp.mel import magnitudes_of, mel_filters


@pytest.mark.parametrize(
    ("rate", "window", "bands"), [(44100, 4096, 128), (16000, 512, 40), (22050, 1024, 80)]
)
def test_the_filters_are_those_of_librosa(rate, window, bands):
    expected = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands)
    np.testing.assert_allclose(mel_filters(rate, window, bands), expected, rtol=0, atol=1e-7)


@pytest.fixture
def magnitude():
    """(2, 3, F, N) of noise in bands."""
    rng = np.random.default_rng(0)
    shape = np.exp(-np.arange(129) / 30)[:, None]
    return torch.from_numpy(shape * rng.rayleigh(size=(2, 3, 129, 20))).float()


def test_magnitudes_have_the_bands_that_they_are_made_of(magnitude):
    filters = mel_filters(8000, 256, 30)
    mel = filters @ magnitude
    found = magnitudes_of(mel, filters)
    assert found.shape == magnitude.shape
    assert found.min() >= 0
    torch.testing.assert_close(filters @ found, mel, rtol=0.02, atol=0.02 * mel.mean().item())


def test_bands_of_no_magnitudes_are_approached_as_by_least_squares():
    filters = mel_filters(8000, 256, 30)
    mel = torch.from_numpy(np.random.default_rng(1).uniform(0, 1, (30, 8))).float()
    found = magnitudes_of(mel, filters, iterations=2000)
    ours = (filters @ found - mel).norm(dim=0).numpy()
    best = [nnls(filters.double().numpy(), m)[1] for m in mel.double().numpy().T]
    np.testing.assert_allclose(ours, best, atol=0.02 * mel.norm(dim=0).max().item())


def test_silence_stays_silence():
    found = magnitudes_of(torch.zeros(1, 40, 5), mel_filters(16000, 512, 40))
    assert found.abs().max() < 1e-9
