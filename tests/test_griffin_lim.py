"""Griffin-Lim against librosa's, and what the first guess of the phase is worth."""

import librosa
import numpy as np
import pytest
import torch

from sepcli.dsp.griffin_lim import griffin_lim
from sepcli.nn.spectral import CentredStft, with_phase


def hann(size):
    return torch.hann_window(size, dtype=torch.float64)


@pytest.mark.parametrize(
    ("window", "hop", "length"), [(256, 64, 9000), (256, 100, 9011), (64, 16, 650), (128, 32, 129)]
)
@pytest.mark.parametrize("pad", ["constant", "reflect"])
@pytest.mark.parametrize("momentum", [0.99, 0.0])
def test_it_equals_librosa_in_float64(window, hop, length, pad, momentum):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, length))
    geometry = {"n_fft": window, "hop_length": hop, "pad_mode": pad}
    magnitude = np.abs(librosa.stft(x, **geometry))
    magnitude *= rng.uniform(0.5, 2, magnitude.shape)  # of no signal
    expected = librosa.griffinlim(
        magnitude, n_iter=32, init=None, momentum=momentum, length=length, **geometry
    )
    got = griffin_lim(
        torch.from_numpy(magnitude + 0j), hann(window), hop, length, momentum=momentum, pad=pad
    )
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-9)


def test_it_equals_librosa_from_random_phases():
    """librosa draws exp(2 pi i U) from the seed it is given."""
    x = np.random.default_rng(1).standard_normal(5000)
    magnitude = np.abs(librosa.stft(x, n_fft=256))
    expected = librosa.griffinlim(magnitude, n_iter=20, random_state=3, length=5000)
    phase = 2 * np.pi * np.random.RandomState(3).random(size=magnitude.shape)
    spectrum = torch.from_numpy(magnitude * np.exp(1j * phase))
    got = griffin_lim(spectrum, hann(256), 64, 5000, iterations=20, pad="constant")
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-9)


def test_a_spectrum_of_a_signal_stays_that_signal():
    stft = CentredStft(256, 64).double()
    x = torch.randn(2, 3, 4000, dtype=torch.float64)
    got = griffin_lim(stft.analyse(x), stft.window, stft.hop, 4000, iterations=5)
    torch.testing.assert_close(got, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_stays_silence(dtype):
    spectrum = torch.zeros(1, 33, 20, dtype=dtype) + 0j
    got = griffin_lim(spectrum, torch.hann_window(64, dtype=dtype), 16, 310)
    assert got.dtype == dtype
    assert (got == 0).all()


def test_blocks_of_frames_change_nothing(monkeypatch):
    stft = CentredStft(64, 16).double()
    spectrum = stft.analyse(torch.randn(2000, dtype=torch.float64)).abs() + 0j
    at_once = griffin_lim(spectrum, stft.window, 16, 2000)
    monkeypatch.setattr("sepcli.dsp.griffin_lim.BLOCK", 7)
    in_blocks = griffin_lim(spectrum, stft.window, 16, 2000)
    torch.testing.assert_close(in_blocks, at_once, rtol=0, atol=1e-11)


def test_a_spectrum_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="33 bins and 20 frames do not fit a window of 64 and 320"):
        griffin_lim(torch.zeros(33, 20) + 0j, torch.hann_window(64), 16, 320)


def song(seconds=4, rate=16000):
    """A voice with vibrato and pauses, and chords with drums: (2, T) float32."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 220 * 2 ** (np.floor(2 * t) % 5 / 12) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * t))
    turns = np.cumsum(pitch) / rate
    voice = sum(np.sin(2 * np.pi * k * turns) / k for k in range(1, 12)) * (t % 1 < 0.8)
    chords = sum(np.sin(2 * np.pi * hz * t + hz) for hz in (110, 164.8, 277.2, 330, 440))
    drums = rng.standard_normal(t.size) * np.exp(-20 * (t % 0.25))
    return np.stack([0.2 * voice, 0.06 * chords + 0.2 * drums]).astype(np.float32)


def test_from_the_phase_of_the_mixture_true_magnitudes_get_better_and_from_random_ones_useless():
    stems = torch.from_numpy(song())
    stft = CentredStft(1024, 256)
    mixture, magnitude = stft.analyse(stems.sum(0)), stft.analyse(stems).abs()
    first = with_phase(magnitude, mixture)

    def sdr_db(estimate):
        return 10 * torch.log10(stems.square().sum(1) / (stems - estimate).square().sum(1))

    def improve(spectrum):
        return griffin_lim(spectrum, stft.window, stft.hop, stems.shape[1])

    before = sdr_db(stft.synthesise(first, stems.shape[1]))
    assert (sdr_db(improve(first)) > before + 3).all()
    phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0))
    assert (sdr_db(improve(torch.polar(magnitude, phase))) < 0).all()
