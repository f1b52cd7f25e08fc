"""Discriminators of waveforms, for training with an adversary.

Kong et al., "HiFi-GAN: Generative adversarial networks for efficient and high fidelity speech
synthesis", NeurIPS 2020, section 2.3. They score a signal (B, 1, T) at many places, the higher the
more natural, and give what they computed on the way, for the feature-matching loss.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sepcli.layers.modules import Modules

PERIODS = (2, 3, 5, 7, 11)
SLOPE = 0.1  # of the leaky ReLUs
# inputs, outputs, kernel, stride, groups of a scale's convolutions
SCALE_LAYERS = (
    (1, 128, 15, 1, 1),
    (128, 128, 41, 2, 4),
    (128, 256, 41, 2, 16),
    (256, 512, 41, 4, 16),
    (512, 1024, 41, 4, 16),
    (1024, 1024, 41, 1, 16),
    (1024, 1024, 5, 1, 1),
)


def _through(layers, output, x):
    """Scores (B, n) of x, and all features on the way, the scores last."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = output(x)
    return x.flatten(1), [*features, x]


class PeriodDiscriminator(nn.Module):
    """Reads every `period`-th sample: the signal folded into `period` columns."""

    def __init__(self, period: int, shrink: int = 1) -> None:
        super().__init__()
        self.period = period
        norm = parametrizations.weight_norm
        last = 1024 // shrink
        widths = list(pairwise((1, 32 // shrink, 128 // shrink, 512 // shrink, last)))
        self.layers = Modules(
            norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in widths
        )
        self.layers.append(norm(nn.Conv2d(last, last, (5, 1), padding=(2, 0))))
        self.output = norm(nn.Conv2d(last, 1, (3, 1), padding=(1, 0)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = F.pad(x, (0, -x.shape[-1] % self.period), "reflect")
        return _through(self.layers, self.output, x.unflatten(-1, (-1, self.period)))


class ScaleDiscriminator(nn.Module):
    """Reads all samples; `norm` is `torch`'s spectral or weight norm."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], shrink: int = 1) -> None:
        super().__init__()
        self.layers = Modules(
            norm(
                nn.Conv1d(
                    max(1, a // shrink), b // shrink, kernel, stride, kernel // 2, groups=groups
                )
            )
            for a, b, kernel, stride, groups in SCALE_LAYERS
        )
        self.output = norm(nn.Conv1d(1024 // shrink, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return _through(self.layers, self.output, x)


class Discriminators(nn.Module):
    """Five periods and three scales, 70,724,591 parameters with those of the weight norm.

    shrink: divides the widths, 1, 2, 4 or 8.
    Signals (B, 1, T) give [scores (B, n)] and [[features]], one of each for every discriminator.
    """

    def __init__(self, periods: Sequence[int] = PERIODS, *, shrink: int = 1) -> None:
        super().__init__()
        if shrink not in (1, 2, 4, 8):
            raise ValueError(f"shrink must be 1, 2, 4 or 8, not {shrink!r}")
        self.periods = Modules(PeriodDiscriminator(period, shrink) for period in periods)
        weight, spectral = parametrizations.weight_norm, parametrizations.spectral_norm
        self.scales = Modules(ScaleDiscriminator(n, shrink) for n in (spectral, weight, weight))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
        found = [discriminator(x) for discriminator in self.periods]
        for i, discriminator in enumerate(self.scales):
            if i:
                x = F.avg_pool1d(x, 4, 2, padding=2)
            found.append(discriminator(x))
        scores, features = zip(*found, strict=True)
        return list(scores), list(features)


def discriminator_loss(real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """Least squares: natural scores are to be 1 and estimated ones 0; mean over discriminators."""
    terms = [(r - 1).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """Least squares: scores of the estimate are to be 1; mean over discriminators."""
    return torch.stack([(f - 1).square().mean() for f in fake]).mean()


def feature_loss(
    real: Sequence[Sequence[torch.Tensor]], fake: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """Mean absolute difference of the features; mean over layers, then over discriminators."""
    terms = [
        torch.stack([(a.detach() - b).abs().mean() for a, b in zip(r, f, strict=True)]).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()
