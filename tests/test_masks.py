"""What the models have in common that mask the lower part of a song's spectrum."""

import pytest
import torch

from sepcli.layers import masks
from sepcli.models import build
from tests.models import OFFLINE, randomise

UNITS = {"deep_unet": 8, "mask_unet": 16}  # what their numbers of frequencies are multiples of
SMALL = {name: next(settings for one, settings in OFFLINE if one == name) for name in UNITS}


@pytest.mark.parametrize("name", UNITS)
def test_the_estimates_add_up_to_the_mixture(name):
    torch.manual_seed(0)
    mixture = torch.randn(2, 2, 3000)
    torch.manual_seed(1)
    model = randomise(build(name, **SMALL[name]))
    estimates = model(mixture)
    torch.testing.assert_close(estimates.sum(1), mixture, rtol=0, atol=1e-5)
    assert (estimates.std((0, 2, 3)) > 0.1).all()  # and neither is all of it


@pytest.mark.parametrize("name", UNITS)
def test_silence_stays_silent_and_has_finite_gradients(name):
    model = build(name, **SMALL[name])
    y = model(torch.zeros(1, 2, 3000))
    assert not y.any()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("name", "unit"), UNITS.items())
def test_settings_that_do_not_fit_are_refused(name, unit):
    with pytest.raises(ValueError, match=f"{name} has one mask: name one source, or it and the"):
        build(name, **SMALL[name] | {"sources": ("vocals", "drums", "bass")})
    for bins in (0, unit + unit // 2, 64 + unit):
        with pytest.raises(ValueError, match=f"a multiple of {unit} up to 64, not {bins}$"):
            build(name, **SMALL[name] | {"bins": bins})


def test_the_view_of_mid_and_side_is_its_own_inverse():
    x = torch.randn(3, 2, 5, 7, dtype=torch.complex64)
    torch.testing.assert_close(masks.mid_side(masks.mid_side(x)), x)
    torch.testing.assert_close(masks.mid_side(x).abs().square().sum(1), x.abs().square().sum(1))
