"""How a step computes: in which numbers, and compiled or not. Losses and weights stay float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch

from sepcli.nn.model import Model
from sepcli.training import validation
from sepcli.training.settings import Settings

DTYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(settings: Settings, device: str | torch.device) -> AbstractContextManager[Any]:
    """A context in which products are computed as `train.autocast` says."""
    dtype = DTYPES[settings.autocast]
    return torch.autocast(torch.device(device).type, dtype) if dtype else nullcontext()


def scaler(settings: Settings, device: str | torch.device) -> torch.amp.GradScaler:
    """What keeps the gradients of 16-bit floats with 5 bits of exponent from becoming 0."""
    enabled = settings.autocast == "fp16"
    return torch.amp.GradScaler(torch.device(device).type, enabled=enabled)


@contextmanager
def compiled(
    model: Model, settings: Settings, batches: Any, device: str | torch.device
) -> Iterator[tuple[str | None, Any]]:
    """A context in which the model is compiled if `train.compile` says so and a compiler is there.

    What is compiled is the method that `model.compilable` names. Yields a line on why that failed,
    or None; and `batches`, of which the first was tried.
    """
    if not settings.compile:
        yield None, batches
        return
    batch = next(batches)
    name = model.compilable
    setattr(model, name, torch.compile(getattr(model, name)))
    try:
        failure = _failure(model, settings, *(x.to(device) for x in batch))
        if failure:
            delattr(model, name)
            failure = f"train.compile: not compiled ({failure}); training is slower without"
        yield failure, chain([batch], batches)
    finally:
        vars(model).pop(name, None)


def _failure(model, settings, mix, _refs, *enroll):
    """Why a step with the model is impossible, one line, or None; leaves the model as it was."""
    training, buffers = model.training, [buffer.clone() for buffer in model.buffers()]
    try:
        (mix,) = validation.as_taken(model, settings, mix)
        with autocast(settings, mix.device):
            estimates = validation.separate(model.train(), mix, enroll)
        estimates.abs().sum().backward()
    except Exception as error:  # of a compiler, everything is to be expected
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
    return None
