"""Scores of frames in the files of `museval`, which its `EvalStore` and other tools read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.scoring.evaluate import Row
from sepcli.scoring.framewise import Framing
from sepcli.version import __version__

NAMES = {"SDR": "sdr", "SIR": "sir", "SAR": "sar", "ISR": "isr"}  # in museval's order


def save(folder: str | Path, rows: Sequence[Row], framing: Framing) -> None:
    """Write `folder`/test/KEY.json for every sample among `evaluate.Row`s with all of `NAMES`.

    "test" is where `museval.EvalStore().add_eval_dir(folder)` looks. Rows without scores are left
    out. Raises SepcliError, once the others are written, for keys that are no path below a folder,
    and where nothing can be written.
    """
    tracks = {}
    for row in rows:
        if not row.error:
            tracks.setdefault(row.key, []).append(row)
    failed = None
    for key, targets in tracks.items():
        path = Path(folder, "test", f"{key}.json")
        try:
            if ".." in path.parts or Path(key).is_absolute():
                raise SepcliError(f"{key!r} cannot be the name of a file; rename the sample")
            files.save(path, json.dumps(track(targets, framing), indent=2) + "\n")
        except SepcliError as error:
            failed = failed or error
    if failed:
        raise failed


def track(rows: Sequence[Row], framing: Framing) -> dict[str, Any]:
    """What museval calls a track store: the frames of all targets of a sample, as plain data.

    As there, numbers have five decimals, and infinite ones become NaN, which is no strict JSON.
    """
    return {
        "targets": [
            {"name": row.target, "frames": list(_frames(row.frames, framing))} for row in rows
        ],
        "museval_version": f"0.4.1 (written by sepcli {__version__})",
    }


def _frames(series, framing):
    columns = [series[name] for name in NAMES.values()]
    for index, scores in enumerate(zip(*columns, strict=True)):
        yield {
            "time": index * framing.hop_s,
            "duration": framing.window_s,
            "metrics": {
                name: round(float(score), 5) if np.isfinite(score) else np.nan
                for name, score in zip(NAMES, scores, strict=True)
            },
        }
