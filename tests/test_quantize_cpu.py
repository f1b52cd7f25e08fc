"""The target cpu: twins of every causal model, in floating point and in integers."""

import numpy as np
import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.models import build
from sepcli.quant import cpu
from sepcli.quant.convolution import packed
from sepcli.quant.grids import set_phase
from sepcli.quant.targets import target_module
from tests.models import TINY
from tests.quantised import twin_of

MODELS = [
    (name, settings)
    for name, settings in TINY
    if name in ("conv_tasnet", "spectral_tasnet", "dmgtcm_unet")
]


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_a_twin_that_only_observes_computes_what_the_model_does(name, settings):
    """Batch norm is folded, and the past after it still starts at zero."""
    model, twin = twin_of(name, settings)
    set_phase(twin, "observe")
    x = torch.randn(2, 1, 2000)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_integers_give_the_bits_of_the_fake_quantised_twin(name, settings):
    for seed in range(2):
        _, twin = twin_of(name, settings, seed)
        runner = cpu.integer(twin)
        rng = np.random.default_rng(seed)
        states = twin.initial_state(3), runner.initial_state(3)
        for level in (0.1, 1.0, 5.0, 1e-4, 0.0, 0.5):  # 5: beyond every range
            hops = int(rng.integers(1, 30))
            x = (level * rng.standard_normal((3, 1, hops * twin.hop))).astype(np.float32)
            with torch.inference_mode():
                y, fake = twin.step(torch.from_numpy(x), states[0])
            whole, codes = runner.step(x, states[1])
            np.testing.assert_array_equal(whole, y.numpy())
            states = fake, codes


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_the_twin_streams_as_it_separates(name, settings):
    model, twin = twin_of(name, settings)
    x = 0.3 * torch.randn(2, 1, 50 * twin.hop)
    state, parts, at = twin.initial_state(2), [], 0
    for hops in (1, 7, 2, 40):
        with torch.no_grad():
            y, state = twin.step(x[..., at : at + hops * twin.hop], state)
        parts.append(y)
        at += hops * twin.hop
    streamed = torch.cat(parts, -1)[..., twin.delay :]
    with torch.no_grad():
        torch.testing.assert_close(streamed, twin(x)[..., : streamed.shape[-1]], rtol=0, atol=1e-6)
    assert twin.latency == model.latency
    assert twin.sources == model.sources


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_eight_bits_are_close_to_the_model(name, settings):
    model, twin = twin_of(name, settings)
    x = 0.3 * torch.randn(2, 1, 3000)
    with torch.no_grad():
        exact, rounded = model(x), twin(x)
    error = (exact - rounded).square().sum()
    assert 0 < error < 1e-3 * exact.square().sum()  # 30 dB


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_a_twin_of_a_new_model_takes_the_saved_numbers(name, settings):
    _, twin = twin_of(name, settings)
    other = cpu.prepare(build(name, **settings))
    other.load_state_dict(packed(twin))
    x = 0.3 * torch.randn(2, 1, 2000)
    with torch.no_grad():
        assert torch.equal(other(x), twin(x))


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_every_parameter_of_a_twin_learns(name, settings):
    _, twin = twin_of(name, settings)
    set_phase(twin.train(), "adapt")
    before = {name: grid.clone() for name, grid in twin.grids.state_dict().items()}
    twin(torch.randn(2, 1, 3000)).square().sum().backward()
    assert [n for n, p in twin.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in twin.parameters())
    moved = [n for n, grid in twin.grids.state_dict().items() if not torch.equal(grid, before[n])]
    assert any("high" in name for name in moved)


def test_weights_are_saved_as_bytes():
    _, twin = twin_of(*MODELS[0])
    saved = packed(twin)
    kinds = {name: saved[name].dtype for name in saved if name.endswith("bottleneck.weight")}
    assert kinds == {"graph.separator.bottleneck.weight": torch.int8}
    assert sum(t.numel() for t in saved.values()) == sum(
        t.numel() for t in twin.state_dict().values()
    )


def test_the_layers_of_a_twin_and_their_memory():
    twin = twin_of("conv_tasnet", {"blocks": 2, "repeats": 1, "norm_first": True})[1]
    rows = {row.name: row for row in cpu.layers(twin)}
    bottleneck = rows["separator.bottleneck"]
    assert (bottleneck.op, bottleneck.inputs, bottleneck.outputs) == ("Conv1d", ((64, 1),), (64, 1))
    assert bottleneck.weight_bytes == 64 * 64 + 8 * 64
    assert bottleneck.activation_bytes == 64
    past = rows["separator.tcn.blocks.1.expand.2"]  # PReLU, whose output the next layer keeps
    assert past.activation_bytes == 64 + 64 * 4
    assert rows["mul"].activation_bytes == 2 * 2 * 64  # masked features have 16 bits
    assert rows["decoder.conv"].weight_bytes == 64 * 32 + 8 * 32


def test_the_tiny_tasnet_fits_the_memory_that_it_is_meant_for():
    twin = cpu.prepare(build("conv_tasnet"))
    total = sum(row.weight_bytes for row in cpu.layers(twin))
    assert 241_024 < total < 442_368


def test_a_model_that_looks_ahead_is_refused():
    model = build("conv_tasnet", norm="gln", causal=False)
    with pytest.raises(SepcliError, match="not causal; only causal models can be quantised"):
        cpu.prepare(model)


def test_a_layer_without_a_quantised_form_is_named():
    model = build("conv_tasnet", blocks=1, repeats=1, skip=0)
    model.separator.mask[0] = torch.nn.GELU()
    with pytest.raises(SepcliError, match=r"separator.mask.0: a GELU, which the target cpu has no"):
        cpu.prepare(model)


def test_a_norm_beyond_exact_sums_is_refused():
    model = build("conv_tasnet", filters=512, blocks=1, repeats=1, norm="cln")
    with pytest.raises(SepcliError, match=r"separator.norm: a norm over 512 channels of 16 bits"):
        cpu.prepare(model)


def test_an_unknown_target_is_an_error():
    with pytest.raises(SepcliError, match="unknown target 'gpu'; choose from cpu, max78000"):
        target_module("gpu")
