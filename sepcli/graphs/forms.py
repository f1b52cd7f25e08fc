"""What is exported of a model: functions of tensors, and inputs to trace and check them with.

B batch, S sources, C channels, T samples, F frequencies, N frames.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sepcli.nn.causal import flat, nested

LOUD = 0.1  # RMS of the noise to check with
REFERENCE_S = 1.0  # length of what conditions are made of, to trace and to check


class StreamingGraph(nn.Module):
    """The exported form of a causal model: (x, *states, *condition) to (y, *next states)."""

    def __init__(self, form: Any, condition: Any = None) -> None:
        super().__init__()
        self.form, self.condition = form, condition
        self.like = form.core_state(1, *given(condition))
        self.count = len(flat(self.like))

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = nested(self.like, iter(rest[: self.count]))
        y, following = self.form.core(x, state, *rebuilt(self.condition, rest[self.count :]))
        return (y, *flat(following))


class WholeGraph(nn.Module):
    """A model for whole signals: (x, *condition) to y.

    x and y are (B, C, T) and (B, S, C, T), or of spectral models the real and imaginary parts
    (B, C, 2, F, N) and (B, S, C, 2, F, N) of spectra.
    """

    def __init__(self, model: Any, condition: Any = None) -> None:
        super().__init__()
        self.model, self.condition = model, condition

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        condition = rebuilt(self.condition, rest)
        if not self.model.spectral:
            return self.model.estimates(x, *condition)
        y = self.model.estimates(torch.complex(x[:, :, 0], x[:, :, 1]), *condition)
        return torch.stack([y.real, y.imag], 3)


class ConditionGraph(nn.Module):
    """A reference (1, C, T') to the tensors of its condition, and of the first state of `form`."""

    def __init__(self, model: Any, form: Any = None) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, reference: torch.Tensor) -> tuple[torch.Tensor, ...]:
        condition = self.model.condition([reference])
        states = flat(self.form.core_state(1, condition)) if self.form is not None else []
        return (*flat(condition), *states)


class ResemblanceGraph(nn.Module):
    """Signals (B, C, T) and a condition to how likely they are of whom it is of, (B,)."""

    def __init__(self, model: Any, condition: Any) -> None:
        super().__init__()
        self.model, self.condition = model, condition

    def forward(self, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return self.model.resemblance(x, *rebuilt(self.condition, rest))


def example(model: Any) -> tuple[Any, Any]:
    """(A reference (C, T'), its condition) for a model that takes one, else (None, None)."""
    if not model.conditioned:
        return None, None
    reference = noise(model.channels, round(REFERENCE_S * model.sample_rate))
    with torch.no_grad():
        return reference, model.condition([torch.from_numpy(reference)[None]])


def growing(model: Any, condition: Any) -> list[tuple[int, ...]]:
    """Of each tensor of a condition its dimensions beside the batch that the reference's length
    decides on."""
    if condition is None:
        return []
    longer = noise(1, model.channels, round(1.5 * REFERENCE_S * model.sample_rate))
    with torch.no_grad():
        others = flat(model.condition([torch.from_numpy(longer)]))
    return [
        tuple(d for d in range(1, one.ndim) if one.shape[d] != other.shape[d])
        for one, other in zip(flat(condition), others, strict=True)
    ]


def whole_inputs(model: Any, condition: Any, batch: int, length: int) -> list[torch.Tensor]:
    """Inputs of a `WholeGraph` for a batch of signals of so many samples."""
    x = torch.from_numpy(noise(batch, model.channels, length))
    if model.spectral:
        x = torch.view_as_real(model.analyse(x)).movedim(-1, 2).contiguous()
    return [x, *repeated(condition, batch)]


def noise(*shape: int) -> np.ndarray:
    """The same noise of an RMS of LOUD every time."""
    return np.float32(LOUD) * np.random.default_rng(0).standard_normal(shape, np.float32)


def given(condition: Any) -> tuple[Any, ...]:
    """The condition as the last arguments of a model's methods."""
    return () if condition is None else (condition,)


def rebuilt(condition: Any, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """The last arguments of a model's methods: tensors in the form of a condition."""
    return () if condition is None else (nested(condition, iter(tensors)),)


def repeated(condition: Any, batch: int) -> list[torch.Tensor]:
    """The tensors of a condition, for a batch."""
    if condition is None:
        return []
    return [x.expand(batch, *x.shape[1:]).contiguous() for x in flat(condition)]
