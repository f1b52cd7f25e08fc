"""Statistics of training data that models start with."""

from typing import Any

import torch

from sepcli.data.datasets import Items
from sepcli.nn.model import Model

ITEMS = 256  # of training data without end; else all of an epoch


@torch.no_grad()
def of_magnitudes(
    model: Model, data: Items, device: str | torch.device = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (F,) of each frequency's magnitude, the mean of all channels.

    Over the frames of the mixtures of `data`: one epoch of them, or 256 where that never ends.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    stft: Any = model.stft
    for index in range(data.items or ITEMS):
        item = data[index]
        mix = item[0].to(device)
        spectrum = mix if mix.is_complex() else stft.analyse(mix)  # (C, F, N)
        magnitude = spectrum.abs().mean(0).double()  # (F, N)
        count += magnitude.shape[1]
        total = total + magnitude.sum(1)
        squares = squares + magnitude.square().sum(1)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), deviation.float()
