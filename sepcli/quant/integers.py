"""Whole numbers in numpy: what a processor without floating point computes.

Codes are int64 arrays, sums of products int32 where they fit.
"""

from typing import Any

import numpy as np


def convolve(layer: Any, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums of products of a `Conv` without its bias, int64; weights as torch has them."""
    kind = np.int32 if layer.largest < 2**31 else np.int64
    x, w = codes.astype(kind), weights.astype(kind)
    if layer.kind == "product":
        return np.einsum("...i,io->...o", x, w).astype(np.int64)
    run = _transposed if layer.transposed else _forward
    return run(x, w, **layer.options).astype(np.int64)


def shift_half_even(total: Any, shift: int) -> Any:
    """total / 2**shift as the nearest whole number, halves to even; shift >= 0."""
    low = total & ((1 << shift) - 1)
    whole = total >> shift
    half = 1 << (shift - 1) if shift else 1
    return whole + ((low > half) | ((low == half) & (whole & 1 == 1)))


def _forward(x, w, stride, padding, dilation, groups):
    """(B, G * I, ...) and (G * O, I, ...) to (B, G * O, ...)."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    B, size = len(x), x.shape[2:]
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(size, w.shape[2:], stride, dilation, strict=True)
    ]
    x = x.reshape(B, groups, -1, *size)  # (B, G, I, ...)
    w = w.reshape(groups, -1, *w.shape[1:])  # (G, O, I, ...)
    y = np.zeros((B, groups, w.shape[1], *out), x.dtype)
    for tap in np.ndindex(*w.shape[3:]):
        at = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(tap, dilation, stride, out, strict=True)
        )
        y += _products(w[(..., *tap)], x[(slice(None), slice(None), slice(None), *at)])
    return y.reshape(B, -1, *out)


def _transposed(x, w, stride, padding, dilation, groups, output_padding):
    """(B, G * I, ...) and (G * I, O, ...) to (B, G * O, ...)."""
    B, size = len(x), x.shape[2:]
    full = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, k, s, d, extra in zip(
            size, w.shape[2:], stride, dilation, output_padding, strict=True
        )
    ]
    x = x.reshape(B, groups, -1, *size)  # (B, G, I, ...)
    w = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)  # (G, O, I, ...)
    y = np.zeros((B, groups, w.shape[1], *full), x.dtype)
    for tap in np.ndindex(*w.shape[3:]):
        at = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(tap, dilation, stride, size, strict=True)
        )
        y[(slice(None), slice(None), slice(None), *at)] += _products(w[(..., *tap)], x)
    y = y.reshape(B, -1, *full)
    inner = tuple(slice(p, n - p) for p, n in zip(padding, full, strict=True))
    return y[(slice(None), slice(None), *inner)]


def _products(w, x):
    """(G, O, I) times (B, G, I, ...): (B, G, O, ...)."""
    return np.einsum("goi,bgi...->bgo...", w, x)
