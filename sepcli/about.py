"""What a model file, a run folder or a training configuration is, as plain data."""

from __future__ import annotations

import copy
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcli.errors import SepcliError
from sepcli.models import NONSENSE, build, known, model_class, resolve
from sepcli.models.modelfile import load_model, read_card, shipped
from sepcli.models.weights import bags

if TYPE_CHECKING:
    from sepcli.nn.model import Model

LARGE = 100_000_000  # parameters that nobody needs the numbers of before a training begins


def describe(name: str | Path) -> dict[str, Any]:
    """Describe the model `name` (see `modelfile.locate`) or the YAML configuration `name`.

    Returns a dict with units in its keys: `parameters`, `macs_per_second`, `sample_rate` (Hz),
    `sources`, `latency_ms` (algorithmic), `receptive_field_ms`, `causal`; of a model file also
    its `card`, `bytes`, `sha256` and `licence`. What is not known is left out, such as
    the work of a configuration of more than LARGE parameters. Raises SepcliError.
    """
    if Path(name).suffix in bags.YAML and not bags.is_bag(Path(name)):
        return {"config": str(name), **_model(*configured(name, most=LARGE))}
    model, card = load_model(name)
    return {
        "file": str(card.path),
        **_model(card.model, model, card.settings),
        "bytes": sum(file.stat().st_size for file in card.files),
        "sha256": card.sha256,
        "licence": card.licence,
        "card": card.card,
    }


def overview() -> tuple[dict[str, Any], dict[str, Any]]:
    """({name: facts} of the shipped models, the same of the architectures), in little time.

    Facts are a dict of `model`, `parameters`, `sample_rate`, `latency_ms` (None of what is not
    causal) and `sources`; those of an architecture with its defaults also of `about`, what it is.
    """
    models = {name: _facts(load_model(name)[0], read_card(name).model) for name in shipped()}
    architectures = {}
    for name in known():
        module = sys.modules[model_class(name).__module__]
        about = (module.__doc__ or "").strip().partition("\n")[0]
        architectures[name] = _facts(build(name), name) | {"about": about}
    return models, architectures


def _facts(model, name):
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sample_rate": model.sample_rate,
        "latency_ms": 1000 * model.latency / model.sample_rate if model.causal else None,
        "sources": list(model.sources),
    }


def configured(path: str | Path, most: float = math.inf) -> tuple[str, Model, dict[str, Any]]:
    """The model of the YAML configuration `path`, untrained: its name, itself, its settings.

    One of more than `most` parameters has none of their numbers, only what they would be: it is on
    torch's device meta, unless its constructor needs numbers. Raises SepcliError.
    """
    from sepcli.config import load

    section = load(path).get("model")
    if not isinstance(section, dict) or "name" not in section:
        raise SepcliError(f"{path}: no model section with a name; nothing to describe")
    try:
        settings = resolve(section)
        name = settings.pop("name")
        model = _built(name, settings, most)
    except (SepcliError, *NONSENSE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SepcliError(f"{path}: {reason}") from None
    return name, model, {key: settings[key] for key in section if key != "name"}


def _built(name, settings, most):
    """The model; without numbers where it has more than `most` parameters and they tell nothing."""
    if most < math.inf:
        import torch

        with suppress(*NONSENSE), torch.device("meta"):
            model = build(name, own=True, **settings)
            if sum(p.numel() for p in model.parameters()) > most:
                return model
    return build(name, own=True, **settings)


def _model(name, model, settings):
    rate = model.sample_rate
    about = {
        "model": name,
        "settings": settings,
        "sources": list(model.sources),
        "channels": model.channels,
        "sample_rate": rate,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if model.device.type != "meta":
        about["macs_per_second"] = macs_per_second(model)
    about["causal"] = model.causal
    if model.causal:
        about["hop_ms"] = 1000 * model.hop / rate
        about["latency_ms"] = 1000 * model.latency / rate
    if model.receptive_field is not None:
        about["receptive_field_ms"] = 1000 * model.receptive_field / rate
    return about


def macs_per_second(model: Model) -> int:
    """Multiply-accumulates of one second of audio, counted by torch while it runs.

    Those of a condition, which is computed once per recording, are left out.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    second = torch.zeros(1, model.channels, model.sample_rate)
    training = model.training
    model.eval()
    if attends(model):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            copy.deepcopy(model).to("meta")(model.analyse(second).to("meta"))
        model.train(training)
        return counter.get_total_flops() // 2
    with torch.no_grad():
        condition = [model.condition([second])] if model.conditioned else []
        with FlopCounterMode(display=False) as counter:
            model(second, *condition)
    model.train(training)
    return counter.get_total_flops() // 2


def attends(model: Model) -> bool:
    """Whether it is between transforms and has attention, which takes long, but only on numbers."""
    from sepcli.layers.tfswa import Attention

    return model.spectral and any(isinstance(layer, Attention) for layer in model.modules())
