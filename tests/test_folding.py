"""Batch norms as part of the convolutions before them."""

import pytest
import torch
from torch import nn

from sepcli.layers.folding import fold
from tests.models import randomise


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 6, 3),
        nn.Conv2d(4, 6, (1, 3), groups=2),
        nn.ConvTranspose2d(4, 6, (1, 3), (1, 2)),
        nn.ConvTranspose2d(4, 6, (1, 3), (1, 2), groups=2),
        nn.ConvTranspose1d(4, 6, 3, groups=2),
    ],
    ids=lambda conv: f"{type(conv).__name__}-{conv.groups}",
)
def test_a_folded_convolution_is_the_convolution_and_its_norm(conv):
    torch.manual_seed(0)
    two_d = len(conv.kernel_size) == 2
    norm = (nn.BatchNorm2d if two_d else nn.BatchNorm1d)(6)
    pair = randomise(nn.Sequential(conv, norm)).double()
    before = [parameter.clone() for parameter in pair.parameters()]
    x = torch.randn(2, 4, *([5] * two_d), 7, dtype=torch.float64)
    torch.testing.assert_close(fold(conv, norm)(x), pair(x), rtol=0, atol=1e-12)
    assert all(map(torch.equal, before, pair.parameters()))
