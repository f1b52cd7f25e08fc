"""Weights & Biases, where it is installed and asked for: the same numbers as in metrics.jsonl."""

from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError


class Tracker:
    """A run of the project `project`, which goes on when the training does; see `RunLog`."""

    def __init__(self, project: str, folder: Path) -> None:
        self.run = None
        if project:
            wandb = check(project)
            name = Path(folder).resolve().name
            self.run = wandb.init(
                project=project, name=name, id=name, resume="allow", dir=str(folder)
            )

    def write(self, event: str, values: dict[str, Any]) -> None:
        """Add the numbers of a record."""
        if self.run is not None:
            numbers = {f"{event}/{name}": x for name, x in values.items() if _is_number(x)}
            self.run.log(numbers, step=values["step"])

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()


def check(project: str) -> Any:
    """The package; SepcliError where it is asked for and not installed."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]  # optional, and not a test tool
    except ImportError:
        raise SepcliError(
            f"train.wandb {project}: wandb is not installed; pip install wandb, or leave it out"
        ) from None
    return wandb


def _is_number(x):
    return isinstance(x, int | float) and not isinstance(x, bool)
