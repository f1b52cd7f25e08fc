"""A loss on what another network makes of signals, for what these do not tell by themselves."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import nn

from sepcli.errors import SepcliError

QUIET = 1e-5  # added to the mean magnitude of features


def feature_loss(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    network: str,
    layers: Sequence[str] = (),
) -> torch.Tensor:
    """Mean absolute difference of features, over their mean magnitude, averaged over `layers`.

    Johnson et al., "Perceptual losses for real-time style transfer and super-resolution", ECCV
    2016, with L1 distances.
    network: a model (its name, file or run folder), or `package.module:function` that makes a
    network of (M, C, T) signals. It is given the signals at the sample rate that they have, and
    does not learn. layers: names of modules in it, whose outputs are the features; without any,
    the output of all of it. Raises SepcliError for a network or a layer that is not there.
    """
    found = _network(network).to(estimate)
    x = estimate.flatten(0, 1)  # (B*S, C, T)
    with torch.no_grad():
        wanted = _features(found, reference.flatten(0, 1), tuple(layers), network)
    got = _features(found, x, tuple(layers), network)
    distances = [
        (a - b).abs().mean() / (b.abs().mean() + QUIET) for a, b in zip(got, wanted, strict=True)
    ]
    return torch.stack(distances).mean()


@cache
def _network(name: str) -> Any:
    from sepcli.models.modelfile import load_model

    if ":" in name:
        module, _, function = name.partition(":")
        try:
            network = getattr(import_module(module), function)()
        except (ImportError, AttributeError) as error:
            raise SepcliError(
                f"train.loss.features.network {name}: {error}; check it and PYTHONPATH"
            ) from None
    else:
        network = load_model(name)[0].complete()
    return network.eval().requires_grad_(False)


def _features(network: nn.Module, x: torch.Tensor, layers: Sequence[str], name: str) -> list[Any]:
    """The outputs of `layers`, or of all, for signals (M, C, T)."""
    channels = getattr(network, "channels", x.shape[1])
    if channels != x.shape[1]:
        x = x.mean(1, keepdim=True).expand(-1, channels, -1)
    known = dict(network.named_modules())
    if missing := [layer for layer in layers if layer not in known]:
        some = ", ".join([key for key in known if key][:8])
        raise SepcliError(
            f"train.loss.features.layers: {name} has no {', '.join(missing)}, but {some}, ..."
        )
    kept: dict[str, Any] = {}
    hooks = [known[layer].register_forward_hook(_keeper(kept, layer)) for layer in layers]
    try:
        output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [_tensor(kept[layer]) for layer in layers] or [_tensor(output)]


def _keeper(kept, layer):
    def keep(_module, _inputs, output):
        kept.setdefault(layer, output)

    return keep


def _tensor(output):
    return output if isinstance(output, torch.Tensor) else _tensor(output[0])
