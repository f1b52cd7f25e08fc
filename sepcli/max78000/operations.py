"""Which operations a model consists of, recorded while it runs once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SECONDS = 0.25  # of audio


@dataclass(frozen=True)
class Operation:
    """One call of torch.

    module: name of the innermost module that ran, "" between modules. name: as "convolution".
    shapes: of the tensors that go in, None for what is no tensor. output: of the first tensor that
    comes out, () if none does. arguments: all of them, with
    None for tensors. parameters: whether each input is a parameter of the model.
    """

    module: str
    name: str
    shapes: tuple
    output: tuple
    arguments: tuple
    parameters: tuple


@torch.no_grad()
def record(model: Any) -> list[Any]:
    """The `Operation`s of `model`, in the order in which they run.

    Of a causal model, they are those of one hop, with its past; of others, of `SECONDS` of audio.
    Raises SepcliError when the model needs a reference.
    """
    model = model.complete()
    recorder = _Recorder(model)
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: recorder.enter(name)))
        hooks.append(module.register_forward_hook(lambda *_: recorder.leave()))
    training = model.training
    try:
        model.eval()
        if model.causal:
            state, x = model.initial_state(1), torch.zeros(1, model.channels, model.hop)
            with recorder:
                model.step(x, state)
        else:
            x = torch.zeros(1, model.channels, max(1, int(SECONDS * model.sample_rate)))
            with recorder:
                model(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return recorder.operations


class _Recorder(TorchDispatchMode):
    def __init__(self, model):
        super().__init__()
        self.operations, self.inside = [], [""]
        self.known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def enter(self, name):
        self.inside.append(name)

    def leave(self):
        self.inside.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [isinstance(x, torch.Tensor) for x in args]
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) and result else result
        self.operations.append(
            Operation(
                self.inside[-1],
                func.overloadpacket.__name__,
                tuple(tuple(x.shape) if t else None for x, t in zip(args, tensors, strict=True)),
                tuple(first.shape) if isinstance(first, torch.Tensor) else (),
                tuple(None if t else x for x, t in zip(args, tensors, strict=True)),
                tuple(
                    t and x.untyped_storage().data_ptr() in self.known
                    for x, t in zip(args, tensors, strict=True)
                ),
            )
        )
        return result
