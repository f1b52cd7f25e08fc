"""Fake quantisation: tensors that hold only values which 8 or 16 bits can tell apart.

A value is scale * (code - zero), code a whole number. What is computed is whole numbers until a
result is rounded to the next grid, so that integers give the same codes, bit for bit.
"""

import torch
from torch import nn

PHASES = ("observe", "adapt", "frozen")


class Range(nn.Module):
    """The range of a tensor, a moving average of the extremes of what passes by.

    In the phases "observe" and "adapt", while training, `watch` moves the range; in "frozen", as
    at the start, it stays. low <= 0 <= high always. Arithmetic is up to who asks for the range:
    that of "observe" is in floating point, those of the other two are rounded.
    """

    def __init__(self, momentum=0.98):
        super().__init__()
        self.phase, self.momentum = "frozen", momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # tensors

    @torch.no_grad()
    def watch(self, x):
        """Move the range towards that of the tensor `x`; the first ones count as a plain mean."""
        if self.phase == "frozen" or not self.training:
            return
        weight = torch.maximum(1 / (self.seen + 1), torch.tensor(1 - self.momentum))
        self.low.lerp_(x.amin().clamp(max=0), weight)
        self.high.lerp_(x.amax().clamp(min=0), weight)
        self.seen += 1


def set_phase(model, phase):
    """Set every `Range` in `model` to one of PHASES."""
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; choose from {', '.join(PHASES)}")
    for module in model.modules():
        if isinstance(module, Range):
            module.phase = phase
