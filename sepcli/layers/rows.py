"""What layers of (B, C, N) do, done on rows (B, N, C): how a training step is fastest.

A 1x1 convolution is one matrix product there, a depthwise one a few products of shifted rows, and
a norm over channels has them side by side. The weights are those of the layers.
B batch, N frames, C channels.
"""

import torch
from torch import nn
from torch.nn import functional as F


def apply(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `layer` gives for (B, C, N), of rows (B, N, C)."""
    if isinstance(layer, nn.Sequential):
        for each in layer:
            x = apply(each, x)
        return x
    if isinstance(layer, nn.Conv1d):
        many = layer.groups > 1
        return depthwise(layer, x) if many else F.linear(x, layer.weight[..., 0], layer.bias)
    if isinstance(layer, nn.PReLU):
        return prelu(x, layer.weight)
    if isinstance(layer, nn.GroupNorm):
        return group_norm(layer, x)
    if isinstance(layer, nn.BatchNorm1d):
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return getattr(layer, "rows", layer)(x)


def group_norm(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """A group norm; channels side by side are what torch calls `channels_last` in images."""
    image = x[:, :, None].permute(0, 3, 1, 2)  # (B, C, N, 1)
    return norm(image).permute(0, 2, 3, 1).flatten(2)


def depthwise(conv: nn.Conv1d, x: torch.Tensor, before: int = 0, after: int = 0) -> torch.Tensor:
    """A depthwise convolution of rows with so many rows of zeros before and after them."""
    weight = conv.weight[:, 0].t().to(x.dtype)  # (K, C)
    bias = x.new_zeros(()) if conv.bias is None else conv.bias.to(x.dtype)
    return _Depthwise.apply(x, weight, bias, conv.dilation[0], before, after)


def dense(conv: nn.Conv1d, x: torch.Tensor, before: int = 0, after: int = 0) -> torch.Tensor:
    """The same of a convolution that mixes channels: one matrix product for each tap."""
    x, taps, spread = F.pad(x, (0, 0, before, after)), conv.kernel_size[0], conv.dilation[0]
    frames = x.shape[1] - (taps - 1) * spread
    y = F.linear(x[:, :frames], conv.weight[..., 0], conv.bias)
    for k in range(1, taps):
        y = y + F.linear(x[:, k * spread : k * spread + frames], conv.weight[..., k])
    return y


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """A PReLU with one slope for all channels, or one for each.

    The gradient of torch's takes 10 times as long on a CPU as its value.
    """
    if slope.numel() > 1:
        return F.prelu(x.flatten(0, 1), slope).unflatten(0, x.shape[:2])
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _LeakyRelu.apply(x, slope)
    return F.prelu(x, slope)


class _Depthwise(torch.autograd.Function):
    """sum_k x[n + k * dilation - before] * weight[k] + bias, in few passes over memory."""

    @staticmethod
    def forward(ctx, x, weight, bias, dilation, before, after):
        frames = x.shape[1] + before + after - (len(weight) - 1) * dilation
        ctx.taps = _taps(
            x.shape[1], frames, range(-before, len(weight) * dilation, dilation), weight
        )
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias.ndim > 0
        (first, out, into), *others = ctx.taps
        if _covers(out, frames):
            y = torch.addcmul(bias, x[:, into], weight[first])
        else:
            y = bias.expand(len(x), frames, x.shape[-1]).clone()
            others = ctx.taps
        for k, out, into in others:
            y[:, out].addcmul_(x[:, into], weight[k])
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_weight = torch.zeros_like(weight)
        (first, out, into), *others = ctx.taps
        if _covers(into, x.shape[1]):
            of_x = gradient[:, out] * weight[first]
        else:
            of_x, others = torch.zeros_like(x), ctx.taps
        for k, out, into in others:
            of_x[:, into].addcmul_(gradient[:, out], weight[k])
        for k, out, into in ctx.taps:
            torch.sum(gradient[:, out] * x[:, into], (0, 1), out=of_weight[k])
        of_bias = gradient.sum((0, 1)) if ctx.has_bias else None
        return of_x, of_weight, of_bias, None, None, None


def _taps(rows, frames, offsets, weight):
    """For each tap its number and which frames of the output it meets which rows with.

    One that meets all frames, if there is one, comes first.
    """
    taps = []
    for k, offset in zip(range(len(weight)), offsets, strict=False):
        first, last = max(0, -offset), min(frames, rows - offset)
        if first < last:
            taps.append((k, slice(first, last), slice(first + offset, last + offset)))
    return sorted(taps, key=lambda tap: not _covers(tap[1], frames))


def _covers(part, frames):
    return part.stop - part.start == frames


class _LeakyRelu(torch.autograd.Function):
    """x where x > 0, else x * slope, for one slope."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, slope.item())

    @staticmethod
    def backward(ctx, gradient):
        x, slope = ctx.saved_tensors
        a = slope.item()
        of_x = torch.ops.aten.leaky_relu_backward(gradient, x, a, False)
        flat = x.reshape(-1)
        if x.element_size() > 2 and abs(1 - a) > 0.1:  # needs no tensor in between
            whole = torch.dot(gradient.reshape(-1), flat)
            of_slope = (whole - torch.dot(of_x.reshape(-1), flat)) / (1 - a)
        else:
            of_slope = torch.dot(gradient.reshape(-1), flat.clamp(max=0))
        return of_x, of_slope.to(slope.dtype).view_as(slope)
