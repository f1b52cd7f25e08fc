"""The folder of a training run: its files, and how they are started again or resumed."""

import json
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models import modelfile
from sepcli.runs.runlog import METRICS

CONFIG, CHECKPOINT, SCORES = "config.yaml", "last.ckpt", "scores.json"
BEST, LAST = modelfile.RUN_FILES
FILES = (CONFIG, METRICS, CHECKPOINT, SCORES, BEST, LAST)
KEPT, RECENT = "epoch-*.safetensors", "step-*.safetensors"
EVENTS = "events.out.tfevents.*"  # TensorBoard's
SOUNDS = "audio/*/*.wav"


def is_run(folder: str | Path) -> bool:
    """Whether `folder` holds a training run."""
    return (Path(folder) / METRICS).exists()


def is_begun(folder: str | Path) -> bool:
    """Whether `folder` holds a training run that can be resumed."""
    return is_run(folder) and (Path(folder) / CHECKPOINT).exists()


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise SepcliError when the folder holds what should not be replaced."""
    if (folder / CONFIG).exists() and not is_run(folder):
        raise SepcliError(
            f"{folder}: holds a {CONFIG} that would be replaced; choose another folder with -o"
        )
    if is_run(folder) and not overwrite:
        raise SepcliError(
            f"{folder}: holds a training run; add --resume to continue it, or --overwrite to "
            "replace it"
        )


def clear(folder: Path) -> None:
    """Make the folder, without the files of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    globbed = (path for glob in (EVENTS, KEPT, RECENT, SOUNDS) for path in folder.glob(glob))
    for path in (*(folder / name for name in FILES), *globbed):
        path.unlink(missing_ok=True)


def trim(path: Path, state: Any) -> None:
    """Drop the log lines after the checkpoint: they are about to be written again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    files.save(path, "".join(line for line in lines if _is_before(line, state)))


def _is_before(line, state):
    try:
        record = json.loads(line)
    except ValueError:  # the line that was being written when the process was killed
        return False
    return record["step"] <= (state.validated if record["event"] == "valid" else state.step)
