"""The deep U-Net: its size, its masks, and what they make of the mixture."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sepcli.inference.loading import load
from sepcli.layers.masks import EDGE, mid_side
from sepcli.mixing import synthetic
from sepcli.models.deep_unet import DeepUnet, Down, Up
from tests.models import OFFLINE, randomise

SMALL = next(settings for name, settings in OFFLINE if name == "deep_unet")


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    return torch.randn(2, 2, 3000)


def answering(left, right, mid, side):
    """A model whose masks are these, in [0, 1], whatever it hears."""
    model = DeepUnet(**SMALL | {"sources": ("vocals",)}).eval()
    logits = torch.logit(torch.tensor([left, right, mid, side])).clamp(-200, 200)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(logits)
    return model


def test_the_size():
    assert sum(p.numel() for p in DeepUnet().parameters()) == 4_705_760


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ((1, 1, 1, 1), lambda left, right: (left, right)),
        ((0, 0, 1, 1), lambda left, right: (0 * left, 0 * right)),
        ((1, 1, 0, 0), lambda left, right: (0 * left, 0 * right)),
        ((1, 1, 1, 0), lambda left, right: ((left + right) / 2,) * 2),
        ((0, 1, 1, 0), lambda left, right: (0 * left, (left + right) / 2)),
        ((1, 0, 1, 1), lambda left, right: (left, 0 * right)),
    ],
)
def test_the_masks_are_of_mid_and_side_and_then_of_left_and_right(mixture, masks, expected):
    expected = torch.stack(expected(*mixture.unbind(1)), 1)
    found = answering(*map(float, masks))(mixture)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_song_is_separated_alike_at_every_level(mixture):
    torch.manual_seed(2)
    model = randomise(DeepUnet(**SMALL)).eval()
    expected = model(mixture)
    for gain in (1e-3, 10.0):
        torch.testing.assert_close(model(gain * mixture) / gain, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 50])
def test_masks_are_between_0_and_1_for_any_number_of_frames(frames):
    torch.manual_seed(0)
    model = randomise(DeepUnet(**SMALL))
    for scale in (0, 1e-8, 1, 1e4):
        mask = model.mask(scale * torch.rand(2, 4, 32, frames))
        assert mask.shape == (2, 4, 32, frames)
        assert ((mask >= 0) & (mask <= 1)).all()


def test_frequencies_above_those_it_sees_get_the_mean_mask_of_the_highest():
    torch.manual_seed(0)
    settings = {**SMALL, "window": 1024, "hop": 256, "bins": 256, "sources": ("vocals",)}
    model = randomise(DeepUnet(**settings))
    spectrum = torch.randn(1, 2, 513, 9, dtype=torch.complex64)
    seen = torch.cat([spectrum, mid_side(spectrum)], 1)[:, :, :256].abs()
    left, right, mid, side = model.mask(seen)[:, :, 256 - EDGE :].mean(2, keepdim=True).unbind(1)
    expected = mid_side(mid_side(spectrum) * torch.stack([mid, side], 1)) * torch.stack(
        [left, right], 1
    )
    found = model.spectra(spectrum)[:, 0]
    torch.testing.assert_close(found[:, :, 256:], expected[:, :, 256:])


def test_levels_halve_and_double_as_convolutions_do_that_keep_the_size():
    """Against torch's own: of an even size, one zero in front and two behind."""
    torch.manual_seed(0)
    down, up, x = Down(2, 3, first=True), Up(3, 2), torch.randn(1, 2, 6, 8)
    y = down(x)
    assert y.shape == (1, 3, 3, 4)
    kernel, padded = down.convolution, F.pad(x, (1, 2, 1, 2))
    torch.testing.assert_close(y, F.conv2d(padded, kernel.weight, kernel.bias, stride=2))
    z = up(y)
    assert z.shape == x.shape
    whole = F.conv_transpose2d(y, up.convolution.weight, up.convolution.bias, stride=2)
    torch.testing.assert_close(z, whole[..., 1:-2, 1:-2].relu())  # the adjoint of that


def test_the_shipped_model_tells_a_voice_in_the_middle_from_a_wide_band():
    rng, rate = np.random.default_rng(0), 44100
    t = np.arange(4 * rate) / rate
    voice = np.stack([synthetic.speech(t.size, rate, rng, 0)] * 2)
    band = 0.5 * rng.standard_normal(t.size) * np.exp(-60 * (t % 0.25)) * [[1], [0.6]]
    for hz, pan in ((110, 0), (220, 0.3), (277.2, -0.6), (329.6, 0.6)):
        tone = sum(np.sin(2 * np.pi * hz * k * t) / k**1.5 for k in range(1, 12))
        band += tone * np.exp(-4 * (t % 0.5)) * [[1 - pan], [1 + pan]]
    band = (band * voice.std() / band.std()).astype(np.float32)  # at an SDR of 0 dB
    error = load("vocals").separate(voice + band, rate)["vocals"] - voice
    assert 10 * np.log10(voice.var() / error.var()) > 7
