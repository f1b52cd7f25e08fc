"""Fake-quantised convolutions and matrix products; see `quant/layers.py`."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.quant.grids import TINIEST, rounded, whole
from sepcli.quant.integers import convolve
from sepcli.quant.layers import Layer, along

BIAS_BITS = 28
CONVOLUTIONS = {
    "Conv1d": F.conv1d,
    "Conv2d": F.conv2d,
    "ConvTranspose1d": F.conv_transpose1d,
    "ConvTranspose2d": F.conv_transpose2d,
}
PAIRED = 64  # largest weight's size beside 8-bit data: 2 * 255 * 64 = 32,640 fits into 16 bits


class Conv(Layer):
    """A convolution, a transposed one, or a matrix product; with a ReLU if `relu` is set.

    The weights have 8 bits and a scale for each output channel, that of its largest weight (with
    groups, a transposed convolution has those of one group); the bias has 32 bits, in units of the
    products. Where the input has 8 bits, codes of weights end at PAIRED: x86 processors without
    VNNI add products in pairs, saturating at 16 bits, and no two of these reach that.
    """

    weight_scale: torch.Tensor

    def __init__(self, layer: Any, *grids: Any) -> None:
        """layer: one of torch's convolutions, or a matrix (inputs, outputs) to multiply with."""
        super().__init__(*grids)
        product = isinstance(layer, torch.Tensor)
        weight, bias = (layer, None) if product else (layer.weight, layer.bias)
        self.kind = "product" if product else type(layer).__name__
        self.transposed = not product and layer.transposed
        self.groups = 1 if product else layer.groups
        self.options = {}
        if not product:
            names = ("stride", "padding", "dilation", "groups", "output_padding")
            names = names if self.transposed else names[:-1]
            self.options = {name: getattr(layer, name) for name in names}
        self.axis = 1 if product or self.transposed else 0  # of output channels in the weights
        self.outputs = weight.shape[self.axis] * (self.groups if self.transposed else 1)
        self.relu = False
        self.weight = nn.Parameter(weight.detach().clone())
        bias = weight.new_zeros(self.outputs) if bias is None else bias
        self.bias = nn.Parameter(bias.detach().clone())
        self.register_buffer("weight_scale", torch.ones(weight.shape[self.axis]))
        self.follow()

    def connect(self, *grids: Any) -> None:
        super().connect(*grids)
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Take the scales from the weights."""
        others = [axis for axis in range(self.weight.ndim) if axis != self.axis]
        paired = self.grids and self.grids[0].bits == 8
        largest = self.weight.abs().amax(others) / (PAIRED if paired else 127)
        self.weight_scale.copy_(largest.clamp(min=TINIEST))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        """Take weights that were saved as codes, too."""
        name, scale = prefix + "weight", state_dict.get(prefix + "weight_scale")
        if scale is not None and state_dict[name].dtype == torch.int8:
            state_dict[name] = state_dict[name] * along(scale, state_dict[name], self.axis)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def scale_outputs(self, factors: torch.Tensor) -> None:
        """Multiply the output channels by `factors` (outputs,)."""
        by_group = self.weight.unflatten(0, (self.groups if self.transposed else 1, -1))
        shape = [1] * by_group.ndim
        shape[0], shape[self.axis + 1] = by_group.shape[0], -1
        self.weight.copy_((by_group * factors.reshape(shape)).flatten(0, 1))
        self.bias.mul_(factors)
        self.follow()

    @property
    def bytes(self) -> int:
        return self.weight.numel() + 4 * 2 * self.outputs  # a bias and a multiplier each

    @property
    def largest(self) -> int:
        """A bound on the size of a sum of products."""
        taps = self.weight.numel() // self.weight.shape[self.axis]
        taps = taps // self.groups if self.transposed else taps
        return taps * 127 * self.grids[0].largest

    @property
    def weight_codes(self) -> torch.Tensor:
        """The weights' codes, -127 to 127."""
        return rounded(self.weight / along(self.weight_scale, self.weight, self.axis)).clamp(
            -127, 127
        )

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.follow()
        return super().forward(*inputs)

    def real(self, x: torch.Tensor) -> torch.Tensor:
        return self._with_bias(self._convolve(x, self.weight), self.bias)

    def constants(self) -> tuple[list[Any], int]:
        repeats = self.outputs // len(self.weight_scale)
        unit = self.grids[0].scale.double() * self.weight_scale.double().repeat(repeats)
        bias = rounded(self.bias / unit).clamp(-(2**BIAS_BITS), 2**BIAS_BITS)
        if self.grids[-1] is None:
            return [self.weight_codes, bias, unit], 0
        bound = self.largest + 2**BIAS_BITS
        (multipliers,), shift = whole([unit / self.grids[-1].scale.double()], bound)
        return [self.weight_codes, bias, multipliers], shift

    def total(self, xp: Any, codes: Any, weights: Any, bias: Any, multipliers: Any) -> Any:
        sums = self._sums(codes, weights) if xp is torch else convolve(self, codes, weights)
        sums = self._with_bias(sums, bias)
        return sums * self._per_channel(multipliers, sums)

    def _sums(self, codes, weights):
        """The sums of products, exact, in float64; in between in float32 where that is exact."""
        kind = torch.float32 if self.largest < 2**24 else torch.float64
        return self._convolve(codes.to(kind), weights.to(kind)).double()

    def _convolve(self, x, weight):
        if self.kind == "product":
            return x @ weight
        return CONVOLUTIONS[self.kind](x, weight, **self.options)

    def _with_bias(self, sums, bias):
        sums = sums + self._per_channel(bias, sums)
        return sums.clip(min=0) if self.relu else sums

    def _per_channel(self, values, like):
        return along(values, like, -1 if self.kind == "product" else 1)


def packed(twin: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a twin as they are saved: those of `state_dict`, weights as codes in int8."""
    tensors = dict(twin.state_dict())
    for name, layer in twin.named_modules():
        if isinstance(layer, Conv):
            tensors[f"{name}.weight"] = layer.weight_codes.detach().to(torch.int8)
    return tensors
