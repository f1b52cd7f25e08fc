"""What runs a causal model on arrays: by torch, by ONNX Runtime, or in whole numbers.

Torch is imported when a model is run by it. B batch, S sources, C channels.
"""

from typing import Any, Protocol

import numpy as np

from sepcli.errors import SepcliError

CHUNK_MS = 10.0  # what live audio programs hand over at a time
RUNNER = ("sample_rate", "sources", "channels", "hop", "delay", "consistent")


class Runner(Protocol):
    """What runs a causal model, of which it has the attributes in RUNNER."""

    engine: str
    sample_rate: int
    sources: tuple[str, ...]
    channels: int
    hop: int
    delay: int
    consistent: bool  # whether what the estimates lack of the mixture is to be shared out

    def initial_state(self, batch: int = 1) -> Any:
        """The state before the first chunk."""
        ...

    def step(self, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Map float32 (B, C, k*hop) to (B, S, C, k*hop), `delay` samples late, and the next state.

        A state may be used up by its step.
        """
        ...


class TorchRunner:
    """A causal model run by torch; `torch.set_num_threads(1)` is the caller's to decide.

    Raises SepcliError when the model is not causal, or lacks a condition.
    """

    engine = "torch"

    sample_rate: int
    sources: tuple[str, ...]
    channels: int
    hop: int
    delay: int
    consistent: bool

    def __init__(self, model: Any) -> None:
        if not model.causal:
            raise SepcliError("the model is not causal: it needs the whole signal; use separate")
        model = model.complete()
        self.model = model.eval() if model.training else model  # it looks at every layer
        for name in RUNNER:
            setattr(self, name, getattr(model, name))

    def initial_state(self, batch: int = 1) -> Any:
        return self.model.initial_state(batch)

    def step(self, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        import torch

        with torch.inference_mode():
            y, state = self.model.step(torch.from_numpy(x).to(self.model.device), state)
        return y.cpu().numpy(), state


def whole_hops(milliseconds: float, runner: Runner) -> int:
    """The samples of so many ms, rounded down to whole hops, but at least one hop."""
    return max(1, int(milliseconds * runner.sample_rate / 1000 // runner.hop)) * runner.hop
