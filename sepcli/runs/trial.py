"""A training that is tried out: two steps, nothing written, and what all of it would take."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from sepcli.runs.runs import Run
from sepcli.training.loop import fit


def dry_run(config: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Two steps and a batch of validation, nothing written; what would be trained, for JSON.

    config: resolved. options: Run's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _dry_run(_with_folders_in(scratch, config), options)


def _with_folders_in(scratch, config):
    """The configuration with what training keeps, such as spectrograms, kept elsewhere."""
    parts = {
        name: {**part, "folder": str(Path(scratch, name))} if "folder" in part else part
        for name, part in config["data"].items()
    }
    return {**config, "data": parts}


def _dry_run(config, options):
    run = Run("", config, **options)
    run.begin()
    settings = dataclasses.replace(run.settings, steps=2, validate_every=2, log_every=1)
    run.valid_data.items = min(run.valid_data.items, settings.batch)
    records = list(fit(run.state, run.train_data, run.valid_data, settings, device=run.device))
    # The first step is slower than the others: memory is new, and kernels are chosen.
    train = [record for record in records if record["event"] == "train"][-1]
    item, refs, *_ = run.train_data[0]
    seen = run.settings.steps * settings.batch * settings.accumulate
    return {
        "model": config["model"]["name"],
        "parameters": run.parameters,
        "sources": list(run.model.sources),
        "sample_rate": run.model.sample_rate,
        "mixture": [settings.batch, *item.shape],
        "references": [settings.batch, *refs.shape],
        "steps": run.settings.steps,
        "items": seen,
        "epochs": seen / run.train_data.items if run.train_data.items else None,
        "validation_items": config["data"]["valid"]["items"],
        "untrained_si_sdr_db": run.state.first["si_sdr_db"],
        "loss": train.get("loss"),
        "grad_norm": train.get("grad_norm"),
        "items_per_s": train["items_per_s"],
        "estimated_hours": seen / train["items_per_s"] / 3600,
    }
