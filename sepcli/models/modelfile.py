"""Model files: weights, configuration and card in one .safetensors, complete or absent.

The metadata has one key, `sepcli`, whose value is the JSON object {"format", "model", "settings",
"card"}: the name in `sepcli.models.MODELS`, its constructor's keywords, and what the model was
trained on, its scores and licence.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights import bags, formats, openunmix, published
from sepcli.models.weights.cache import digest

if TYPE_CHECKING:
    import torch

    from sepcli.nn.model import Model

FORMAT = 1
SHIPPED = Path(__file__).parent.parent / "pretrained"
RUN_FILES = (
    "best.safetensors",
    "last.safetensors",
)  # what a training run's folder offers, in order
METRICS = "metrics.jsonl"  # its log


@dataclass(frozen=True)
class Card:
    """What a model file says of itself, without its weights."""

    path: Path
    model: str
    settings: dict
    card: dict
    parts: tuple[Path, ...] = ()  # where the weights are in several files

    @property
    def files(self) -> list[Path]:
        """The files of the weights."""
        return list(self.parts) or [self.path]

    @property
    def sha256(self) -> str:
        """The digest of the files, 64 hexadecimal digits."""
        return digest(*self.files)

    @property
    def licence(self) -> str:
        """Of the weights, as far as it is known."""
        return self.card.get("licence") or published.licence_of(self.path) or "not stated"

    @property
    def quantized(self) -> dict[str, Any] | None:
        """For what target and how the model was quantised, {"target": ...}; None if it was not."""
        return self.card.get("quantized")

    @property
    def consistent(self) -> bool:
        """Whether the model was trained with what the estimates lack of the mixture shared out."""
        return bool(self.card.get("train", {}).get("mixture_consistency"))


def shipped() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def locate(name: str | Path) -> Path:
    """The file of a shipped model's name, a model file, or a training run's folder.

    Checkpoints of Open-Unmix are themselves: a file, or a folder of them, such as that of weights
    which `sepcli download` brought. A folder with a bag of Demucs is that bag.

    Raises SepcliError naming the shipped models when there is none.
    """
    path = Path(name)
    if os.path.isdir(path):
        for candidate in RUN_FILES:
            if os.path.isfile(path / candidate):
                return path / candidate
        if openunmix.is_checkpoint(path):
            return path
        if found := bags.in_folder(path):
            return found
        raise SepcliError(
            f"{name}: a folder without {' or '.join(RUN_FILES)}; name a model file, or the folder "
            "of a training run, of Open-Unmix (vocals.pth, ...) or of Demucs (BAG.yaml)"
        )
    if os.path.isfile(path):
        return path
    if name in shipped():
        return SHIPPED / f"{name}.safetensors"
    if name in published.PUBLISHED:
        return published.downloaded(str(name))
    known = ", ".join(shipped()) or "none"
    raise SepcliError(
        f"no model {str(name)!r}: neither a file nor one of the models that come with sepcli "
        f"({known}); choose one with -m"
    )


def weights_of(path: Path) -> list[Path]:
    """The files of the weights of a model as `Card.files` names them; needs no torch.

    None of weights of other people, but for those of Open-Unmix.
    """
    kind = formats.format_of(path)
    if kind == formats.OPEN_UNMIX:
        return openunmix.checkpoints(path)
    return [path] if kind is None and os.path.isfile(path) else []


def save(
    path: str | Path,
    model: str,
    settings: dict[str, Any],
    weights: dict[str, torch.Tensor],
    card: dict[str, Any],
) -> None:
    """Write the model file `path`: `weights` is a state dict, `card` what to say of it (JSON)."""
    from safetensors.torch import save as encode

    about = {"format": FORMAT, "model": model, "settings": settings, "card": card}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    files.save(path, encode(weights, metadata={"sepcli": json.dumps(about, sort_keys=True)}))


def read_card(name: str | Path) -> Card:
    """What the model file `name` (see `locate`) says of itself; needs no torch.

    Weights of other people, which do need it, say nothing but their settings.
    """
    path = locate(name)
    if os.path.isfile(path):
        files.check_meant(path)
    kind = formats.format_of(path)
    if kind == formats.OPEN_UNMIX:
        settings = openunmix.read(path)[0]
        return Card(path, kind, settings, {}, tuple(openunmix.checkpoints(path)))
    if kind:
        return _foreign(path, kind)[1]
    try:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # the library's own error type and several of Python's
        raise SepcliError(
            f"{path}: not a model file ({' '.join(str(error).split())}); expected .safetensors"
        ) from None
    try:
        about = json.loads(metadata["sepcli"])
        known, about = about["format"], Card(path, about["model"], about["settings"], about["card"])
        _check_kinds(about)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise SepcliError(
            f"{path}: weights without sepcli's metadata; only files that sepcli wrote can be run, "
            "and those of other programs that have their settings in them or in a YAML file"
        ) from None
    if known != FORMAT:
        raise SepcliError(f"{path}: model format {known}, but this version reads {FORMAT}; update")
    return about


def _check_kinds(about):
    """Raise TypeError unless what a card says is of the kind that it should be."""
    train, quantized = about.card.get("train", {}), about.card.get("quantized")
    told = {str: [about.model, about.card.get("licence") or ""], dict: [about.settings, train]}
    told[dict] += [quantized] if quantized is not None else []
    if not all(isinstance(value, kind) for kind, values in told.items() for value in values):
        raise TypeError("of another kind")
    if quantized is not None and not isinstance(quantized["target"], str):
        raise TypeError("no target")


def load_model(name: str | Path, device: str | torch.device = "cpu") -> tuple[Model, Card]:
    """Build the model of the file `name` (see `locate`), in eval mode; return it and its card."""
    path = locate(name)
    kind = formats.format_of(path)
    if kind and kind != formats.OPEN_UNMIX:
        files.check_meant(path)
        model, card = _foreign(path, kind)
    else:
        card = read_card(path)
        model = _built(card)
    return model.to(device).eval(), card


def _built(card):
    """The model of a card, with its weights."""
    from safetensors.torch import load_file

    from sepcli.models import NONSENSE, build
    from sepcli.models.weights import budget

    try:
        weights = None
        if openunmix.is_checkpoint(card.path):
            weights = openunmix.read(card.path)[1]
            size = sum(tensor.numel() for tensor in weights.values()), len(weights)
        else:
            size = budget.size_of(card.path)
        budget.check_settings(card.settings)
        with budget.at_most(*size):
            model = build(card.model, **card.settings)
        if card.quantized:
            from sepcli.quant.targets import target_module

            model = target_module(card.quantized["target"]).prepare(model)
        model.load_state_dict(load_file(card.path) if weights is None else weights)
        model.consistent = card.consistent
    except NONSENSE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SepcliError(
            f"{card.path}: the weights do not fit their configuration ({reason}); "
            "the file is damaged or from another version"
        ) from None
    return model


def _foreign(path, kind):
    """The model and the card of weights of other people."""
    from sepcli.models.weights import demucs, msst
    from sepcli.nn.model import checked

    load = {formats.MSST: msst.load, formats.DEMUCS: demucs.load}[kind]
    model, settings, parts = load(path)
    return checked(model), Card(path, kind, settings, {}, parts)
