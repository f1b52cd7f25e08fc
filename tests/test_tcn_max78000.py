"""The chip's model: its integers against the simulator, and what the host adds."""

import numpy as np
import pytest
import torch

from sepcli.graphs import export as exporting
from sepcli.models import build
from sepcli.models.modelfile import load_model, save
from sepcli.models.tcn_max78000 import ChipGrid
from sepcli.quant.chip import run
from sepcli.quant.grids import set_phase

DILATIONS = (1, 8, 2)
SETTINGS = {"kernel": 32, "width": 8, "hidden": 12, "dilations": DILATIONS}
QUANTISED = {"quantized": {"target": "max78000"}}  # what the card of a model file says
FORMS = [
    {"transform": "stft", **SETTINGS},
    {"transform": "learned", "filters": 12, **SETTINGS},
]


def calibrated(seed=0, squeeze=0.6, **settings):
    """A quantised model whose ranges are those of noise; times `squeeze` inside the network."""
    torch.manual_seed(seed)
    model = build("tcn_max78000", **{**FORMS[0], **settings}).train()
    model.tcn.quantise()
    set_phase(model, "observe")
    with torch.no_grad():
        model(0.1 * torch.randn(2, 1, 4000))
    set_phase(model, "frozen")
    for grid in (model.tcn.stream, model.tcn.logits, *(block.grid for block in model.tcn.blocks)):
        grid.high.mul_(squeeze)
        grid.low.mul_(squeeze)
    return model.eval()


def windows(network, features, frames):
    """The network's outputs (C', N) of a stream (C, N), by windows of `frames` outputs each."""
    rng = np.random.default_rng(0)
    past = network.context - network.dummies
    x = np.pad(features, ((0, 0), (past, 0)))  # zeros before the first frame
    out = []
    for at in range(0, features.shape[1], frames):
        window = x[:, at : at + past + frames]
        dummies = rng.integers(-128, 128, (len(x), network.dummies))
        out.append(run(network, np.concatenate([window, dummies], 1)))
    return np.concatenate(out, 1)


@pytest.mark.parametrize("frames", [1, 10, 60])
@pytest.mark.parametrize(("width", "hidden"), [(8, 12), (64, 104)])
def test_the_stream_in_torch_is_the_chips_windows_in_every_value(width, hidden, frames):
    model = calibrated(squeeze=0.2, width=width, hidden=hidden)
    features = np.random.default_rng(1).integers(0, 128, (16, 60))
    with torch.no_grad():
        values = torch.from_numpy(features)[None] * 2.0**-model.tcn.features.exponent
        logits, _ = model.tcn.step(values, model.tcn.initial_state())
        logits = logits[0] * 2.0**model.tcn.logits.exponent
    expected = windows(model.network(), features, frames)
    assert 0.01 < np.mean(abs(expected.astype(int)) > 126) < 0.9  # some saturate
    np.testing.assert_array_equal(logits.numpy(), expected)


@pytest.mark.parametrize("settings", FORMS)
@pytest.mark.parametrize("hops", [1, 3])
def test_streaming_a_quantised_model_equals_offline(settings, hops):
    model = calibrated(**settings).double()
    x = torch.randn(2, 1, 30 * model.hop, dtype=torch.float64)
    state, out = model.initial_state(2), []
    with torch.no_grad():
        for chunk in x.split(hops * model.hop, -1):
            y, state = model.step(chunk, state)
            out.append(y)
        whole = model.step(x, model.initial_state(2))[0]
    torch.testing.assert_close(torch.cat(out, -1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", FORMS)
def test_a_quantised_model_is_an_ordinary_model_file(settings, tmp_path):
    model = calibrated(**settings)
    path = tmp_path / "chip.safetensors"
    save(path, "tcn_max78000", settings, model.state_dict(), QUANTISED)
    loaded, _ = load_model(path)
    x = 0.1 * torch.randn(1, 1, 2000)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    for ours, theirs in zip(model.network().layers, loaded.network().layers, strict=True):
        assert (ours.name, ours.output_shift) == (theirs.name, theirs.output_shift)
        np.testing.assert_array_equal(ours.weight, theirs.weight)


def test_a_quantised_model_has_a_graph(tmp_path):
    path = tmp_path / "chip.safetensors"
    save(path, "tcn_max78000", FORMS[0], calibrated().state_dict(), QUANTISED)
    assert exporting.export(path, tmp_path / "chip.onnx")["max_difference"] < 1e-5


def test_coarse_integers_are_near_the_floating_point():
    model = calibrated(squeeze=1)
    fine = build("tcn_max78000", **FORMS[0]).eval()
    fine.load_state_dict(model.state_dict(), strict=False)
    x = 0.1 * torch.randn(1, 1, 4000)
    with torch.no_grad():
        ours, theirs = model(x), fine(x)
    error = (ours - theirs).square().mean() / theirs.square().mean()
    assert 1e-9 < error < 1e-2


def test_a_grid_rounds_clips_and_passes_the_gradient_of_what_it_does_not_clip():
    grid = ChipGrid()
    grid.high.fill_(8)  # 127 / 8 is nearest to 2^4
    x = torch.tensor([-9.0, -0.28125, 0.40625, 9.0], requires_grad=True)
    y = grid(x)
    y.sum().backward()
    assert (16 * y).tolist() == [-128, -4, 7, 127]
    assert x.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("peak", "exponent"), [(127, 0), (128, 0), (90, 0), (89, 1), (0.99, 7)])
def test_a_grid_is_the_power_of_two_that_uses_its_range_best(peak, exponent):
    grid = ChipGrid()
    grid.low.fill_(-peak)
    assert grid.exponent == exponent


def test_the_range_of_the_stream_is_that_of_its_largest_block():
    model = calibrated()
    model.train()
    set_phase(model, "observe")
    with torch.no_grad():
        model.tcn.blocks[-1].point.weight.mul_(50)
        x = 0.1 * torch.randn(2, 1, 4000)
        before = model.tcn.stream.high.clone()
        for _ in range(100):
            model(x)
    assert model.tcn.stream.high > 5 * before


def test_training_a_quantised_model_moves_every_weight():
    model = calibrated().train()
    model(0.1 * torch.randn(2, 1, 2000)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(("hidden", "weights"), [(64, 126_976), (96, 184_320), (104, 198_656)])
def test_the_chip_holds_as_many_weights_as_planned(hidden, weights):
    model = build("tcn_max78000", hidden=hidden)
    assert sum(weight.numel() for weight in model.tcn.parameters()) == weights


def test_the_sources_of_a_fourier_transform_add_up_to_the_mixture():
    model = calibrated()
    x = 0.1 * torch.randn(1, 1, 1000)
    with torch.no_grad():
        torch.testing.assert_close(model(x).sum(1), x, rtol=0, atol=1e-6)


def test_silence_is_zero_in_all_features_but_the_constant():
    model = calibrated()
    frames, _ = model.bank.analyse(torch.zeros(1, 160), torch.zeros(1, 16))
    features = model.bank.features(frames, 0.3)
    assert (features[:, 0] == 1).all()
    assert not features[:, 1:].any()


def test_perfect_reconstruction_survives_masks_of_one():
    model = build("tcn_max78000", sources=("speech",), init="pr").eval()
    with torch.no_grad():
        model.tcn.mask.weight.zero_()  # masks of one half
        x = 0.1 * torch.randn(1, 1, 1000)
        torch.testing.assert_close(2 * model(x)[:, 0], x, rtol=0, atol=1e-6)


def test_latency_and_receptive_field_are_those_of_the_transform():
    learned, fourier = build("tcn_max78000"), build("tcn_max78000", transform="stft")
    assert (learned.latency, learned.receptive_field) == (32, 254 * 16 + 32)
    assert (fourier.latency, fourier.receptive_field) == (256, 254 * 128 + 256)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transform": "wavelet"}, "unknown transform 'wavelet'"),
        ({"init": "pr", "transform": "stft"}, "unknown init 'pr'"),
        ({"transform": "stft", "sources": ("a", "b", "c")}, "stft has one mask"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build("tcn_max78000", **settings)


def test_a_network_in_floating_point_is_none_for_the_chip():
    with pytest.raises(ValueError, match="not quantised"):
        build("tcn_max78000").network()
