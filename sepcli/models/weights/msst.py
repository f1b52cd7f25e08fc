"""Checkpoints of Music-Source-Separation-Training: NAME.ckpt with a YAML file beside it.

So are NAME.th, such as those of Demucs, and NAME.safetensors, with NAME.yaml.

The architectures (Mel-Band and BS-RoFormer, SCNet, MDX23C and others) are those of the package
`pymss-core`, which is given the weights and never opens the file: only tensors are unpickled here.
B batch, S sources, C channels, T samples.
"""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights import budget
from sepcli.models.weights.demucs import allowed
from sepcli.models.weights.unpickling import unpickled
from sepcli.nn.model import Model

UNDER = ("state", "state_dict", "model_state_dict")  # where a checkpoint may have its weights


class MsstModel(Model):
    """A network of others, (B, C, T) to (B, S, C, T), run on pieces of the length it was made for.

    net: maps (B, C, T) to (B, S, C, T), or to (B, C, T) of a single source. chunk: samples.
    """

    def __init__(
        self, net: Any, *, sources: tuple[str, ...], sample_rate: int, channels: int, chunk: int
    ) -> None:
        super().__init__()
        self.net, self.chunk = net, chunk
        self.sources, self.sample_rate, self.channels = sources, sample_rate, channels
        self.segment_s = self.longest_s = chunk / sample_rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self._piece(part) for part in x.split(self.chunk, -1)]
        return torch.cat(parts, -1)

    def _piece(self, x):
        """A piece of at most `chunk` samples, with zeros after it."""
        with warnings.catch_warnings():  # of the package, to those who write it
            warnings.simplefilter("ignore")
            y = self.net(F.pad(x, (0, self.chunk - x.shape[-1])))
        if y.ndim == 3:
            y = y[:, None]
        y = F.pad(y, (0, max(0, x.shape[-1] - y.shape[-1])))
        return y[..., : x.shape[-1]]


def load(path: Path) -> tuple[MsstModel, dict[str, Any], tuple[Path, ...]]:
    """The model of a checkpoint, the settings in its YAML file, and the files of its weights.

    Raises SepcliError.
    """
    config = _config(path)
    try:
        from pymss_core import get_model_from_config
    except ImportError as error:
        raise SepcliError(f"{path}: needs {error.name}: pip install 'sepcli[models]'") from None
    settings, weights = _read(config), _state(path)
    try:
        with _no_more_than(weights):
            net, _ = get_model_from_config("auto", str(config))
        audio, training = settings.get("audio", {}), settings["training"]
        target = training.get("target_instrument")
        model = MsstModel(
            net,
            sources=(target,) if target else tuple(training["instruments"]),
            sample_rate=audio.get("sample_rate", training.get("samplerate", 44100)),
            channels=audio.get("num_channels", training.get("channels", 2)),
            chunk=settings.get("inference", {}).get("chunk_size") or audio["chunk_size"],
        )
    except Exception as error:  # whatever the package makes of settings that it does not know
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SepcliError(f"{config}: describes no model that is known ({reason})") from None
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SepcliError(f"{path}: the weights do not fit {config.name} ({reason})") from None
    return model, settings, (path,)


@contextlib.contextmanager
def _no_more_than(weights):
    """Raise ValueError once a network is built that has far more weights than these, or none."""
    values = weights.values() if isinstance(weights, dict) else ()
    sizes = [value.numel() for value in values if hasattr(value, "numel")]
    with budget.at_most(sum(sizes), len(sizes)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, to those who write it
        warnings.filterwarnings("error", "Initializing zero-element", UserWarning)
        yield


def _config(path):
    """The YAML file that belongs to a checkpoint: that of its name, or the only one there is."""
    beside = [path.with_suffix(ending) for ending in (".yaml", ".yml")]
    others = sorted(each for end in ("*.yaml", "*.yml") for each in path.parent.glob(end))
    found = [each for each in beside if each.is_file()] or others
    if len(found) != 1:
        raise SepcliError(
            f"{path}: {len(found) or 'no'} YAML files beside it; put its own there as "
            f"{beside[0].name}"
        )
    return found[0]


def _read(config):
    """The settings in a YAML file of plain data and tuples; nothing else is made of it."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(
        "tag:yaml.org,2002:python/tuple",
        lambda loader, node: tuple(loader.construct_sequence(node)),  # type: ignore[arg-type]
    )
    try:
        settings = yaml.load(files.read_text(config), Loader)
        if not isinstance(settings, dict) or "training" not in settings:
            raise ValueError("it has no training section")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SepcliError(f"{config}: not the settings of a model ({reason})") from None
    return settings


def _state(path):
    """The weights in a checkpoint; nothing but tensors and plain data is unpickled."""
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        saved = unpickled(path, allowed())
    except ValueError as error:
        raise SepcliError(f"{path}: not a checkpoint that can be read ({error})") from None
    if isinstance(saved, dict):
        saved = next((saved[key] for key in UNDER if key in saved), saved)
    return saved
