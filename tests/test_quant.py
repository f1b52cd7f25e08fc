"""Fake quantisation against torch's, and whole numbers against floating point."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.quantization.observer import MovingAverageMinMaxObserver

from sepcli.quant import grids, integers, layers
from sepcli.quant.convolution import Conv
from tests.quantised import grid

CONVOLUTIONS = [
    nn.Conv1d(4, 6, 3, stride=2, padding=1),
    nn.Conv1d(4, 6, 2, dilation=3, groups=2),
    nn.Conv1d(6, 6, 3, groups=6, bias=False),
    nn.Conv2d(2, 3, (1, 4), (1, 2), (0, 1)),
    nn.ConvTranspose1d(4, 3, 5, stride=2, padding=2),
    nn.ConvTranspose2d(4, 6, (1, 4), (1, 2), (0, 1), (0, 1), groups=2),
]


def like(layer, *shape):
    """Random input for a convolution: (2, channels, ...)."""
    sizes = (5, 12) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else (17,)
    return torch.randn(2, layer.in_channels, *(shape or sizes))


@pytest.mark.parametrize(("low", "high"), [(-4.0, 3.96875), (0.0, 7.96875), (-7.96875, 0.0)])
def test_values_on_a_grid_are_torchs_fake_quantised_ones(low, high):
    ours = grid(low, high)
    zero = -int(ours.bounds[0])
    x = torch.randn(10_000) * 3
    x[:200] = torch.arange(200) / 64  # ties
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ours.values(a / ours.scale)
    torchs = torch.fake_quantize_per_tensor_affine(b, 2.0**-5, zero, 0, 255)
    assert torch.equal(y, torchs)
    y.square().sum().backward()
    torchs.square().sum().backward()
    inside = (x > low) & (x < high)  # at the very end torch's gradient is on or off by rounding
    assert torch.equal(a.grad[inside], b.grad[inside])
    assert not a.grad[(x < low - 0.1) | (x > high + 0.1)].any()


def test_sixteen_bits_lie_about_zero():
    ours = grid(-0.5, 1.0, bits=16)
    x = torch.tensor([-2.0, -0.5, 0.0, 0.25, 3.0])
    codes = ours.codes(x)
    assert codes.tolist() == [-32767, round(-0.5 * 32767), 0, 8192, 32767]


def test_codes_survive_the_way_through_values():
    for bits, largest in ((8, 255), (16, 32767)):
        ours = grid(-0.3, 1.7, bits)
        codes = torch.arange(-largest, largest + 1).float().clamp(*ours.bounds)
        assert torch.equal(ours.codes(ours.values(codes)), codes)


def test_a_range_is_the_mean_of_the_first_extremes_and_then_torchs_moving_average():
    ours, torchs = grids.TensorRange(), MovingAverageMinMaxObserver(averaging_constant=0.02)
    grids.set_phase(ours, "observe")
    tensors = [torch.randn(100) * (1 + i % 7) for i in range(80)]
    for x in tensors[:50]:
        ours.watch(x)
    torch.testing.assert_close(ours.low, torch.stack([x.min() for x in tensors[:50]]).mean())
    torchs.min_val, torchs.max_val = ours.low.clone(), ours.high.clone()
    for x in tensors[50:]:
        ours.watch(x)
        torchs(x)
    torch.testing.assert_close((ours.low, ours.high), (torchs.min_val, torchs.max_val))


def test_a_range_holds_zero_and_stays_when_frozen_or_in_eval():
    ours = grids.TensorRange()
    grids.set_phase(ours, "adapt")
    ours.watch(torch.tensor([3.0, 5.0]))
    assert (ours.low, ours.high) == (0, 5)
    ours.eval().watch(torch.tensor([9.0]))
    grids.set_phase(ours.train(), "frozen")
    ours.watch(torch.tensor([9.0]))
    assert ours.high == 5
    with pytest.raises(ValueError, match="unknown phase 'thaw'; choose from observe, adapt"):
        grids.set_phase(ours, "thaw")


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
def test_a_convolution_is_torchs_of_fake_quantised_weights_and_inputs(layer):
    torch.manual_seed(0)
    into, out = grid(-2.0, 2.0), grid(-3.0, 2.5)
    ours, x = Conv(layer, into, out), into.values(10 * like(layer))
    y = ours(x)
    axis = 1 if layer.transposed else 0
    others = [a for a in range(layer.weight.ndim) if a != axis]
    scale = layer.weight.detach().abs().amax(others) / 64
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    layer_of_torch = nn.utils.skip_init(type(layer), **_arguments(layer))
    layer_of_torch.weight.data = torch.fake_quantize_per_channel_affine(
        layer.weight.detach(), scale, zeros, axis, -128, 127
    )
    if layer.bias is not None:
        layer_of_torch.bias.data = layer.bias.detach()
    zero = -int(out.bounds[0])
    y_torch, scale_out = layer_of_torch(x), float(out.scale)
    theirs = torch.fake_quantize_per_tensor_affine(y_torch, scale_out, zero, 0, 255)
    steps = ((y - theirs) / out.scale).abs()
    assert steps.max() < 1.5  # rounding another way where floating point ends beside a half
    assert (steps > 0.5).float().mean() < 0.02


def _arguments(layer):
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    names += ("groups", "output_padding") if layer.transposed else ("groups",)
    return {name: getattr(layer, name) for name in names} | {"bias": layer.bias is not None}


def test_weights_have_seven_bits_beside_data_of_eight_and_eight_beside_sixteen():
    layer = Conv(nn.Conv1d(4, 6, 3), grid(-1, 1))
    assert layer.weight_codes.abs().amax((1, 2)).tolist() == [64] * 6
    layer.connect(grid(-1, 1, bits=16), grid(-1, 1))
    assert layer.weight_codes.abs().amax((1, 2)).tolist() == [127] * 6


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
def test_the_convolution_of_integers_is_torchs(layer):
    ours = Conv(layer, grid(-1, 1))
    x = like(layer).mul(200).round()
    w = torch.randint_like(layer.weight, -127, 128)
    with torch.no_grad():
        exact = ours._convolve(x.double(), w.double())
    whole = integers.convolve(ours, x.numpy().astype(np.int64), w.numpy().astype(np.int64))
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(whole, exact.numpy())


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
def test_scaling_the_outputs_of_a_convolution_scales_its_outputs(layer):
    ours, x = Conv(layer, grid(-1, 1)), like(layer)
    factors = torch.rand(layer.out_channels) - 0.5
    expected = layer(x) * layers.along(factors, x)
    ours.scale_outputs(factors)
    torch.testing.assert_close(ours.real(x), expected)


@given(st.integers(-(2**50), 2**50), st.integers(0, 40))
def test_shifting_rounds_to_the_nearest_and_halves_to_even(total, shift):
    assert integers.shift_half_even(np.int64(total), shift) == round(Fraction(total, 2**shift))


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-9, 1e5), min_size=1, max_size=4),
    st.integers(255, 2**31),
    st.floats(-300, 300),
)
def test_whole_multipliers_keep_products_countable(multipliers, largest, offset):
    given = torch.tensor(multipliers, dtype=torch.float64)
    (ours, offsets), shift = grids.whole([given], largest, [torch.tensor([offset])])
    assert torch.equal(ours, ours.round())
    assert float(ours.abs().max()) * largest + float(offsets.abs()) < 2**53
    if shift < grids.MOST_SHIFT and given.max() < 2.0**18:
        assert abs(float(ours.max()) / 2**shift / float(given.max()) - 1) < 2.0**-18


def test_a_sigmoid_has_the_gradient_of_the_function():
    layer = layers.Sigmoid(grid(-8, 8), grids.CodeGrid(fixed=(0.0, 1.0)))
    x = layer.grids[0].values(torch.arange(-100.0, 100.0)).requires_grad_()
    y = layer(x)
    y.sum().backward()
    slope = x.detach().sigmoid() * (1 - x.detach().sigmoid())
    torch.testing.assert_close(x.grad, slope)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x.sigmoid(), rtol=0, atol=0.5 / 255 + 1e-6)
