"""Estimates that add up to their mixture."""

from typing import Any


def add_up(estimates: Any, mixture: Any) -> Any:
    """Share out what estimates (B, S, ...) lack of the mixture (B, ...) equally among them.

    s_j + (x - sum_k s_k) / S: Wisdom et al., "Differentiable consistency constraints for improved
    deep speech enhancement", ICASSP 2019. Arrays of numpy or tensors of torch, sound or spectra.
    """
    return estimates + (mixture - estimates.sum(1))[:, None] / estimates.shape[1]
