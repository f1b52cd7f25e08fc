"""The U-Net that masks mid and side: its size, its masks, and what they make of the mixture."""

import pytest
import torch

from sepcli.models.mask_unet import EDGE, MaskUnet
from tests.models import OFFLINE, randomise

SMALL = next(settings for name, settings in OFFLINE if name == "mask_unet")


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    return torch.randn(2, 2, 3000)


def answering(mid, side, **settings):
    """A model whose masks are `mid` and `side`, in [0, 1], whatever it hears."""
    model = MaskUnet(**{**SMALL, **settings}).eval()
    logits = torch.logit(torch.tensor([mid, side])).clamp(-200, 200)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(logits.repeat_interleave(len(model.output.bias) // 2))
    return model


def test_the_size():
    assert sum(p.numel() for p in MaskUnet().parameters()) == 1_338_440


def test_masks_are_between_0_and_1_at_every_level():
    torch.manual_seed(0)
    model = randomise(MaskUnet(**SMALL))
    for scale in (0, 1e-8, 1, 1e4):
        mask = model.mask(scale * torch.rand(2, 2, 32, 50))
        assert mask.shape == (2, 2, 32, 50)
        assert ((mask >= 0) & (mask <= 1)).all()


def test_the_estimates_add_up_to_the_mixture(mixture):
    torch.manual_seed(1)
    model = randomise(MaskUnet(**SMALL))
    estimates = model(mixture)
    torch.testing.assert_close(estimates.sum(1), mixture, rtol=0, atol=1e-5)
    assert (estimates.std((0, 2, 3)) > 0.1).all()  # and neither is all of it


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ((1, 1), lambda left, right: (left, right)),
        ((0, 0), lambda left, right: (0 * left, 0 * right)),
        ((1, 0), lambda left, right: ((left + right) / 2,) * 2),
        ((0, 1), lambda left, right: ((left - right) / 2, (right - left) / 2)),
    ],
)
def test_the_masks_are_of_mid_and_side(mixture, masks, expected):
    model = answering(*map(float, masks), sources=("vocals",))
    expected = torch.stack(expected(*mixture.unbind(1)), 1)
    torch.testing.assert_close(model(mixture)[:, 0], expected, rtol=0, atol=1e-5)


def test_frequencies_above_those_it_sees_get_the_mean_mask_of_the_highest():
    torch.manual_seed(0)
    settings = {**SMALL, "window": 1024, "hop": 256, "bins": 256, "sources": ("vocals",)}
    model = randomise(MaskUnet(**settings))
    spectrum = torch.randn(1, 2, 513, 9, dtype=torch.complex64)
    mid, side = (sum(spectrum.unbind(1)), spectrum[:, 0] - spectrum[:, 1])
    mask = model.mask(torch.stack([mid, side], 1)[:, :, :256].abs() * 0.5**0.5)
    above = mask[:, :, 256 - EDGE :].mean(2, keepdim=True)
    found = model.spectra(spectrum)[:, 0]
    torch.testing.assert_close(sum(found.unbind(1))[:, 256:], (mid * above[:, 0])[:, 256:])
    torch.testing.assert_close((found[:, 0] - found[:, 1])[:, 256:], (side * above[:, 1])[:, 256:])


def test_silence_stays_silent_and_has_finite_gradients():
    model = MaskUnet(**SMALL)
    y = model(torch.zeros(1, 2, 3000))
    assert not y.any()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sources": ("vocals", "drums", "bass")}, "name one source, or it and the rest"),
        ({"bins": 24}, "bins must be a multiple of 16 up to 64, not 24"),
        ({"bins": 80}, "bins must be a multiple of 16 up to 64, not 80"),
        ({"bins": 0}, "not 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        MaskUnet(**{**SMALL, **settings})
