"""What is killed: commands that write, how they go on, and what has to be there in the end."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.separators import NAME, SETTINGS

OF_ONE_START = "events.out.tfevents."  # a log of TensorBoard, one for every start of a run
TRAINING = """
model: {name: conv_tasnet, sources: [modulated, sines], filters: 8, kernel: 20, bottleneck: 4,
        hidden: 4, skip: 4, blocks: 2, repeats: 1}
data:
  train: {kind: toy, items: 10, duration_s: 0.05}
  valid: {kind: toy, items: 3, duration_s: 0.05}
train: {steps: 6, batch: 2, warmup: 2, log_every: 1, validate_every: 2, ema: 0.9}
"""


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    first: its arguments. again: those of what goes on. whole: whether a file that is there has to
    be complete; one of a training changes until it ends.
    """

    first: tuple[str, ...]
    again: tuple[str, ...]
    whole: bool = True


def _with(*args: str, first: tuple[str, ...] = (), again: tuple[str, ...] = ()) -> Scenario:
    return Scenario((*args, *first), (*args, *again))


ONE = ("--threads", "1", "-q")
SKIP, REPLACE, GO_ON = ("--skip-existing",), ("--overwrite",), ("--resume",)
EXTRACT = ("extract", "in/mixed", "--ref", "in/ref.wav", "-m", "in/voice.safetensors", "--residual")
QUANTIZE = ("quantize", "in/tiny.safetensors", "--items", "1", "--calib-minutes", "0.01", "-q")
SEPARATE = ("separate", "-m", "in/tiny.safetensors", "-o", "out", *ONE)
EVAL = ("eval", "in/est", "in/ref", "--metrics", "si-sdr", "-q")
MIX = ("mix", "-n", "8", "--duration", "0.1", "-q")
SCENARIOS = {
    "separate": _with(
        "separate", "in/mixed", "-m", "in/tiny.safetensors", "-o", "out", *ONE, again=SKIP
    ),
    "separate samples": _with(
        "separate", "in/samples.tar", "-m", "in/tiny.safetensors", "-o", "out", *ONE, again=SKIP
    ),
    "separate on a cluster": _with(
        "separate",
        "in/mixed",
        "-m",
        "in/tiny.safetensors",
        "-o",
        "out",
        *ONE,
        "--cluster",
        "local",
        "-j",
        "2",
        again=SKIP,
    ),
    "extract": _with(*EXTRACT, "-o", "out", *ONE, again=SKIP),
    "eval": _with(
        "eval",
        "in/est",
        "in/ref",
        "--metrics",
        "si-sdr",
        "-o",
        "scores.json",
        "--html",
        "a.html",
        "-q",
    ),
    "pack": _with("pack", "--speech", "in/mixed", "-o", "out.h5", "-q", again=GO_ON),
    "mix": _with("mix", "-n", "8", "--duration", "0.1", "-o", "out", "-q", again=SKIP),
    "mix to a tar": _with(
        "mix", "-n", "8", "--duration", "0.1", "-o", "out.tar", "-q", again=REPLACE
    ),
    "quantize": _with(*QUANTIZE, "-o", "q.safetensors", again=REPLACE),
    "train": Scenario(
        ("train", "in/tiny.yaml", "-o", "run", *ONE),
        ("train", "in/tiny.yaml", "-o", "run", *ONE, "--resume"),
        whole=False,
    ),
}


def prepare(folder: Path) -> None:
    """Make the inputs of all scenarios in `folder`."""
    import torch

    from sepcli.models import build, modelfile
    from tests.models import SPEAKER, randomise
    from tests.samples import make_sample, to_tar

    for name, (model, settings) in {
        "tiny": (NAME, SETTINGS),
        "voice": ("speaker_lstm", SPEAKER),
    }.items():
        torch.manual_seed(0)
        net = randomise(build(model, **settings))
        modelfile.save(folder / f"{name}.safetensors", model, settings, net.state_dict(), {})
    rng = np.random.default_rng(0)
    for kind in ("mixed", "est", "ref"):
        (folder / kind).mkdir()
        for number in range(6):
            noise = 0.1 * rng.standard_normal(4000)
            soundfile.write(folder / kind / f"{number}.wav", noise, 8000, "FLOAT")
    soundfile.write(folder / "ref.wav", 0.1 * rng.standard_normal(8000), 8000, "FLOAT")
    (folder / "samples.tar").write_bytes(to_tar(make_sample(n, frames=1600) for n in range(6)))
    (folder / "tiny.yaml").write_text(TRAINING)


def tree(folder: Path) -> dict[str, object]:
    """{path: content} of all that a command left, but for what depends on the clock."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(place, name) != folder / "in"]
        for name in names:
            path = Path(place, name)
            if not name.startswith(OF_ONE_START):
                found[str(path.relative_to(folder))] = content(path)
    return found


def content(path: Path) -> object:
    """What must be the same: bytes, or what they mean where times or commands are among them."""
    if path.name in ("metrics.jsonl", "scores.json"):
        lines = map(json.loads, path.read_text().splitlines()) if path.suffix == ".jsonl" else []
        return [plain(line) for line in lines] or plain(json.loads(path.read_text()))
    if path.suffix == ".ckpt":
        import torch

        return plain(torch.load(path, weights_only=True))
    if path.suffix == ".safetensors":
        from sepcli.models import modelfile

        model, card = modelfile.load_model(path)
        return plain([card.model, card.settings, card.card, model.state_dict()])
    return path.read_bytes()


CHANGING = ("minutes", "items_per_s", "command", "seconds", "rtf", "speed", "ms", "wall", "hours")


def plain(value: object) -> object:
    """A tree without what is measured by a clock, and with tensors as bytes."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not str(k).endswith(CHANGING)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.detach().numpy().tobytes() if hasattr(value, "detach") else value
