"""Batch norms of a trained network, made part of the convolutions before them."""

import copy
from typing import Any

import torch
from torch import nn


def scale_and_shift(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What a batch norm in evaluation does to its channels, scale * x + shift; float64 (C,)."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


@torch.no_grad()
def fold(conv: Any, norm: Any) -> Any:
    """A copy of a convolution, transposed or not, that includes the batch norm after it."""
    conv, (scale, shift) = copy.deepcopy(conv), scale_and_shift(norm)
    weight, dtype = conv.weight.double(), conv.weight.dtype
    if conv.transposed:  # (C_in, C_out / groups, ...)
        grouped = weight.unflatten(0, (conv.groups, -1))  # (groups, C_in / groups, C_out / groups)
        factors = scale.reshape(conv.groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = (grouped * factors).flatten(0, 1)
    else:  # (C_out, C_in / groups, ...)
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    conv.weight = nn.Parameter(weight.to(dtype))
    conv.bias = nn.Parameter((scale * conv.bias.double() + shift).to(dtype))
    return conv
