import pytest
import torch

from sepcli.dsp.wiener import filter_parts, wiener
from tests.openunmix_package import openunmix


def song(sources=3, channels=2, frames=40, bins=9, level=1.0, batch=2):
    """Return a mixture (B, C, F, N), and magnitudes (B, S, C, F, N) that fit it badly."""
    generator = torch.Generator().manual_seed(0)
    shape = batch, sources, channels, bins, frames
    true = level * torch.randn(*shape, dtype=torch.complex128, generator=generator)
    noise = 0.5 + torch.rand(*shape, dtype=torch.float64, generator=generator)
    return true.sum(1), true.abs() * noise


def with_phase(magnitudes, mixture):
    return magnitudes * torch.exp(1j * mixture.angle())[:, None]


def theirs(magnitudes, mixture, iterations, residual=False, window=300):
    """openunmix's Separator around its own filter, item by item and window by window."""
    fn, items = openunmix("filtering").wiener, []
    for v, x in zip(magnitudes, mixture, strict=True):
        v, x = v.permute(3, 2, 1, 0), torch.view_as_real(x.permute(2, 1, 0))
        parts = [
            fn(v[i : i + window], x[i : i + window], iterations, residual=residual)
            for i in range(0, len(v), window)
        ]
        y = torch.view_as_complex(torch.cat(parts).transpose(-1, -2).contiguous())
        items.append(y.permute(3, 2, 1, 0))  # (N, F, C, S) -> (S, C, F, N)
    return torch.stack(items)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("level", [1e-3, 1.0, 100.0])
def test_the_filters_equal_openunmix(channels, iterations, level):
    mixture, magnitudes = song(channels=channels, level=level)
    ours = wiener(with_phase(magnitudes, mixture), mixture, iterations)
    expected = theirs(magnitudes, mixture, iterations)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6 * level)


def test_windows_have_filters_of_their_own_as_in_openunmix():
    mixture, magnitudes = song(frames=35)
    ours = wiener(with_phase(magnitudes, mixture), mixture, 2, window=10)
    torch.testing.assert_close(ours, theirs(magnitudes, mixture, 2, window=10), rtol=0, atol=1e-6)
    assert (ours - wiener(with_phase(magnitudes, mixture), mixture, 2)).abs().max() > 0.01


def test_with_the_rest_of_the_mixture_as_a_source_they_equal_openunmix_too():
    mixture, magnitudes = song(sources=1)
    vocals = with_phase(magnitudes, mixture)
    both = torch.cat([vocals, mixture[:, None] - vocals], 1)
    expected = theirs(magnitudes, mixture, 1, residual=True)
    torch.testing.assert_close(wiener(both, mixture, 1), expected, rtol=0, atol=1e-6)


def test_float32_is_good_to_a_thousandth():
    mixture, magnitudes = song()
    spectra = with_phase(magnitudes, mixture)
    single = wiener(spectra.to(torch.complex64), mixture.to(torch.complex64), 2)
    difference = (single - wiener(spectra, mixture, 2)).abs().max()
    assert difference < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_filtered_sources_add_up_to_the_mixture(channels):
    mixture, magnitudes = song(channels=channels)
    filtered = wiener(with_phase(magnitudes, mixture), mixture, 2)
    torch.testing.assert_close(filtered.sum(1), mixture, rtol=0, atol=1e-3)


def test_sources_from_different_directions_are_told_apart():
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(1, 2, 1, 5, 400, dtype=torch.complex128, generator=generator)
    directions = torch.tensor([[1.0, 0.2], [0.2, 1.0]])[None, :, :, None, None]
    sources = signals * directions  # (B, S, C, F, N)
    mixture = sources.sum(1)
    blurred = 0.6 * sources + 0.4 * sources.flip(1)
    before, after = (
        (estimate - sources).abs().square().mean()
        for estimate in (blurred, wiener(blurred, mixture, 3))
    )
    assert after < 0.1 * before


def test_one_source_alone_is_refused():
    mixture, magnitudes = song(sources=1)
    with pytest.raises(ValueError, match="needs two sources; add the rest of the mixture"):
        wiener(with_phase(magnitudes, mixture), mixture, 1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_tensors_are_filtered_as_arrays_are(channels):
    mixture, magnitudes = song(channels=channels, bins=70, batch=1)
    spectra = with_phase(magnitudes, mixture)
    parts, x = (torch.stack([each.real, each.imag], -3) for each in (spectra, mixture))
    filter_parts(parts, x, 2, window=30)  # as on a GPU
    ours = torch.complex(parts[..., 0, :, :], parts[..., 1, :, :])
    expected = wiener(spectra.numpy(), mixture.numpy(), 2, window=30)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-8)
