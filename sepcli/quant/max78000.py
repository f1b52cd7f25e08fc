"""The MAX78000 as a target of quantisation: `tcn_max78000` with the chip's integers.

Its convolutions, ReLU and sums run on the chip, in `sepcli.quant.chip`'s arithmetic; the transform,
the sigmoid and the masks stay in floating point on the host.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from sepcli.errors import SepcliError
from sepcli.nn.runner import RUNNER
from sepcli.quant.chip import WEIGHT_BYTES, ChipNetwork, run
from sepcli.quant.targets import LayerCost

NAME = "max78000"
QDQ = False  # export-max78000 writes what Analog Devices' tools read
BUDGET = WEIGHT_BYTES


def prepare(model: Any) -> Any:
    """The fake-quantised twin of a model for this chip; SepcliError for every other model."""
    if model.chip != NAME:
        raise SepcliError(
            f"the MAX78000 cannot run this model: {first_obstacle(model)}; train a tcn_max78000"
        )
    twin = copy.deepcopy(model)
    twin.quantise()
    return twin.eval()


def first_obstacle(model: nn.Module) -> str:
    """Name the first layer that the chip cannot run, and say what it has instead."""
    for name, layer in model.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.PReLU):
            return f"{name} is a PReLU, and the chip has ReLU"
        if isinstance(layer, nn.Conv1d) and layer.groups > 1:
            return f"{name} is depthwise, and the chip has dense convolutions"
        if isinstance(layer, nn.Conv1d) and layer.stride != (1,):
            return f"{name} has a stride, and those of the chip are 1"
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.RNNBase)):
            return f"{name} is a {kind}, and the chip's plan has Conv1d"
    return "it has no plan for the chip's memory"


class IntegerRunner:
    """A quantised twin whose network runs in numpy integers, on windows of past frames."""

    engine = "integer"

    def __init__(self, twin: Any) -> None:
        self.twin, self.network = twin, chip_network(twin)
        self.past = self.network.context - self.network.dummies  # frames
        for name in RUNNER:
            setattr(self, name, getattr(twin, name))

    def initial_state(self, batch: int = 1) -> Any:
        host, _, tail = self.twin.initial_state(batch)
        return host, np.zeros((batch, self.network.channels, self.past), np.int8), tail

    @torch.inference_mode()
    def step(self, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        past, history, tail = state
        bank, tcn = self.twin.bank, self.twin.tcn
        frames, past = bank.analyse(torch.from_numpy(x)[:, 0], past)
        features = tcn.features(bank.features(frames, self.twin.compression))
        stored = (features * 2.0**tcn.features.exponent).numpy().astype(np.int8)  # (B, F, N)
        window = np.concatenate([history, stored], 2)
        dummies = ((0, 0), (0, 0), (0, self.network.dummies))
        outputs = [run(self.network, item) for item in np.pad(window, dummies)]
        logits = torch.from_numpy(np.stack(outputs)) * 2.0**-tcn.logits.exponent
        y, tail = self.twin.masked(frames, bank.masks(logits), tail)
        return y.numpy(), (past, window[..., window.shape[2] - self.past :], tail)


def integer(twin: Any) -> IntegerRunner:
    """The runner of a twin that computes the chip's part in integers; raises SepcliError."""
    return IntegerRunner(twin)


def chip_network(twin: Any) -> ChipNetwork:
    """The twin's network as the chip runs it; raises SepcliError where a scale is impossible."""
    try:
        return twin.network()
    except ValueError as error:
        raise SepcliError(
            f"the network does not fit the chip's arithmetic ({error}); calibrate with audio of "
            "the level that it is for, or train it longer"
        ) from None


def layers(twin: Any) -> list[LayerCost]:
    """The chip's layers for the report; the past of a layer is what its windows keep."""
    network = chip_network(twin)
    channels = {name: count for name, (count, _) in network.shapes.items()}
    rows = []
    for layer in network.layers:
        inputs, outputs = [channels[name] for name in layer.inputs], channels[layer.name]
        past = (layer.lost - sum(layer.crop)) * inputs[0]  # of dilated convolutions
        weights = 0 if layer.weight is None else layer.weight.size
        shapes = tuple((count,) for count in inputs)
        rows.append(LayerCost(layer.name, layer.kind, shapes, (outputs,), weights, outputs + past))
    return rows
