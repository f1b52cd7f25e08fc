"""Fake quantisation: layers whose floating point computes exactly what whole numbers would.

A value is scale * code, the code a whole number of 8 or 16 bits less the zero point of its grid. A
layer computes `total`, a whole number, from the codes of its inputs and from multipliers that are
whole numbers, too; total / 2**shift, rounded half to even, is its output's code. Everything stays
below 2**53, so float64 is exact, and `total` gives the same in torch's floating point and in
numpy's integers. Gradients pass through the rounding as if it were not there.

Zero has the code 0 on every grid: a past that starts as zeros, after whatever norm, stays exact.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.quant.integers import convolve

PHASES = ("observe", "adapt", "frozen")
MULTIPLIER_BITS = 23
MOST_SHIFT = 40
BIAS_BITS = 28
CONVOLUTIONS = {
    "Conv1d": F.conv1d,
    "Conv2d": F.conv2d,
    "ConvTranspose1d": F.conv_transpose1d,
    "ConvTranspose2d": F.conv_transpose2d,
}
PAIRED = 64  # largest weight's size beside 8-bit data: 2 * 255 * 64 = 32,640 fits into 16 bits
TINIEST = 2.0**-28  # of scales: a tensor that is always zero has to have one as well


class Range(nn.Module):
    """The range of a tensor, a moving average of the extremes of what passes by.

    In the phases "observe" and "adapt", while training, `watch` moves the range; in "frozen", as
    at the start, it stays. low <= 0 <= high always. Arithmetic is up to who asks for the range:
    that of "observe" is in floating point, those of the other two are rounded.
    """

    low: torch.Tensor
    high: torch.Tensor
    seen: torch.Tensor

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
        self.low.lerp_(x.amin().clamp(max=0).to(self.low.dtype), weight)
        self.high.lerp_(x.amax().clamp(min=0).to(self.high.dtype), weight)
        self.seen += 1


def set_phase(model, phase):
    """Set every `Range` in `model` to one of PHASES."""
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; choose from {', '.join(PHASES)}")
    for module in model.modules():
        if isinstance(module, Range):
            module.phase = phase


def packed(twin):
    """The tensors of a twin as they are saved: those of `state_dict`, weights as codes in int8."""
    tensors = dict(twin.state_dict())
    for name, layer in twin.named_modules():
        if isinstance(layer, Conv):
            tensors[f"{name}.weight"] = layer.weight_codes.detach().to(torch.int8)
    return tensors


class Grid(Range):
    """Where a tensor's values may lie: 256 steps with a zero point, or 65,535 about zero.

    bits: 8 or 16. fixed: (low, high) that nothing moves. limit: the range ends at -limit and limit,
    because what reads the tensor does not tell larger values apart.
    """

    def __init__(self, bits=8, *, fixed=None, limit=math.inf):
        super().__init__()
        self.bits, self.fixed, self.limit = bits, fixed, limit
        if fixed:
            self.low.fill_(fixed[0])
            self.high.fill_(fixed[1])

    def watch(self, x):
        if not self.fixed:
            super().watch(x.clamp(-self.limit, self.limit))

    @property
    def scale(self):
        """The step between two codes, float32."""
        if self.bits == 8:
            return ((self.high - self.low) / 255).clamp(min=TINIEST)
        return (torch.maximum(-self.low, self.high) / 32767).clamp(min=TINIEST)

    @property
    def bounds(self):
        """The lowest and the highest code, zero being 0."""
        if self.bits == 8:
            zero = (-self.low / self.scale).round()
            return -zero, 255 - zero
        return -32767, 32767

    @property
    def largest(self):
        """The largest code's size that the bits allow."""
        return 255 if self.bits == 8 else 32767

    def codes(self, x):
        """The codes of values on this grid, and the nearest ones of others."""
        return self._clamped(x / self.scale)

    def values(self, codes):
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
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def rounded(x, low=-math.inf, high=math.inf):
    """The nearest whole numbers, halves to even, within limits; the gradient of x within them."""
    return _Rounded.apply(x, low, high)


def whole(multipliers, largest, offsets=()):
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


class Layer(nn.Module):
    """A layer between grids: those of its inputs, and last that of its output, None for float32.

    `real` computes in floating point; `constants` gives the numbers that `total` needs beside the
    codes, and the shift.
    """

    def __init__(self, *grids):
        super().__init__()
        self.grids = grids  # in a tuple: they belong to the model, and layers share them

    def connect(self, *grids):
        """Lie between these grids from now on."""
        self.grids = grids

    def forward(self, *inputs):
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
    def bytes(self):
        """Bytes of memory for what `total` needs: weights of 8 bits and all else of 32."""
        return 4 * sum(values.numel() for values in self.parameters())

    def real(self, *inputs):
        """The output, neither inputs nor weights nor output rounded."""
        raise NotImplementedError

    def constants(self):
        """([tensors], shift) in float64."""
        raise NotImplementedError

    def total(self, xp, *numbers):
        """The output's codes times 2**shift from the inputs' codes and the constants.

        xp: torch, where whole numbers are floating point, or numpy, where they are integers.
        """
        raise NotImplementedError


class Enter(Layer):
    """Values that come in from outside."""

    def forward(self, x):
        (grid,) = self.grids
        grid.watch(x)
        return x if grid.phase == "observe" else grid.values(x / grid.scale)


class Leave(Layer):
    """Values on a grid that floating point goes on with."""

    def forward(self, x):
        return x


def along(values, like, axis=1):
    """One number per channel (K,), K = 1 or all, in the shape to meet a tensor like `like`."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


class Conv(Layer):
    """A convolution, a transposed one, or a matrix product; with a ReLU if `relu` is set.

    The weights have 8 bits and a scale for each output channel, that of its largest weight (with
    groups, a transposed convolution has those of one group); the bias has 32 bits, in units of the
    products. Where the input has 8 bits, codes of weights end at PAIRED: x86 processors without
    VNNI add products in pairs, saturating at 16 bits, and no two of these reach that.
    """

    def __init__(self, layer, *grids):
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

    def connect(self, *grids):
        super().connect(*grids)
        self.follow()

    @torch.no_grad()
    def follow(self):
        """Take the scales from the weights."""
        others = [axis for axis in range(self.weight.ndim) if axis != self.axis]
        paired = self.grids and self.grids[0].bits == 8
        largest = self.weight.abs().amax(others) / (PAIRED if paired else 127)
        self.weight_scale.copy_(largest.clamp(min=TINIEST))

    def _load_from_state_dict(self, state, prefix, *more):
        """Take weights that were saved as codes, too."""
        name, scale = prefix + "weight", state.get(prefix + "weight_scale")
        if scale is not None and state[name].dtype == torch.int8:
            state[name] = state[name] * along(scale, state[name], self.axis)
        super()._load_from_state_dict(state, prefix, *more)

    @torch.no_grad()
    def scale_outputs(self, factors):
        """Multiply the output channels by `factors` (outputs,)."""
        by_group = self.weight.unflatten(0, (self.groups if self.transposed else 1, -1))
        shape = [1] * by_group.ndim
        shape[0], shape[self.axis + 1] = by_group.shape[0], -1
        self.weight.copy_((by_group * factors.reshape(shape)).flatten(0, 1))
        self.bias.mul_(factors)
        self.follow()

    @property
    def bytes(self):
        return self.weight.numel() + 4 * 2 * self.outputs  # a bias and a multiplier each

    @property
    def largest(self):
        """A bound on the size of a sum of products."""
        taps = self.weight.numel() // self.weight.shape[self.axis]
        taps = taps // self.groups if self.transposed else taps
        return taps * 127 * self.grids[0].largest

    @property
    def weight_codes(self):
        """The weights' codes, -127 to 127."""
        return rounded(self.weight / along(self.weight_scale, self.weight, self.axis)).clamp(
            -127, 127
        )

    def forward(self, x):
        if self.training:
            self.follow()
        return super().forward(x)

    def real(self, x):
        return self._with_bias(self._convolve(x, self.weight), self.bias)

    def constants(self):
        repeats = self.outputs // len(self.weight_scale)
        unit = self.grids[0].scale.double() * self.weight_scale.double().repeat(repeats)
        bias = rounded(self.bias / unit).clamp(-(2**BIAS_BITS), 2**BIAS_BITS)
        if self.grids[-1] is None:
            return [self.weight_codes, bias, unit], 0
        bound = self.largest + 2**BIAS_BITS
        (multipliers,), shift = whole([unit / self.grids[-1].scale.double()], bound)
        return [self.weight_codes, bias, multipliers], shift

    def total(self, xp, codes, weights, bias, multipliers):
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


class Rescale(Layer):
    """x * positive where x > 0, else x * negative, plus offset; one number for each channel.

    That is a PReLU, a batch norm, or the one and then the other.
    """

    def __init__(self, positive, negative, offset, *grids):
        super().__init__(*grids)
        for name, values in (("positive", positive), ("negative", negative), ("offset", offset)):
            setattr(self, name, nn.Parameter(values.detach().clone()))

    @torch.no_grad()
    def scale_inputs(self, factors):
        """Compute the same of inputs that are `factors` (K,) times as large, all above 0."""
        self.positive.data = self.positive / factors
        self.negative.data = self.negative / factors

    @torch.no_grad()
    def affine(self, scale, offset):
        """Multiply the output by `scale`, and add `offset`, both (K,)."""
        self.positive.data = self.positive * scale
        self.negative.data = self.negative * scale
        self.offset.data = self.offset * scale + offset

    def real(self, x):
        return self.total(torch, x, self.positive, self.negative, self.offset)

    def constants(self):
        scale = self.grids[-1].scale.double()
        ratio = self.grids[0].scale.double() / scale
        return whole(
            [self.positive * ratio, self.negative * ratio],
            2 * self.grids[0].largest,
            [self.offset / scale],
        )

    def total(self, xp, codes, positive, negative, offset):
        above, below = codes.clip(min=0), codes.clip(max=0)
        return (
            above * along(positive, codes) + below * along(negative, codes) + along(offset, codes)
        )


class Add(Layer):
    """The sum of two tensors."""

    def real(self, a, b):
        return a + b

    def constants(self):
        a, b, out = (grid.scale.double() for grid in self.grids)
        return whole([a / out, b / out], 2 * max(grid.largest for grid in self.grids))

    def total(self, xp, a, b, from_a, from_b):
        return a * from_a + b * from_b


class Multiply(Layer):
    """The product of two tensors."""

    def real(self, a, b):
        return a * b

    def constants(self):
        a, b, out = self.grids
        ratio = a.scale.double() * b.scale.double() / out.scale.double()
        return whole([ratio], a.largest * b.largest)

    def total(self, xp, a, b, multiplier):
        return a * b * multiplier


class Sigmoid(Layer):
    """The logistic function, by a table of the 256 codes of its input."""

    def forward(self, x):
        if not torch.is_grad_enabled() or self.grids[0].phase == "observe":
            return super().forward(x)
        smooth = self.real(x)
        with torch.no_grad():
            step = super().forward(x) - smooth
        return smooth + step  # the gradient of the function, not of the table

    @property
    def bytes(self):
        return 256

    def real(self, x):
        return x.sigmoid()

    def constants(self):
        into, out = self.grids
        inputs = (torch.arange(256) + into.bounds[0]).double() * into.scale.double()
        return [rounded(inputs.sigmoid() / out.scale.double()), into.bounds[0]], 0

    def total(self, xp, codes, table, lowest):
        return table[codes.long() - lowest.long()] if xp is torch else table[codes - lowest]


class Norm(Layer):
    """`nn.tcn.ChannelNorm`: layer norm over the channels of each frame; (B, C, N).

    The sums are whole numbers; root and quotient are float64, rounded to the nearest as IEEE 754
    asks for, so that every machine has the same.
    """

    def __init__(self, norm, *grids):
        super().__init__(*grids)
        self.weight = nn.Parameter(norm.weight.detach()[:, 0].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, 0].clone())
        self.eps = norm.eps

    @property
    def exact(self):
        """Whether float64 holds the largest sum of squares."""
        return len(self.weight) ** 3 * self.grids[0].largest ** 2 < 2**53

    def real(self, x):
        centred = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred * scale * along(self.weight, x) + along(self.bias, x)

    def constants(self):
        into, out = (grid.scale.double() for grid in self.grids)
        eps = self.eps * (len(self.weight) / into) ** 2
        return [self.weight / out, self.bias / out, eps], 0

    def total(self, xp, codes, weight, bias, eps):
        C = codes.shape[1]
        centred = C * codes - codes.sum(1)[:, None]  # C times the distance from the mean
        spread = xp.sqrt((centred * centred).sum(1)[:, None] / C + eps)
        return centred / spread * along(weight, codes) + along(bias, codes)
