"""Training computes on rows what everything else computes on columns: the same numbers."""

import copy

import pytest
import torch
from torch import nn

from sepcli.layers import rows
from sepcli.layers.tcn import Tcn
from sepcli.models import build
from tests.models import randomise

BLOCKS = {"skip": 5, "kernel": 3, "blocks": 3, "repeats": 2}


def gradients(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def tcns():
    for norm in ("bn", "cln", "gln", "none"):
        for activation in ("prelu", "relu"):
            for causal in (True, False):
                yield {"norm": norm, "activation": activation, "causal": causal}
    yield {"norm": "cln", "norm_first": True, "bias": False, "last_residual": False}
    yield {"norm": "none", "skip": 0, "kernel": 4}


@pytest.mark.parametrize("settings", list(tcns()))
@pytest.mark.parametrize("frames", [1, 3, 20])
def test_rows_give_the_values_and_gradients_of_columns(settings, frames):
    """Batch norm in evaluation: the statistics of the batch are tested below."""
    torch.manual_seed(0)
    columns = randomise(Tcn(4, 6, **{**BLOCKS, **settings})).double()
    by_rows, x = copy.deepcopy(columns).train(), torch.randn(2, 4, frames).double()
    for layer in by_rows.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eval()
    outputs = []
    for tcn in (columns, by_rows):
        y = tcn(x)
        y.square().sum().backward()
        outputs.append(y)
    assert by_rows.by_rows
    assert not columns.by_rows
    torch.testing.assert_close(outputs[1], outputs[0])
    for a, b in zip(gradients(columns), gradients(by_rows), strict=True):
        torch.testing.assert_close(b, a)


def test_statistics_of_a_batch_are_the_same(monkeypatch):
    torch.manual_seed(0)
    first, second = (randomise(Tcn(4, 6, norm="bn", **BLOCKS)).train() for _ in range(2))
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 4, 50)
    y = first(x)
    monkeypatch.setattr(Tcn, "by_rows", False)
    torch.testing.assert_close(second(x), y)
    for a, b in zip(first.buffers(), second.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_chunks_go_on_from_their_past():
    torch.manual_seed(0)
    tcn, x = randomise(Tcn(4, 6, norm="cln", **BLOCKS)).train(), torch.randn(2, 4, 30)
    first, state = tcn.step(x[..., :13], tcn.initial_state(2))
    second, _ = tcn.step(x[..., 13:], state)
    torch.testing.assert_close(torch.cat([first, second], -1), tcn(x))


@pytest.mark.parametrize(
    "settings",
    [{}, {"norm": "cln", "encoder_relu": False}, {"norm": "gln", "causal": False, "kernel": 20}],
)
@pytest.mark.parametrize("length", [1, 100, 1601])
def test_a_network_in_training_separates_as_it_does_afterwards(settings, length, monkeypatch):
    torch.manual_seed(0)
    small = {"filters": 16, "bottleneck": 8, "hidden": 12, "skip": 8, "blocks": 3, "repeats": 1}
    model = randomise(build("conv_tasnet", **small, **settings)).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eval()
    x = torch.randn(2, 1, length)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (2, 2), (1, 5), (9, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_is_that_of_torch_with_its_gradient(before, after, bias):
    torch.manual_seed(0)
    conv = nn.Conv1d(3, 3, 3, dilation=2, groups=3, bias=bias).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    expected = conv(nn.functional.pad(x.transpose(1, 2), (before, after))).transpose(1, 2)
    found = rows.depthwise(conv, x, before, after)
    torch.testing.assert_close(found, expected)
    given = x, *conv.parameters()
    gradients = [torch.autograd.grad(y.sin().sum(), given) for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("slopes", [1, 3])
def test_prelu_is_that_of_torch_with_its_gradient(slopes):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    layer = nn.PReLU(slopes).double()
    found, expected = rows.apply(layer, x), layer(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    given = x, layer.weight
    gradients = [torch.autograd.grad(y.sin().sum(), given) for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.25, 0.85, 0.95, 1.0, 1.5])
def test_the_gradient_of_a_slope_is_as_exact_as_its_numbers(slope, dtype):
    torch.manual_seed(0)
    x, gradient = (torch.randn(4, 50, 7).to(dtype) for _ in "ab")
    layer = nn.PReLU(init=slope)
    rows.apply(layer, x).backward(gradient)
    exact = (gradient.double() * x.double().clamp(max=0)).sum()
    scale = (gradient.double() * x.double()).abs().sum()
    assert abs(layer.weight.grad.item() - exact) < scale * (
        1e-5 if dtype == torch.float32 else 1e-2
    )
