"""Write the folder that Analog Devices' tools and a microcontroller take, whole or not at all."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sepcli.dsp import level
from sepcli.errors import SepcliError
from sepcli.files import explained, honest, replacing
from sepcli.max78000 import files
from sepcli.max78000.host import Host
from sepcli.max78000.lint import lint
from sepcli.max78000.plan import Plan, plan
from sepcli.max78000.report import markdown, report
from sepcli.mixing import synthetic
from sepcli.models.modelfile import load_model
from sepcli.quant import chip
from sepcli.quant.max78000 import NAME

RUN_MS = 20.0  # of audio per run, unless the number of frames is given
FILES = (
    "network.yaml", "checkpoint.pth.tar", "sample_input.npy", "expected_output.npy",
    "host.h", "host.c", "report.json", "report.md",
)  # fmt: skip


def export(name: str, folder: str | Path, *, frames: int | None = None) -> dict[str, Any]:
    """Export the model `name` (see `modelfile.locate`) into a new `folder`; return the report.

    frames: of output per run of the chip; as many as 20 ms have if None. An older export in
    `folder` is replaced. Raises SepcliError, before anything is written, when the model is not
    made for the chip, not quantised, or does not fit: with the layer and the number.
    """
    model, card = load_model(name)
    package, about = build(model, name=name, frames=frames)
    about |= {"model": card.path.stem, "sha256": card.sha256}
    package.texts["report.json"] = json.dumps(about, indent=1) + "\n"
    package.texts["report.md"] = markdown(about)
    write(package, folder)
    return about


class Package:
    """What the files of an export hold; raises SepcliError when the lint finds anything.

    made: a `Plan`. texts: {file: text}; checkpoint: a dict; sample, expected: int64, (C, T) and
    (C', frames).
    """

    def __init__(self, made: Plan, sample: Any) -> None:
        config = files.config(made)
        self.texts = {"network.yaml": files.yaml(config)}
        self.checkpoint = files.checkpoint(made.network)
        self.sample = np.asarray(sample, np.int64)
        refuse(lint(config, self.checkpoint, self.sample))
        self.expected = chip.run(made.network, self.sample).astype(np.int64)


def build(model: Any, *, name: str, frames: int | None = None) -> tuple[Package, dict[str, Any]]:
    """The `Package` of a quantised `TcnMax78000`, and its report; for errors see `export`."""
    try:
        return _build(model, name, frames)
    except (SepcliError, ValueError) as error:  # ValueError: a shift that the chip does not have
        raise SepcliError(f"{name}: {error}") from None


def _build(model, name, frames):
    if model.chip != NAME:
        raise SepcliError(
            f"not made for the chip, as tcn_max78000 is; `sepcli export-max78000 {name} --check` "
            "lists what prevents it"
        )
    if not model.quantised:
        raise SepcliError(f"not quantised; do that first: sepcli quantize {name} --target max78000")
    if frames is None:
        frames = max(1, round(RUN_MS / 1000 * model.sample_rate / model.hop))
    made = plan(model.network(), frames)
    host = Host(model, made)
    package = Package(made, sample_window(model, made))
    package.texts |= {"host.h": host.header, "host.c": host.source}
    return package, report(str(name), model, made, host)


def write(package: Package, folder: str | Path) -> None:
    """Write the files of a `Package`, read them back, and only then give them their place."""
    check_replaceable(folder)
    with replacing(folder) as part:
        part.mkdir()
        for file, text in package.texts.items():
            (part / file).write_text(text, encoding="utf-8")
        with honest(part / "checkpoint.pth.tar") as file:
            torch.save(package.checkpoint, file)
        np.save(part / "sample_input.npy", package.sample, allow_pickle=False)
        np.save(part / "expected_output.npy", package.expected, allow_pickle=False)
        refuse(problems(part))


def refuse(lines: Sequence[Any]) -> None:
    """Raise SepcliError with the first of the lines that say what is wrong, if there are any."""
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise SepcliError(f"does not fit the MAX78000: {lines[0]}{more}")


@torch.inference_mode()
def sample_window(model: Any, made: Plan) -> np.ndarray:
    """A window of features, integers (C, T), of generated speech in noise."""
    rng, length = np.random.default_rng(0), made.input.frames * model.hop
    x = synthetic.speech(length, model.sample_rate, rng, 0)
    noise = synthetic.coloured(length, model.sample_rate, rng, -3)
    x = torch.from_numpy(x + level.normalise_to_rms(noise, -35)).float()[None]  # (1, T)
    frames, _ = model.bank.analyse(x, x.new_zeros(1, model.bank.overlap))
    features = model.tcn.features(model.bank.features(frames, model.compression))
    window = (features[0] * 2.0**model.tcn.features.exponent).numpy().astype(np.int64)
    window[:, window.shape[1] - made.network.dummies :] = 0  # as the microcontroller has it
    return window


def problems(folder: str | Path) -> list[str]:
    """What is wrong with the export in `folder`, as its files are: lines of the lint, or of us.

    Raises SepcliError when they cannot be read as an export at all.
    """
    folder = Path(folder)
    try:
        config = yaml.safe_load((folder / "network.yaml").read_text(encoding="utf-8"))
        checkpoint = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
        sample = np.load(folder / "sample_input.npy", allow_pickle=False)
        expected = np.load(folder / "expected_output.npy", allow_pickle=False)
        if found := lint(config, checkpoint, sample):
            return [str(finding) for finding in found]
        got = chip.run(files.network(config, checkpoint), sample)
    except Exception as error:  # each of the libraries has types of its own, and files may be any
        reason = " ".join(str(error).split())[:100]
        raise SepcliError(f"{folder}: not an export of sepcli ({reason}); make it again") from None
    if not np.array_equal(got, expected):
        return ["expected_output.npy is not what the network computes of sample_input.npy"]
    return []


def check_replaceable(folder: str | Path) -> None:
    """Raise SepcliError when `folder` is there and holds more than an older export."""
    with explained(folder):
        if os.path.exists(folder) and not set(os.listdir(folder)) <= {*FILES}:
            raise SepcliError(f"{folder}: holds more than an export; choose another folder")
