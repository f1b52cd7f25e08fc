"""Weights of which every process has a part (FSDP2), and how they become whole again."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: nn.Module) -> None:
    """Leave every process a part of each parameter; they come together for a pass."""
    from torch.distributed.fsdp import fully_shard

    # Nobody changes estimates in place, which is what this is about.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    fully_shard(model)


def whole(tree: Any) -> Any:
    """A nest of dicts and lists with whole tensors; all processes have to ask for it."""
    if isinstance(tree, DTensor):
        return tree.full_tensor()
    if isinstance(tree, dict):
        return type(tree)((key, whole(value)) for key, value in tree.items())
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    return tree


def parts(value: Any, like: Any) -> Any:
    """A whole tensor in parts, if those of the tensor `like`, of the same shape, are."""
    if isinstance(like, DTensor) and isinstance(value, torch.Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def load(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give the model whole weights."""
    own = model.state_dict()
    model.load_state_dict({name: parts(value, own.get(name)) for name, value in weights.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give the optimizer the whole state that `whole(optimizer.state_dict())` was."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {name: parts(value, parameters[index]) for name, value in values.items()}
        for index, values in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
