"""The U-Net that masks mid and side: its size, its masks, and what they make of the mixture."""

import pytest
import torch

from sepcli.layers.masks import EDGE, mid_side
from sepcli.models.mask_unet import MaskUnet
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
    mask = model.mask(mid_side(spectrum)[:, :, :256].abs())
    above = mask[:, :, 256 - EDGE :].mean(2, keepdim=True)
    found = model.spectra(spectrum)[:, 0]
    torch.testing.assert_close(sum(found.unbind(1))[:, 256:], (mid * above[:, 0])[:, 256:])
    torch.testing.assert_close((found[:, 0] - found[:, 1])[:, 256:], (side * above[:, 1])[:, 256:])
