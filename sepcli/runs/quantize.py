"""Turn a model into one that computes with whole numbers of 8 bits, and say what that costs.

What a target does for that is in `quant/targets.py`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sepcli import files, metrics
from sepcli.data import datasets
from sepcli.errors import SepcliError
from sepcli.graphs import qdq
from sepcli.inference.stream import separate
from sepcli.models import modelfile
from sepcli.nn.runner import TorchRunner
from sepcli.quant.convolution import packed
from sepcli.quant.grids import set_phase
from sepcli.quant.targets import LayerCost, target_module
from sepcli.runs import runs
from sepcli.samples.streams import read_samples
from sepcli.signals.resampling import resample

FREEZE = 0.7  # of the steps of fine-tuning are done when ranges stop moving
MADE_UP = {"kind": "mixtures", "duration_s": 4.0}
LIKE_THE_FLOAT_MODEL = ("batch", "accumulate", "loss", "mixture_consistency", "clip")

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Choices:
    """How to quantise.

    mode: `ptq`, from calibration alone, or `qat`, fine-tuned afterwards as the run `folder`, which
    `resume` goes on with and `overwrite` replaces.
    config: sections `data` and `train` as in a training configuration. Without data, those that the
    model was trained on if they need no files, else mixtures of synthetic speech and noise.
    calib: samples or sound files to calibrate with instead of training data. calib_minutes: of
    sound, at most. items: of data.valid that are scored.
    max_drop_db: how much SI-SDR may be lost. budget: bytes of weights, None for any number.
    """

    target: str = "cpu"
    mode: str = "ptq"
    config: dict | None = None
    calib: str | None = None
    calib_minutes: float = 10.0
    items: int = 20
    max_drop_db: float = 0.5
    budget: int | None = None
    folder: str | None = None
    resume: bool = False
    overwrite: bool = False
    more: bool = True
    command: str = ""


def quantize(
    name: str | Path, output: str | Path, choices: Choices, *, tell: Tell = lambda record: None
) -> dict[str, Any]:
    """Quantise the model `name` (see `modelfile.locate`) into the model file `output`.

    tell: gets records of what is being done, {"event": ...}, and those of `train.fit`.
    Returns the report, a dict. Raises SepcliError, and writes no model, when the target cannot run
    it, when it loses more than `max_drop_db`, or when it exceeds the budget.
    """
    module = target_module(choices.target)
    model, card = modelfile.load_model(name)
    if card.quantized:
        raise SepcliError(f"{name}: quantised already; start from the model that it was made from")
    config = resolve(card, choices)
    train_data, valid_data = (
        datasets.build(
            config["data"][part],
            section=f"data.{part}",
            sample_rate=model.sample_rate,
            sources=model.sources,
        )
        for part in ("train", "valid")
    )
    twin = module.prepare(model)
    tell({"event": "calibrating"})
    for part, data in (("train", train_data), ("valid", valid_data)):
        data.check(f"data.{part}")
    signals = heard(choices.calib, model, tell) if choices.calib else drawn(train_data, config)
    about = {
        "target": choices.target,
        "mode": choices.mode,
        "parent": card.path.name,
        "parent_sha256": card.sha256,
        "calibration_minutes": round(calibrate(twin, signals, choices.calib_minutes), 2),
    }
    if choices.mode == "qat":
        twin = fine_tune(twin, card, config, about, choices, tell)
        about["steps"] = config["train"]["steps"]
    set_phase(twin.eval(), "frozen")
    runners = {
        "float": TorchRunner(model),
        "fake_quantised": TorchRunner(twin),
        "integer": module.integer(twin),
    }
    about["scores"] = compare(runners, valid_data, choices.items, tell)
    report = describe(module.layers(twin), about, choices)
    check(report, name)
    return {"model": card.model, **report, **save(module, twin, card, about, output, choices)}


def describe(rows: list[LayerCost], about: dict[str, Any], choices: Choices) -> dict[str, Any]:
    """The report on a twin: its `LayerCost`s, what they add up to, and the limits."""
    scores = about["scores"]
    return {
        **about,
        "si_sdr_drop_db": scores["float"]["si_sdr_db"] - scores["integer"]["si_sdr_db"],
        "max_drop_db": choices.max_drop_db,
        "weight_bytes": sum(row.weight_bytes for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
        "budget": choices.budget,
        "layers": [asdict(row) for row in rows],
    }


def save(
    module: Any,
    twin: Any,
    card: modelfile.Card,
    about: dict[str, Any],
    output: str | Path,
    choices: Choices,
) -> dict[str, Any]:
    """Write the model file of a twin, and what belongs beside it; returns what there is to say."""
    kept = {key: value for key, value in card.card.items() if key != "scores"}
    weights = packed(twin)
    modelfile.save(output, card.model, card.settings, weights, {**kept, "quantized": about})
    saved = modelfile.read_card(output)
    more = {}
    if choices.more and module.QDQ:
        more["onnx"] = qdq.write(twin, saved, files.companion(saved.path, ".onnx"))
    return {"file": str(output), "bytes": saved.path.stat().st_size, **more}


def resolve(card: modelfile.Card, choices: Choices) -> dict[str, Any]:
    """The complete configuration of data and training for the model of a card."""
    config = choices.config or {}
    known = card.card.get("train", {})
    train = {key: known[key] for key in LIKE_THE_FLOAT_MODEL if key in known}
    train |= {"lr": 1e-4, "warmup": 100, "save_minutes": 2.0, **(config.get("train") or {})}
    if train.get("ema"):
        raise SepcliError("train.ema: the ranges of tensors are not averaged; leave it out")
    made_up = {"train": MADE_UP, "valid": {**MADE_UP, "items": choices.items}}
    own = card.card.get("data") or {}
    own = own if own and all(map(_needs_no_files, own.values())) else made_up
    model = {"name": card.model, **card.settings}
    rest = {key: value for key, value in config.items() if key not in ("data", "train")}
    return runs.resolve({**rest, "model": model, "data": config.get("data") or own, "train": train})


def _needs_no_files(section):
    files = any(map(section.get, ("speech", "noise", "rir")))
    return section.get("kind") in ("toy", "mixtures") and not files


def heard(source: str, model: Any, tell: Tell = lambda record: None) -> Iterator[np.ndarray]:
    """Yield the mixtures (C, T) of samples, or sound files, at the model's rate.

    tell: gets a "warning" of each that cannot be read, which is left out.
    """
    for sample in read_samples(source):
        try:
            audio = resample(sample.audio("mix"), sample.sample_rate, model.sample_rate)
        except SepcliError as error:
            tell({"event": "warning", "message": f"{error}; left out of the calibration"})
            continue
        yield audio.reshape(-1, model.channels, audio.shape[1])


def drawn(data: Any, config: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yield the mixtures (B, C, T) of training data, without end."""
    seed = config["train"]["seed"]
    for mix, *_ in datasets.batches(data, 1, seed=seed):
        yield mix.numpy()


def calibrate(twin: Any, signals: Iterable[np.ndarray], minutes: float) -> float:
    """Let the twin's ranges see signals (B, C, T) until `minutes` of sound passed; how many did.

    Raises SepcliError when there was none.
    """
    set_phase(twin.train(), "observe")
    samples, wanted = 0, minutes * 60 * twin.sample_rate
    with torch.no_grad():
        for signal in signals:
            signal = signal[..., : max(1, math.ceil((wanted - samples) / len(signal)))]
            if signal.size and np.isfinite(signal).all():
                twin(torch.from_numpy(np.ascontiguousarray(signal, np.float32)))
                samples += signal.shape[-1] * len(signal)
            if samples >= wanted:
                break
    set_phase(twin.eval(), "frozen")
    if not samples:
        raise SepcliError("nothing to calibrate with: name samples or sound files that have sound")
    return samples / 60 / twin.sample_rate


def fine_tune(
    twin: Any,
    card: modelfile.Card,
    config: dict[str, Any],
    about: dict[str, Any],
    choices: Choices,
    tell: Tell,
) -> Any:
    """Train the twin as the run `choices.folder`; returns the best one."""
    folder = Path(str(choices.folder))
    kind = functools.partial(QatRun, twin=twin, parent=card, about=about)
    config = {**config, "quantize": about}
    if choices.resume:
        run = runs.resume(config, folder, kind=kind, command=choices.command)
    else:
        run = runs.start(
            config, folder, kind=kind, overwrite=choices.overwrite, command=choices.command
        )
    for record in run.records():
        tell(record)
    return modelfile.load_model(folder)[0]


class QatRun(runs.Run):
    """A training run of a fake-quantised twin: ranges move first, and are frozen in the end."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        twin: Any,
        parent: modelfile.Card,
        about: dict[str, Any],
        **options: Any,
    ) -> None:
        self._twin, self._parent, self._about = twin, parent, about
        super().__init__(folder, config, **options)

    def _make_model(self):
        return self._twin

    def begin(self) -> None:
        """The twin has the weights of the model that it was made from."""

    def records(self) -> Iterator[dict[str, Any]]:
        self._set_phase()
        for record in super().records():
            self._set_phase()
            yield record

    def _set_phase(self):
        """The phase of the next step depends on its number alone, so that runs can be resumed."""
        frozen = self.state.step >= FREEZE * self.settings.steps
        set_phase(self.model, "frozen" if frozen else "adapt")

    def _weights(self, model):
        return packed(model)

    def _card(self):
        return {**self._parent.card, **super()._card(), "quantized": self._about}


def compare(
    runners: dict[str, Any], data: Any, items: int, tell: Tell
) -> dict[str, dict[str, float]]:
    """Mean scores {runner: {name: number}} on the first items of `data`.

    Raises SepcliError when the integers do not give the very bits of the fake-quantised model.
    """
    names = {"si-sdr": data.sources}
    if metrics.is_installed("pesq") and "speech" in data.sources:
        names["pesq"] = ("speech",)
    functions = {name: metrics.load(name) for name in names}
    values = {kind: {name: [] for name in names} for kind in runners}
    for i in range(min(items, data.items)):
        item = data[i]
        mix, refs = (x.numpy() for x in item)  # (C, T), (S, C, T)
        outputs = {kind: separate(runner, mix) for kind, runner in runners.items()}
        if not np.array_equal(outputs["integer"], outputs["fake_quantised"]):
            raise SepcliError(
                f"data.valid, item {i}: the integer and the fake-quantised model differ, which is "
                "a fault of sepcli; report it with the configuration"
            )
        for kind, estimates in outputs.items():
            for name, sources in names.items():
                for source in sources:
                    s = data.sources.index(source)
                    value = functions[name](estimates[s], refs[s], runners[kind].sample_rate)
                    values[kind][name].append(value)
        tell({"event": "scoring", "done": i + 1, "items": min(items, data.items)})
    return {
        kind: {metrics.key(name): float(np.nanmean(series)) for name, series in scores.items()}
        for kind, scores in values.items()
    }


def check(report: dict[str, Any], name: str | Path) -> None:
    """Raise SepcliError when a report misses one of its limits."""
    drop, size = report["si_sdr_drop_db"], report["weight_bytes"]
    if not drop <= report["max_drop_db"]:
        raise SepcliError(
            f"{name}: loses {drop:.2f} dB SI-SDR in {report['target']} integers, more than "
            f"--max-drop {report['max_drop_db']:g}; fine-tune with --mode qat, or for more --steps"
        )
    if report["budget"] is not None and size > report["budget"]:
        largest = max(report["layers"], key=lambda row: row["weight_bytes"])
        raise SepcliError(
            f"{name}: {size:,} bytes of weights, more than the budget of {report['budget']:,}; "
            f"the largest layer is {largest['name']} with {largest['weight_bytes']:,}"
        )
