"""The integer simulator, against torch's convolution and the manual's formulas in fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from sepcli.quant.chip import ChipLayer, ChipNetwork, run


def integers(rng, low, high, *shape):
    return rng.integers(low, high + 1, shape).astype(np.int8)


def one(layer, channels):
    return ChipNetwork(channels, (layer,))


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
@pytest.mark.parametrize("shift", [-9, -2, 0, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (3, 64), (9, 2)])
def test_a_convolution_is_scaled_rounded_half_up_and_clipped(bits, shift, relu, taps, dilation):
    rng = np.random.default_rng(bits + 16 * taps)
    x = integers(rng, -128, 127, 5, 150)
    weight = integers(rng, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 7, 5, taps)
    bias = integers(rng, -128, 127, 7)
    layer = ChipLayer(
        "a", "conv", weight=weight, bias=bias, dilation=dilation, relu=relu, output_shift=shift,
        weight_bits=bits,
    )  # fmt: skip
    total = torch.nn.functional.conv1d(
        torch.tensor(x).double()[None],
        torch.tensor(weight).double(),
        128 * torch.tensor(bias).double(),
        dilation=dilation,
    )[0]
    factor = Fraction(2) ** (shift + 8 - bits) / 128
    expected = [
        [min(max(floor(int(v) * factor + Fraction(1, 2)), 0 if relu else -128), 127) for v in row]
        for row in total.tolist()
    ]
    y = run(one(layer, 5), x)
    assert y.dtype == np.int8
    assert y.tolist() == expected


def test_halves_are_rounded_upward():
    layer = ChipLayer("a", "conv", weight=np.full((1, 1, 1), 64, np.int8))
    x = np.array([[-3, -2, -1, 0, 1, 2, 3]], np.int8)
    assert run(one(layer, 1), x).tolist() == [[-1, -1, 0, 0, 1, 1, 2]]


def residual(weight, dilation):
    return (
        ChipLayer("old", "keep", crop=(2 * dilation, 1)),
        ChipLayer("new", "conv", weight=weight, dilation=dilation, crop=(0, 1), output_shift=1),
        ChipLayer("sum", "add", ("old", "new")),
    )


def test_a_sum_is_saturated_and_aligned_by_crops():
    weight = np.zeros((1, 1, 3), np.int8)
    weight[0, 0, 2] = 64  # with the shift: the frame itself
    network = ChipNetwork(1, residual(weight, 4))
    x = np.arange(-100, 100, 5, dtype=np.int8)[None]
    assert run(network, x).tolist() == np.clip(2 * x[:, 8:-1].astype(int), -128, 127).tolist()
    assert (network.context, network.dummies, network.channels_out) == (9, 1, 1)


def test_dummy_frames_do_not_matter():
    rng = np.random.default_rng(0)
    network = ChipNetwork(3, residual(integers(rng, -128, 127, 3, 3, 3), 2))
    x = integers(rng, -128, 127, 3, 20)
    y = run(network, x)
    x[:, -network.dummies :] = 77
    np.testing.assert_array_equal(run(network, x), y)
    x[:, -network.dummies - 1] ^= 1
    assert (run(network, x)[:, :-1] == y[:, :-1]).all()


@pytest.mark.parametrize("shape", [(2, 9), (1, 9, 1), (1, 8)])
def test_a_window_of_another_shape_is_refused(shape):
    network = ChipNetwork(1, residual(np.ones((1, 1, 3), np.int8), 4)[:1])
    with pytest.raises(ValueError, match=r"expected \(1, more than 9 frames\)"):
        run(network, np.zeros(shape, np.int8))


def test_a_window_of_larger_integers_is_refused():
    network = ChipNetwork(1, (ChipLayer("a", "keep"),))
    with pytest.raises(ValueError, match="values outside"):
        run(network, np.array([[128]]))
