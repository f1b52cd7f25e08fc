"""A training run and its folder: what is written there, when, and how it is taken up again.

config.yaml         the complete configuration, which `sepcli train` takes like any other
metrics.jsonl       one object per log line and per validation; the same for TensorBoard
audio/STEP/         what the training and the validations sound like, if that is asked for
last.ckpt           the state of the training, to resume
best.safetensors    the model with the best validation score; last.safetensors the newest
scores.json         scores on the validation set before and after training
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from sepcli import config as configuration
from sepcli import files, models
from sepcli.data import datasets
from sepcli.errors import SepcliError
from sepcli.layers.tfswa import attention_maps, has_attention
from sepcli.models import modelfile
from sepcli.nn.spectral import OfflineSpectralModel
from sepcli.runs import checkpoint, initial
from sepcli.runs.runfolder import (
    BEST,
    CHECKPOINT,
    CONFIG,
    LAST,
    METRICS,
    RECENT,
    SCORES,
    check_free,
    clear,
    is_run,
    trim,
)
from sepcli.runs.runlog import RunLog, plain
from sepcli.training import sharding, statistics
from sepcli.training.checks import check_fit, check_ranks
from sepcli.training.loop import DataError, State, fit
from sepcli.training.ranks import ALONE, Ranks
from sepcli.training.settings import Settings
from sepcli.training.teaching import Teacher

# What changes no weight that is still to come, and what may grow: it only makes a run longer.
FREE_ON_RESUME = (
    "workers", "log_every", "save_minutes", "keep_epochs", "keep_every", "keep_last", "stop_after",
    "init", "parallel", "wandb", "audio_every", "audio_files",
)  # fmt: skip
LENGTHS = ("steps", "epochs")
MOST_WARNINGS = 20  # of unreadable recordings, which are counted besides
VALIDATION_SEED = 1_000_000  # of data.valid: the same items whatever the seed of the run


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration and fill in every default.

    Raises SepcliError for an unknown or missing section, key, model, loss or kind of data.
    """
    sections = configuration.check_keys(lambda *, model, data, train=None: None, config)
    train = configuration.check_keys(Settings, sections.get("train") or {}, section="train")
    train = dataclasses.asdict(Settings(**train))
    data = configuration.check_keys(
        lambda *, train, valid: None, sections["data"] or {}, section="data"
    )
    kept_out = {"items": 100, "seed": VALIDATION_SEED}
    return {
        "model": models.resolve(sections["model"]),
        "data": {
            "train": datasets.resolve(
                data["train"], section="data.train", items=0, seed=train["seed"]
            ),
            "valid": datasets.resolve(data["valid"], section="data.valid", **kept_out),
        },
        "train": train,
    }


def overfit(config: dict[str, Any], items: int) -> dict[str, dict[str, Any]]:
    """The resolved configuration changed to learn `items` items by heart and be scored on them."""
    train = config["data"]["train"] | {"items": items}
    return config | {"data": {"train": train, "valid": dict(train)}}


class Run:
    """A model, its data and its training state; `records` trains and keeps the folder.

    config: resolved. command: how it was asked for, for scores.json. ranks: the processes that
    train it; only the first writes files.
    """

    def __init__(
        self,
        folder: str | Path,
        config: dict[str, Any],
        *,
        device: str | torch.device = "cpu",
        command: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        self.folder, self.config = Path(folder), config
        self.device, self.command, self.ranks = device, command, ranks
        self.settings = Settings(**config["train"]).for_items(config["data"]["train"]["items"])
        torch.manual_seed(self.settings.seed)
        self.model = self._make_model().to(device)
        self.train_data, self.valid_data = (
            self._build(name, config["data"][name]) for name in ("train", "valid")
        )
        check_fit(self.model, self.train_data, self.valid_data, self.settings)
        check_ranks(self.model, self.settings, ranks)
        self.state = State(self.model, self.settings, ranks, self._teacher())
        self._warned = 0  # of unreadable recordings
        self.is_fresh = True  # whether nothing has given the model weights yet
        self.initial = ""  # what did, for people

    def _make_model(self):
        return _build_model(self.config["model"])

    def _teacher(self):
        if not (name := self.settings.teacher):
            return None
        return Teacher(modelfile.load_model(name, self.device)[0], self.model, name)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def records(self) -> Iterator[Any]:
        """Train; yields `fit`'s records after they are logged and what they ask for is saved.

        Recordings that cannot be read any more are warnings, and counted as "unreadable". Where
        others cannot take their place the run is saved, and a SepcliError raised. Whoever stops
        early calls `save` first.
        """
        if self.is_fresh:
            self._measure()
        data = self.train_data, self.valid_data
        for each in data:
            each.spare()
        fitted = fit(self.state, *data, self.settings, device=self.device)
        about = {"sample_rate": self.model.sample_rate, "settings": self.settings}
        open_log = RunLog(self.folder, step=self.state.step, **about)
        with open_log if self.ranks.first else nullcontext() as log:
            try:
                yield from self._kept(chain.from_iterable(map(self._with_warnings, fitted)), log)
            except DataError as error:
                self.save()
                raise SepcliError(
                    f"{error}; saved at step {self.state.step}; resume with --resume"
                ) from None

    def _kept(self, records, log):
        """The records, after they are logged and what they ask for is saved."""
        saved = time.monotonic()
        for record in records:
            if log is not None:
                if record["event"] == "train":
                    record["pictures"] = self._attention()
                log.write(record)
            if epoch := self._epoch_to_keep(record):
                self._save_model(f"epoch-{epoch}.safetensors")
            if record["event"] == "valid":
                if record["best"]:
                    self._save_model(BEST)
                self._keep_last(record["step"])
                if self.ranks.first:
                    scores = json.dumps(plain(self.scores()), indent=1) + "\n"
                    files.save(self.folder / SCORES, scores)
            long_ago = time.monotonic() - saved > 60 * self.settings.save_minutes
            if record["event"] == "valid" or (
                record["event"] == "step" and self.ranks.any(long_ago)
            ):
                self.save()
                saved = time.monotonic()
            yield record

    def _epoch_to_keep(self, record):
        """The epoch that ends with this record, behind its validation if there is one, or 0."""
        if record["event"] not in ("step", "valid"):
            return 0
        last = "valid" if self.settings.validates(record["step"]) else "step"
        return self.settings.keeps(record["step"]) if record["event"] == last else 0

    def _keep_last(self, step):
        """Keep the model of this step and of as many before it as `keep_last` says, no others."""
        count = self.settings.keep_last
        if count:
            self._save_model(RECENT.replace("*", f"{step:08d}"))
            for path in sorted(self.folder.glob(RECENT))[:-count] if self.ranks.first else ():
                path.unlink()

    def _attention(self):
        """Attention maps of the model for a mixture that validates, {name: (L, L)}."""
        if not has_attention(self.model) or self.state.sharded:
            return {}
        return attention_maps(self.model, self.valid_data[0][0][None].to(self.device))

    def _with_warnings(self, record):
        """The record, behind warnings of new unreadable recordings and with the count of all."""
        found = {**self.train_data.faults, **self.valid_data.faults}
        for reason in list(found.values())[self._warned : MOST_WARNINGS]:
            message = f"{reason}; other recordings are drawn instead"
            yield {"event": "warning", "message": message}
        self._warned = len(found)
        if found and record["event"] == "train":
            record["unreadable"] = len(found)
        yield record

    def begin(self) -> None:
        """Take over the weights of `train.init`, where that is set."""
        if name := self.settings.init:
            count, new = initial.take_over(name, [self.model, self.state.kept])
            self.is_fresh, self.initial = bool(new), initial.told(name, count, new)

    def _measure(self):
        """Give a model that wants them the statistics of its input, without augmentations."""
        if self.model.measures:
            section = self.config["data"]["train"]
            data = self._build(
                "train", {k: () if k == "augment" else v for k, v in section.items()}
            )
            moments = statistics.of_magnitudes(self.model, data, self.device)
            for model in {self.model, self.state.kept}:
                model.set_statistics(*moments)

    def _build(self, name, section):
        """The data set `name` of a section of the configuration."""
        return datasets.build(
            section,
            section=f"data.{name}",
            sample_rate=self.model.sample_rate,
            sources=self.model.sources,
            enroll=self.model.conditioned,
            stft=_transform(self.model) if name == "train" else None,  # validation is of sound
        )

    def save(self) -> None:
        """Write the state of the training and the newest model."""
        self._save_model(LAST)
        state = self.state.state_dict()
        if self.ranks.first:
            checkpoint.save(self.folder / CHECKPOINT, state)

    def scores(self) -> dict[str, Any]:
        """Validation scores of the best model, and what training changed; {name: value}."""
        first, best = self.state.first, self.state.best or self.state.last
        return {
            **best,
            "statistic": "mean over items and sources",
            "untrained_si_sdr_db": first["si_sdr_db"],
            "improvement_db": best["si_sdr_db"] - first["si_sdr_db"],
            "untrained_loss": first["loss"],
            "loss_drop": first["loss"] - best["loss"],
            **self._effort(),
            "parameters": self.parameters,
            "command": self.command,
        }

    def _effort(self):
        items = self.state.step * self.settings.batch * self.settings.accumulate
        return {
            "steps": self.state.step,
            "items_seen": items,
            "minutes": round(self.state.seconds / 60, 2),
        }

    def _save_model(self, name):
        settings = {key: value for key, value in self.config["model"].items() if key != "name"}
        weights = sharding.whole(self._weights(self.state.kept))
        if self.ranks.first:
            modelfile.save(
                self.folder / name, self.config["model"]["name"], settings, weights, self._card()
            )

    def _weights(self, model):
        return model.state_dict()

    def _card(self):
        return {
            "scores": plain(self.state.last or {}),
            **self._effort(),
            "data": self.config["data"],
            "train": self.config["train"],
            "sepcli": version("sepcli"),
        }


def start(
    config: dict[str, Any],
    folder: str | Path,
    *,
    overwrite: bool = False,
    kind: Callable[..., Run] = Run,
    **options: Any,
) -> Run:
    """A new run of the resolved `config` in `folder`; `options` are those of its `kind`.

    Raises SepcliError when the folder holds a run and `overwrite` is not set, or a configuration
    that is not a run's. Only the files of that run are replaced.
    """
    folder = Path(folder)
    first = options.get("ranks", ALONE).first
    if first:
        check_free(folder, overwrite)
    run = kind(folder, config, **options)  # what cannot start should not remove anything
    run.begin()
    if first:
        with files.explained(folder):
            clear(folder)
            files.save(folder / METRICS, "")  # first, because it is what marks a run
            files.save(folder / CONFIG, configuration.dump(config))
    options.get("ranks", ALONE).wait()
    return run


def resume(
    config: dict[str, Any], folder: str | Path, *, kind: Callable[..., Run] = Run, **options: Any
) -> Run:
    """The run in `folder`, to go on from its last checkpoint; `options` are those of its `kind`.

    It may get longer: the learning rate of the steps to come is then that of the new length. Raises
    SepcliError when there is none, or the resolved `config` would train something else.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise SepcliError(f"{folder}: no training run to resume; start it without --resume")
    before = _completed(configuration.load(folder / CONFIG))
    _check_changes(folder, before, config)
    config = {**config, "train": {**config["train"], "init": before["train"]["init"]}}
    run = kind(folder, config, **options)
    run.state.load_state_dict(checkpoint.load(folder / CHECKPOINT))
    run.is_fresh = False
    run.ranks.wait()  # until all have read what the first one writes
    if run.ranks.first:
        files.save(folder / CONFIG, configuration.dump(config))
        trim(folder / METRICS, run.state)
    return run


def _completed(config):
    """A run's configuration with the defaults of settings that were not there yet."""
    sections = {key: config[key] for key in ("model", "data", "train") if key in config}
    return {**config, **resolve(sections)}


def _check_changes(folder, before, after):
    """Raise SepcliError unless a run with the configuration `before` may go on with `after`."""
    for name in LENGTHS:
        old, new = before["train"][name], after["train"][name]
        if new < old:
            raise SepcliError(
                f"{folder}: was started for {old} {name}; resume with --set train.{name}={old} (or "
                "more, for a longer training)"
            )
    free = tuple(f"train.{name}:" for name in (*FREE_ON_RESUME, *LENGTHS))
    changes = configuration.differences(before, after)
    if changes := [line for line in changes if not line.startswith(free)]:
        raise SepcliError(
            f"{folder}: was started with another configuration ({'; '.join(changes)}); "
            "put that back, or start a new run with -o"
        )


def _build_model(section):
    settings = {key: value for key, value in section.items() if key != "name"}
    try:
        return models.build(section["name"], own=True, **settings)
    except models.NONSENSE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SepcliError(f"model: {reason}") from None


def _transform(model):
    """(window, hop) of a model that can be trained on spectrograms, else None."""
    if isinstance(model, OfflineSpectralModel):
        return model.stft.size, model.stft.hop
    return None
