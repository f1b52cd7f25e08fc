"""Extraction by attention to a reference: parameter counts, identity at first, conditions."""

import pytest
import torch

from sepcli.models.usef_gridnet import UsefGridNet
from tests.models import GRID


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def tiny(**settings):
    torch.manual_seed(0)
    return UsefGridNet(**GRID | settings)


def moved(model):
    """The model with parameters off their start, where the mask is 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_the_second_version_has_the_published_number_of_parameters():
    assert parameters(UsefGridNet()) == 11_785_196


def test_the_first_version_has_the_published_number_of_parameters():
    assert parameters(UsefGridNet(hidden=192, reinject=(0, 2, 4), film=False)) == 7_805_420


@pytest.mark.parametrize("settings", [{}, {"film": False, "hidden": 192}])
def test_a_new_model_passes_the_mixture_through(settings):
    torch.manual_seed(0)
    model = UsefGridNet(blocks=1, reinject=(0,), **settings).eval()
    x = 0.1 * torch.randn(1, 1, 12000)
    with torch.no_grad():
        y = model(x, model.condition([torch.randn(1, 1, 9000)]))
    error = (y[:, 0] - x).square().sum()
    assert 10 * torch.log10(x.square().sum() / error) > 50


@pytest.mark.parametrize("block", ["short", "full"])
def test_checkpointing_changes_no_bit_of_output_and_gradient(block):
    x, reference = torch.randn(2, 1, 700), torch.randn(2, 1, 500)
    results = []
    for checkpointing in (False, True):
        model = moved(tiny(block=block, checkpointing=checkpointing)).train()
        torch.manual_seed(1)
        y = model(x, model.condition([reference]))
        y.square().sum().backward()
        results.append((y.detach(), {n: p.grad for n, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name]), name


@pytest.mark.parametrize("sources", [("speech",), ("speech", "rest")])
def test_the_second_source_is_the_rest_of_the_mixture(sources):
    model = moved(tiny(sources=sources)).eval()
    x = torch.randn(2, 1, 1000)
    y = model(x, model.condition([torch.randn(2, 1, 800)]))
    assert y.shape == (2, len(sources), 1, 1000)
    if len(sources) == 2:
        torch.testing.assert_close(y.sum(1), x, rtol=0, atol=1e-5)


def test_several_references_are_one_after_the_other():
    model = moved(tiny()).eval()
    a, b = torch.randn(1, 1, 480), torch.randn(1, 1, 960)
    both = model.condition([a, b])
    torch.testing.assert_close(both, torch.cat([model.condition([a]), model.condition([b])], 1))
    swapped = model.condition([b, a])
    x = torch.randn(1, 1, 700)
    torch.testing.assert_close(model(x, both), model(x, swapped), rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", ["short", "full"])
def test_another_reference_gives_another_output(block):
    model = moved(tiny(block=block)).eval()
    x = torch.randn(1, 1, 1000)
    a, b = (model(x, model.condition([torch.randn(1, 1, 800)])) for _ in range(2))
    assert not torch.allclose(a, b, atol=1e-4)


def test_a_dropped_reference_says_nothing_in_training_only():
    model = moved(tiny(reference_dropout=1.0))
    x, reference = torch.randn(1, 1, 700), torch.randn(1, 1, 500)
    condition = model.condition([reference])
    nothing = model.eval()(x, torch.zeros_like(condition))
    assert torch.equal(model.train()(x, condition), nothing)
    assert not torch.equal(model.eval()(x, condition), nothing)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sources": ("a", "b", "c")}, "one mask"),
        ({"block": "long"}, "unknown block 'long'"),
        ({"reinject": (2,)}, "blocks 0 to 1, not 2"),
        ({"bands": 0}, "no table of bands"),
    ],
)
def test_wrong_settings_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        UsefGridNet(**GRID | settings)
