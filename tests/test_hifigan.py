"""Discriminators: sizes as published, losses in closed form."""

import pytest
import torch

from sepcli.layers import hifigan


@pytest.fixture(scope="module")
def discriminators():
    torch.manual_seed(0)
    return hifigan.Discriminators()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_they_have_the_published_number_of_parameters(discriminators):
    assert parameters(discriminators.periods) == 41_105_770
    assert parameters(discriminators.scales) == 29_618_821
    assert parameters(discriminators) == 70_724_591


def test_the_scores_have_the_lengths_of_the_published_ones(discriminators):
    with torch.no_grad():
        scores, features = discriminators(torch.randn(1, 1, 4801))
    assert [s.shape[1] for s in scores] == [60, 60, 60, 63, 66, 76, 38, 19]
    assert [len(f) for f in features] == [6] * 5 + [8] * 3


def test_the_losses_of_known_scores():
    real, fake = [torch.ones(1, 4), torch.zeros(1, 2)], [torch.zeros(1, 4), torch.ones(1, 2)]
    assert hifigan.discriminator_loss(real, fake) == 1.0  # right once, wrong once: (0 + 2) / 2
    assert hifigan.adversarial_loss(fake) == 0.5


def test_the_feature_loss_is_the_mean_over_layers_then_over_discriminators():
    real = [[torch.zeros(1, 3), torch.zeros(1, 5)], [torch.zeros(1, 2)]]
    fake = [[torch.full((1, 3), 2.0), torch.full((1, 5), 4.0)], [torch.ones(1, 2)]]
    assert hifigan.feature_loss(real, fake) == 2.0  # ((2 + 4) / 2 + 1) / 2


def test_the_feature_loss_moves_the_estimate_alone():
    real, fake = torch.zeros(1, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    hifigan.feature_loss([[real]], [[fake]]).backward()
    assert real.grad is None
    assert fake.grad is not None
