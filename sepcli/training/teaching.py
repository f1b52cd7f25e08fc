"""What a model that has learned already makes of a batch, for another one to learn from.

Hinton et al., "Distilling the knowledge in a neural network", 2015: what a teacher makes of a
mixture is a second reference. It tells what a network can know of it, also of recordings that the
student has not heard, and weighs the noise of single items less than the true references do.
"""

import torch

from sepcli.errors import SepcliError
from sepcli.nn.model import Model


class Teacher:
    """A model whose estimates are references; it does not change.

    Raises SepcliError where it cannot teach `student`: another rate, other channels, sources that
    it does not have, or one of both takes references of speakers.
    """

    def __init__(self, model: Model, student: Model, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        for what, of in (("sample_rate", "Hz"), ("channels", "channels")):
            theirs, ours = getattr(model, what), getattr(student, what)
            if theirs != ours:
                raise SepcliError(f"train.teacher {name}: has {theirs} {of}, the model {ours}")
        if model.conditioned or student.conditioned:
            raise SepcliError(f"train.teacher {name}: not for models that take references")
        missing = [source for source in student.sources if source not in model.sources]
        if missing:
            raise SepcliError(f"train.teacher {name}: has no {', '.join(missing)}")
        self.rows = [model.sources.index(source) for source in student.sources]

    @torch.no_grad()
    def references(self, mix: torch.Tensor) -> torch.Tensor:
        """What it makes of mixtures (B, C, T): the student's sources (B, S, C, T)."""
        return self.model(mix)[:, self.rows]
