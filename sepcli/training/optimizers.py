"""The optimizers of a training, by their names in the settings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

GATES = {nn.LSTM: 4, nn.GRU: 3}  # matrices that a weight of such a layer is a stack of
MOMENTUM = 0.95
ROUNDS = 4
ADAM_RMS = 0.2  # root mean square of what Adam adds at a learning rate of 1


def optimizer_of(model: nn.Module, settings: Any) -> torch.optim.Optimizer:
    """The optimizer of all of the model that `settings`, those of a training, name."""
    given: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.betas[0], settings.betas[1]),
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "muon":
        return Muon(model, **given)
    return torch.optim.AdamW(model.parameters(), **given)


class Muon(torch.optim.AdamW):
    """Steps that turn and stretch no direction more than another for matrices, AdamW for the rest.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, scaled to the
    learning rate and weight decay of AdamW as in Liu et al., "Muon is scalable for LLM training",
    2025. Matrices are all parameters of two dimensions or more, their first dimension against the
    others; each gate of a recurrent layer has one of its own.
    """

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        groups: dict[int, list[nn.Parameter]] = {}
        stacked = stacks(model)
        for p in model.parameters():
            count = stacked.get(id(p), 1) if p.ndim > 1 else 0
            groups.setdefault(count, []).append(p)
        super().__init__(
            [{"params": groups[count], "matrices": count} for count in sorted(groups)], **settings
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move all parameters by their gradients, of which those of matrices are gone then."""
        for group in self.param_groups:
            for p in group["params"] if group["matrices"] else []:
                if p.grad is not None:
                    self._move(p, group)
                    p.grad = None  # AdamW passes by what has none
        return super().step(closure)

    @torch.no_grad()
    def _move(self, p, group):
        state = self.state[p]
        if not state:
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(p)
        state["step"] += 1
        state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        wanted = p.grad.lerp(state["momentum"], MOMENTUM)
        matrices = wanted.reshape(group["matrices"], p.shape[0] // group["matrices"], -1)
        scale = ADAM_RMS * max(matrices.shape[1:]) ** 0.5
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(orthogonal(matrices).reshape(p.shape), alpha=-group["lr"] * scale)


def stacks(model: nn.Module) -> dict[int, int]:
    """Of how many matrices the weights of recurrent layers, by their `id`, are stacks."""
    layers = [layer for layer in model.modules() if type(layer) in GATES]
    return {id(p): GATES[type(layer)] for layer in layers for p in layer.parameters()}


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Matrices (..., R, C) with their singular values made about 1, from 0.7 to 1.2.

    A few rounds of the polynomial of Jordan et al. (see `Muon`), computed in bfloat16; what is far
    below the largest singular value stays below 1.
    """
    y = x.bfloat16()
    y = y.mT if x.shape[-2] > x.shape[-1] else y
    y = y / (torch.linalg.matrix_norm(y, keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = y @ y.mT
        y = 3.4445 * y + (2.0315 * square @ square - 4.775 * square) @ y
    return (y.mT if x.shape[-2] > x.shape[-1] else y).to(x.dtype)
