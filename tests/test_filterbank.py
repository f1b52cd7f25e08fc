"""The streaming short-time Fourier transform against PyTorch's own."""

import pytest
import torch

from sepcli.nn.filterbank import Stft

FORMS = [(320, 160, "hann"), (320, 160, "sqrt_hann"), (96, 32, "hann"), (512, 128, "sqrt_hann")]


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 40 * 160, dtype=torch.float64, generator=generator)


def round_trip(stft, x, chunks):
    """Analyse and synthesise (B, T) in chunks of so many hops; (spectrum, late output)."""
    past = tail = stft.initial_state(len(x), x)
    spectra, out = [], []
    for chunk in x.split([n * stft.stride for n in chunks], -1):
        spectrum, past = stft.analyse(chunk, past)
        y, tail = stft.synthesise(spectrum, tail)
        spectra.append(spectrum)
        out.append(y)
    return torch.cat(spectra, -1), torch.cat(out, -1)


@pytest.mark.parametrize(("kernel", "stride", "window"), FORMS)
def test_what_comes_back_is_the_input_later(kernel, stride, window, noise):
    stft = Stft(kernel, stride, window=window)
    whole = noise.shape[-1] // stride
    _, y = round_trip(stft, noise[:, : whole * stride].float(), (1, 3, whole - 4))
    late = kernel - stride
    torch.testing.assert_close(
        y[:, late:].double(), noise[:, : y.shape[-1] - late], rtol=0, atol=2e-6
    )
    assert y[:, :late].abs().max() < 1e-6


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
def test_frames_are_those_of_torch_stft_with_zeros_around_the_signal(window, noise):
    stft = Stft(320, 160, window=window).double()
    flushed = torch.nn.functional.pad(noise, (0, 160))
    spectrum, _ = round_trip(stft, flushed, (1, 2, 38))
    expected = torch.stft(
        noise, 320, 160, window=stft.window, pad_mode="constant", return_complex=True
    )
    torch.testing.assert_close(spectrum, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
def test_a_changed_spectrum_sounds_as_torch_istft_makes_it(window, noise):
    """The overlapping squares of a Hann window at half its length vary from 0.5 to 1."""
    stft = Stft(320, 160, window=window).double()
    spectrum = torch.stft(
        noise, 320, 160, window=stft.window, pad_mode="constant", return_complex=True
    )
    spectrum = spectrum * torch.rand(spectrum.shape, dtype=torch.float64)
    y, _ = stft.synthesise(spectrum, stft.initial_state(2, noise))
    expected = torch.istft(spectrum, 320, 160, window=stft.window, length=noise.shape[-1])
    torch.testing.assert_close(y[:, 160:], expected, rtol=0, atol=1e-6)  # its windows are float32


def test_an_unknown_window_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown window 'hamming'; choose from sqrt_hann, hann"):
        Stft(320, 160, window="hamming")
