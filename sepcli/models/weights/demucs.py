"""Models of Demucs, by the architectures of the package `demucs`, which never opens a file itself.

B batch, S sources, C channels, T samples.
"""

import copy
import inspect
import json
import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch.nn import functional as F

from sepcli.errors import SepcliError
from sepcli.layers.modules import Modules
from sepcli.models.weights.bags import SUFFIX, read_bag
from sepcli.models.weights.unpickling import stand_in, unpickled
from sepcli.nn.model import Model

KLASSES = ("demucs.demucs.Demucs", "demucs.hdemucs.HDemucs", "demucs.htdemucs.HTDemucs")
OLD = ("demucs.model.Demucs", "demucs.tasnet.ConvTasNet")  # what the package no longer has
LONGEST_FRACTION = 40  # characters, so that nobody has to compute 1e999999999


class DemucsModel(Model):
    """Networks whose estimates of every source are averaged, (B, C, T) to (B, S, C, T).

    weights: of each network for each source. segment_s: what they run on at a time, if the bag says
    so. Raises ValueError where the networks do not belong together.
    """

    def __init__(
        self,
        nets: Sequence[Any],
        weights: Sequence[Sequence[float]] | None = None,
        segment_s: float | None = None,
    ) -> None:
        super().__init__()
        self.nets, first = Modules(nets), nets[0]
        self.sources, self.sample_rate = tuple(first.sources), int(first.samplerate)
        self.channels = int(first.audio_channels)
        facts = [(tuple(net.sources), net.samplerate, net.audio_channels) for net in nets]
        if len(set(facts)) > 1:
            raise ValueError("the models differ in sources, sample rate or channels")
        table = torch.tensor(weights or [[1.0] * len(self.sources)] * len(nets))
        if table.shape != (len(nets), len(self.sources)) or not table.sum(0).all():
            raise ValueError("weights: need a number for each source, and none without any model")
        self.register_buffer("weights", table, persistent=False)
        for net in nets:  # one with attention is not for more than it was made for
            if segment_s and not (hasattr(net, "crosstransformer") and segment_s > net.segment):
                net.segment = segment_s
        self.chunk = max(1, int(min(net.segment for net in nets) * self.sample_rate))
        self.segment_s = self.longest_s = self.chunk / self.sample_rate

    def focused(self, sources: Sequence[str]) -> Self:
        """The same without networks that contribute nothing to these `sources`."""
        weights: Any = self.weights
        columns = [self.sources.index(source) for source in sources]
        kept = [i for i, needed in enumerate(weights[:, columns].any(1).tolist()) if needed]
        chosen = copy.copy(self)
        chosen._modules = dict(self._modules)
        chosen._buffers = {"weights": weights[kept]}
        chosen.nets = Modules([self.nets[i] for i in kept])
        return chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._average(piece) for piece in x.split(self.chunk, -1)], -1)

    def _average(self, x):
        weights: Any = self.weights
        total = x.new_zeros(len(x), len(self.sources), *x.shape[1:])
        for net, shares in zip(self.nets, weights, strict=True):
            total += shares[:, None, None] * _run(net, x)
        return total / weights.sum(0).clamp(min=1e-12)[:, None, None]


def _run(net, x):
    """A network on (B, C, T), in the middle of the zeros that it needs around it."""
    T = x.shape[-1]
    wanted = max(T, getattr(net, "nfft", 1))  # no statistics of a single sample
    length = net.valid_length(wanted) if hasattr(net, "valid_length") else wanted
    left = (length - T) // 2
    with warnings.catch_warnings():  # of the package, to those who write it
        warnings.simplefilter("ignore")
        y = net(F.pad(x, (left, length - T - left)))
    return y[..., left : left + T]


def load(path: Path) -> tuple[DemucsModel, dict[str, Any], tuple[Path, ...]]:
    """The model of a file or a bag, its settings, and the files of its weights.

    Raises SepcliError.
    """
    bag = read_bag(path)
    found = {each: _network(each) for each in dict.fromkeys(bag.files)}
    try:
        nets = [found[each][0] for each in bag.files]
        model = DemucsModel(nets, bag.weights, bag.segment_s)
    except ValueError as error:
        raise SepcliError(f"{path}: not a bag of Demucs ({error})") from None
    return model, {"models": [found[each][1] for each in bag.files]}, tuple(found)


def _network(path):
    """(The network, its settings) of a file."""
    name, args, kwargs, state = (_from_pickle if path.suffix == SUFFIX else _from_tensors)(path)
    if isinstance(state, dict) and state.get("__quantized"):
        raise SepcliError(
            f"{path}: quantised by DiffQ, which is not read; use the model that is not quantised"
        )
    klass = _klass(path, name)
    known = inspect.signature(klass).parameters
    kwargs = {key: value for key, value in kwargs.items() if key in known}  # as the package does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = klass(*args, **kwargs)
        net.load_state_dict(state)
    except Exception as error:  # whatever the package makes of settings that it does not know
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SepcliError(f"{path}: not a model that demucs can run ({reason})") from None
    settings = {"klass": name.rpartition(".")[2], "args": list(args), **kwargs}
    return net.float(), json.loads(json.dumps(settings, default=str))


def _klass(path, name):
    """The class of that full name, if it is one that a file may name."""
    if name not in KLASSES:
        what = "of an old version of Demucs" if name in OLD else "not a model of Demucs"
        raise SepcliError(f"{path}: {name} is {what}; only {', '.join(KLASSES)} are run")
    module, _, cls = name.rpartition(".")
    try:
        return getattr(import_module(module), cls)
    except ImportError as error:
        raise SepcliError(f"{path}: needs {error.name}: pip install 'sepcli[models]'") from None


def _from_pickle(path):
    """What NAME.th holds: (class, args, kwargs, state); no code of it is run."""
    stand_ins = allowed()
    try:
        saved = unpickled(path, stand_ins)
        named = dict(stand_ins)
        return named[saved["klass"]], *_checked(saved["args"], saved["kwargs"]), saved["state"]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise SepcliError(f"{path}: not a model of Demucs ({reason})") from None


def allowed() -> list[tuple[Any, str]]:
    """What a file of Demucs may name, for `unpickled`."""
    return [*(stand_in(name) for name in (*KLASSES, *OLD)), (_fraction, "fractions.Fraction")]


def _from_tensors(path):
    """What NAME.safetensors of Demucs holds: (class, args, kwargs, state)."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if "structure" in about:
            state = {"__quantized": True}
        args, kwargs = (json.loads(about[key], object_hook=_decoded) for key in ("args", "kwargs"))
        return about["klass"], *_checked(args, kwargs), state
    except Exception as error:  # the library's own error type and several of Python's
        reason = " ".join(str(error).split())[:200]
        raise SepcliError(f"{path}: not a model of Demucs ({reason})") from None


def _checked(args, kwargs):
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise TypeError("its settings are no list and no dictionary")
    return tuple(args), kwargs


def _decoded(entry):
    """An object of JSON; fractions have a form of their own."""
    if entry.get("_type") == "fraction":
        return _fraction(entry["numerator"], entry["denominator"])
    return entry


def _fraction(*parts: Any) -> Fraction:
    """A fraction of whole numbers, or of a short text of them: 39/5."""
    text = "/".join(map(str, parts))
    if len(text) > LONGEST_FRACTION or not re.fullmatch(r"-?\d+(/-?\d+)?", text):
        raise ValueError(f"not a fraction: {text[:LONGEST_FRACTION]!r}")
    numerator, _, denominator = text.partition("/")
    return Fraction(int(numerator), int(denominator or 1))
