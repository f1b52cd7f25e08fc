"""The chip as a target of quantisation: calibration, integers, and what it cannot run."""

import numpy as np
import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.metrics.sisdr import si_sdr
from sepcli.mixing.mixtures import Mixer
from sepcli.models import build
from sepcli.models.modelfile import load_model
from sepcli.quant import max78000 as target
from sepcli.quant.grids import set_phase

SETTINGS = {"width": 8, "hidden": 12, "dilations": (1, 8, 2)}
FORMS = [{"transform": "stft", "kernel": 64, **SETTINGS}, {"filters": 12, **SETTINGS}]


def calibrated(settings):
    torch.manual_seed(0)
    model = build("tcn_max78000", **settings)
    twin = target.prepare(model).train()
    set_phase(twin, "observe")
    with torch.no_grad():
        for _ in range(3):
            twin(0.1 * torch.randn(4, 1, 4000))
    set_phase(twin, "frozen")
    return model.eval(), twin.eval()


@pytest.mark.parametrize("settings", FORMS)
def test_observing_computes_in_floating_point_and_frozen_near_it(settings):
    model, twin = calibrated(settings)
    x = 0.1 * torch.randn(1, 1, 4000)
    with torch.no_grad():
        exact = model(x)
        error = (twin(x) - exact).square().mean() / exact.square().mean()
        set_phase(twin, "observe")
        torch.testing.assert_close(twin(x), exact, rtol=0, atol=0)
    assert 1e-7 < error < 0.01


@pytest.mark.parametrize("settings", FORMS)
@pytest.mark.parametrize("hops", [1, 7])
def test_the_integer_runner_gives_the_frozen_twins_bits(settings, hops):
    _, twin = calibrated(settings)
    runner = target.integer(twin)
    x = 0.1 * torch.randn(2, 1, 21 * twin.hop)
    ours, theirs = runner.initial_state(2), twin.initial_state(2)
    with torch.inference_mode():
        for chunk in x.split(hops * twin.hop, -1):
            y, theirs = twin.step(chunk, theirs)
            z, ours = runner.step(chunk.numpy(), ours)
            np.testing.assert_array_equal(z, y.numpy())


def test_a_new_twin_loads_what_another_saved():
    _, twin = calibrated(FORMS[0])
    other = target.prepare(build("tcn_max78000", **FORMS[0]))
    other.load_state_dict(twin.state_dict())
    x = 0.1 * torch.randn(1, 1, 1000)
    with torch.no_grad():
        assert torch.equal(other(x), twin(x))


def test_the_model_itself_is_not_changed():
    model = build("tcn_max78000", **FORMS[0])
    before = set(model.state_dict())
    target.prepare(model)
    assert set(model.state_dict()) == before


def test_layers_add_up_to_the_weights():
    model, twin = calibrated(FORMS[1])
    rows = target.layers(twin)
    assert sum(row.weight_bytes for row in rows) == sum(p.numel() for p in model.tcn.parameters())
    dilated = next(row for row in rows if row.name == "dilated2")
    assert (dilated.op, dilated.inputs, dilated.outputs) == ("conv", ((8,),), (12,))
    assert dilated.activation_bytes == 12 + 2 * 8 * 8  # a frame out, 16 frames of 8 channels kept


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv_tasnet", r"cannot run this model: encoder.conv has a stride.*train a tcn_max78000"),
        ("spectral_tasnet", r"expand.1 is a PReLU"),
        ("dmgtcm_unet", r"is a Conv2d"),
    ],
)
def test_another_model_is_refused_with_the_layer(name, message):
    with pytest.raises(SepcliError, match=message):
        target.prepare(build(name))


def test_impossible_scales_are_refused():
    _, twin = calibrated(FORMS[0])
    twin.tcn.logits.high.mul_(1e9)
    with pytest.raises(SepcliError, match=r"mask: output shift -\d+.*calibrate"):
        target.integer(twin)


def test_the_shipped_chip_model_removes_noise_in_integers_that_fit():
    model, card = load_model("denoise-max78000")
    assert card.quantized["target"] == "max78000"
    assert sum(row.weight_bytes for row in target.layers(model)) <= 442_368
    runner, mixer, gains = target.integer(model), Mixer(), []
    for index in range(4):
        item = mixer.draw(0, index)
        estimate = model(torch.from_numpy(item.mix)[None]).detach().numpy()
        padded = np.pad(item.mix[None], ((0, 0), (0, 0), (0, model.hop)))
        integers, _ = runner.step(padded, runner.initial_state())
        np.testing.assert_array_equal(integers[..., model.delay :], estimate)
        speech = item.refs["speech"]
        gains.append(si_sdr(estimate[0, 0], speech) - si_sdr(item.mix, speech))
    assert np.mean(gains) > 2
