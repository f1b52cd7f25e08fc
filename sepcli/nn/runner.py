"""What runs a causal model on arrays: by torch, by ONNX Runtime, or in whole numbers.

Nothing here needs torch. B batch, S sources, C channels.
"""

from typing import Any, Protocol

import numpy as np

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
