"""Where the values of tensors may lie: grids, their ranges, and rounding to them.

A value is scale * code, the code a whole number of 8 or 16 bits less the zero point of its grid.
Zero has the code 0 on every grid: a past that starts as zeros, after whatever norm, stays exact.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

PHASES = ("observe", "adapt", "frozen")
MULTIPLIER_BITS = 23
MOST_SHIFT = 40
TINIEST = 2.0**-28  # of scales: a tensor that is always zero has to have one as well


class TensorRange(nn.Module):
    """The range of a tensor, a moving average of the extremes of what passes by.

    In the phases "observe" and "adapt", while training, `watch` moves the range; in "frozen", as
    at the start, it stays. low <= 0 <= high always. Arithmetic is up to who asks for the range:
    that of "observe" is in floating point, those of the other two are rounded.
    """

    low: torch.Tensor
    high: torch.Tensor
    seen: torch.Tensor

    def __init__(self, momentum: float = 0.98) -> None:
        super().__init__()
        self.phase, self.momentum = "frozen", momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # tensors

    @torch.no_grad()
    def watch(self, x: torch.Tensor) -> None:
        """Move the range towards that of the tensor `x`; the first ones count as a plain mean."""
        if self.phase == "frozen" or not self.training:
            return
        weight = torch.maximum(1 / (self.seen + 1), torch.tensor(1 - self.momentum))
        self.low.lerp_(x.amin().clamp(max=0).to(self.low.dtype), weight)
        self.high.lerp_(x.amax().clamp(min=0).to(self.high.dtype), weight)
        self.seen += 1


def set_phase(model: nn.Module, phase: str) -> None:
    """Set every `TensorRange` in `model` to one of PHASES."""
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; choose from {', '.join(PHASES)}")
    for module in model.modules():
        if isinstance(module, TensorRange):
            module.phase = phase


class CodeGrid(TensorRange):
    """Where a tensor's values may lie: 256 steps with a zero point, or 65,535 about zero.

    bits: 8 or 16. fixed: (low, high) that nothing moves. limit: the range ends at -limit and limit,
    because what reads the tensor does not tell larger values apart.
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        fixed: tuple[float, float] | None = None,
        limit: float = math.inf,
    ) -> None:
        super().__init__()
        self.bits, self.fixed, self.limit = bits, fixed, limit
        if fixed:
            self.low.fill_(fixed[0])
            self.high.fill_(fixed[1])

    def watch(self, x: torch.Tensor) -> None:
        if not self.fixed:
            super().watch(x.clamp(-self.limit, self.limit))

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, float32."""
        if self.bits == 8:
            return ((self.high - self.low) / 255).clamp(min=TINIEST)
        return (torch.maximum(-self.low, self.high) / 32767).clamp(min=TINIEST)

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The lowest and the highest code, zero being 0."""
        if self.bits == 8:
            zero = (-self.low / self.scale).round()
            return -zero, 255 - zero
        return -32767, 32767

    @property
    def largest(self) -> int:
        """The largest code's size that the bits allow."""
        return 255 if self.bits == 8 else 32767

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """The codes of values on this grid, and the nearest ones of others."""
        return self._clamped(x / self.scale)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes, rounded to whole numbers here, as float32 values on this grid."""
        return self._clamped(codes).float() * self.scale

    def _clamped(self, codes):
        return rounded(codes, *map(float, self.bounds))


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        y = x.round()
        ctx.save_for_backward((y >= low) & (y <= high))
        return y.clamp(low, high)

    @staticmethod
    def backward(ctx, *gradients):
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def rounded(x: torch.Tensor, low: float = -math.inf, high: float = math.inf) -> torch.Tensor:
    """The nearest whole numbers, halves to even, within limits; the gradient of x within them."""
    return _Rounded.apply(x, low, high)


def whole(
    multipliers: Sequence[torch.Tensor], largest: int, offsets: Sequence[torch.Tensor] = ()
) -> tuple[list[torch.Tensor], int]:
    """Multipliers as whole numbers: ([number * 2**shift, rounded], shift), float64.

    multipliers: tensors, which meet whole numbers of a size up to `largest`; offsets: what is
    added, in steps of the result. No product and no sum of what comes out reaches 2**53.
    """
    top = max(float(multiplier.detach().abs().max()) for multiplier in multipliers)
    bits = min(MULTIPLIER_BITS, 51 - math.ceil(math.log2(largest)))
    shift = bits - math.floor(math.log2(top)) - 1 if top else MOST_SHIFT
    shift = min(max(shift, 0), MOST_SHIFT)
    limits = [2.0**bits] * len(multipliers) + [2.0**50] * len(offsets)
    scaled = ((term.double() * 2.0**shift) for term in (*multipliers, *offsets))
    return [rounded(t.clamp(-n, n)) for t, n in zip(scaled, limits, strict=True)], shift
