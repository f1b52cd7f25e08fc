"""Fake quantisation: layers whose floating point computes exactly what whole numbers would.

A layer computes `total`, a whole number, from the codes of its inputs and from multipliers that are
whole numbers, too; total / 2**shift, rounded half to even, is its output's code. Everything stays
below 2**53, so float64 is exact, and `total` gives the same in torch's floating point and in
numpy's integers. Gradients pass through the rounding as if it were not there.

Convolutions are in `quant/convolution.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sepcli.quant.grids import rounded, whole


class Layer(nn.Module):
    """A layer between grids: those of its inputs, and last that of its output, None for float32.

    A subclass has `real(*inputs)`, the output in floating point, neither inputs nor weights nor
    output rounded; `constants()`, the tensors in float64 that `total` needs beside the codes, and
    the shift; and `total(xp, *codes, *constants)`, the output's codes times 2**shift. xp: torch,
    where whole numbers are floating point, or numpy, where they are integers.
    """

    real: Callable[..., torch.Tensor]
    constants: Callable[[], tuple[list[Any], int]]
    total: Callable[..., Any]

    def __init__(self, *grids: Any) -> None:
        super().__init__()
        self.grids = grids  # in a tuple: they belong to the model, and layers share them

    def connect(self, *grids: Any) -> None:
        """Lie between these grids from now on."""
        self.grids = grids

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        observing, out = self.grids[0].phase == "observe", self.grids[-1]
        if out is not None and self.training and not observing:
            with torch.no_grad():
                out.watch(self.real(*inputs))
        if observing:
            y = self.real(*inputs)
            if out is not None:
                out.watch(y)
            return y
        codes = (grid.codes(x).double() for grid, x in zip(self.grids, inputs, strict=False))
        constants, shift = self.constants()
        total = self.total(torch, *codes, *constants) * 2.0**-shift
        return total.float() if out is None else out.values(total)

    @property
    def bytes(self) -> int:
        """Bytes of memory for what `total` needs: weights of 8 bits and all else of 32."""
        return 4 * sum(values.numel() for values in self.parameters())


class Enter(Layer):
    """Values that come in from outside."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        (grid,), (x,) = self.grids, inputs
        grid.watch(x)
        return x if grid.phase == "observe" else grid.values(x / grid.scale)


class Leave(Layer):
    """Values on a grid that floating point goes on with."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]


def along(values: Any, like: Any, axis: int = 1) -> Any:
    """One number per channel (K,), K = 1 or all, in the shape to meet a tensor like `like`."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


class Rescale(Layer):
    """x * positive where x > 0, else x * negative, plus offset; one number for each channel.

    That is a PReLU, a batch norm, or the one and then the other.
    """

    def __init__(
        self, positive: torch.Tensor, negative: torch.Tensor, offset: torch.Tensor, *grids: Any
    ) -> None:
        super().__init__(*grids)
        self.positive = nn.Parameter(positive.detach().clone())
        self.negative = nn.Parameter(negative.detach().clone())
        self.offset = nn.Parameter(offset.detach().clone())

    @torch.no_grad()
    def scale_inputs(self, factors: torch.Tensor) -> None:
        """Compute the same of inputs that are `factors` (K,) times as large, all above 0."""
        self.positive.data = self.positive / factors
        self.negative.data = self.negative / factors

    @torch.no_grad()
    def affine(self, scale: torch.Tensor, offset: torch.Tensor) -> None:
        """Multiply the output by `scale`, and add `offset`, both (K,)."""
        self.positive.data = self.positive * scale
        self.negative.data = self.negative * scale
        self.offset.data = self.offset * scale + offset

    def real(self, x: torch.Tensor) -> torch.Tensor:
        return self.total(torch, x, self.positive, self.negative, self.offset)

    def constants(self) -> tuple[list[Any], int]:
        scale = self.grids[-1].scale.double()
        ratio = self.grids[0].scale.double() / scale
        return whole(
            [self.positive * ratio, self.negative * ratio],
            2 * self.grids[0].largest,
            [self.offset / scale],
        )

    def total(self, xp: Any, codes: Any, positive: Any, negative: Any, offset: Any) -> Any:
        above, below = codes.clip(min=0), codes.clip(max=0)
        return (
            above * along(positive, codes) + below * along(negative, codes) + along(offset, codes)
        )


class Add(Layer):
    """The sum of two tensors."""

    def real(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def constants(self) -> tuple[list[Any], int]:
        a, b, out = (grid.scale.double() for grid in self.grids)
        return whole([a / out, b / out], 2 * max(grid.largest for grid in self.grids))

    def total(self, xp: Any, a: Any, b: Any, from_a: Any, from_b: Any) -> Any:
        return a * from_a + b * from_b


class Multiply(Layer):
    """The product of two tensors."""

    def real(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b

    def constants(self) -> tuple[list[Any], int]:
        a, b, out = self.grids
        ratio = a.scale.double() * b.scale.double() / out.scale.double()
        return whole([ratio], a.largest * b.largest)

    def total(self, xp: Any, a: Any, b: Any, multiplier: Any) -> Any:
        return a * b * multiplier


class Sigmoid(Layer):
    """The logistic function, by a table of the 256 codes of its input."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        (x,) = inputs
        if not torch.is_grad_enabled() or self.grids[0].phase == "observe":
            return super().forward(x)
        smooth = self.real(x)
        with torch.no_grad():
            step = super().forward(x) - smooth
        return smooth + step  # the gradient of the function, not of the table

    @property
    def bytes(self) -> int:
        return 256

    def real(self, x: torch.Tensor) -> torch.Tensor:
        return x.sigmoid()

    def constants(self) -> tuple[list[Any], int]:
        into, out = self.grids
        inputs = (torch.arange(256) + into.bounds[0]).double() * into.scale.double()
        return [rounded(inputs.sigmoid() / out.scale.double()), into.bounds[0]], 0

    def total(self, xp: Any, codes: Any, table: Any, lowest: Any) -> Any:
        return table[codes.long() - lowest.long()] if xp is torch else table[codes - lowest]


class Norm(Layer):
    """`nn.tcn.ChannelNorm`: layer norm over the channels of each frame; (B, C, N).

    The sums are whole numbers; root and quotient are float64, rounded to the nearest as IEEE 754
    asks for, so that every machine has the same.
    """

    def __init__(self, norm: Any, *grids: Any) -> None:
        super().__init__(*grids)
        self.weight = nn.Parameter(norm.weight.detach()[:, 0].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, 0].clone())
        self.eps = norm.eps

    @property
    def exact(self) -> bool:
        """Whether float64 holds the largest sum of squares."""
        return len(self.weight) ** 3 * self.grids[0].largest ** 2 < 2**53

    def real(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * scale * along(self.weight, x) + along(self.bias, x)

    def constants(self) -> tuple[list[Any], int]:
        into, out = (grid.scale.double() for grid in self.grids)
        eps = self.eps * (len(self.weight) / into) ** 2
        return [self.weight / out, self.bias / out, eps], 0

    def total(self, xp: Any, codes: Any, weight: Any, bias: Any, eps: Any) -> Any:
        C = codes.shape[1]
        centred = C * codes - codes.sum(1)[:, None]  # C times the distance from the mean
        spread = xp.sqrt((centred * centred).sum(1)[:, None] / C + eps)
        return centred / spread * along(weight, codes) + along(bias, codes)
