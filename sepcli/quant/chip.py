"""Networks in the integer arithmetic of the MAX78000: their description, and a simulator.

A network maps a window of past frames, int8 (C, T), to int8 (C', F): every convolution is valid,
so it loses `(K - 1) * dilation` frames, and every crop the frames it names. Nothing here knows of
addresses or files. The arithmetic is that of Analog Devices' tools (ai8x-synthesis, simulate.py).
"""

from dataclasses import dataclass

import numpy as np

INPUT = "input"  # the name of a network's input among the `inputs` of its layers
LOW, HIGH = -128, 127  # of data and of 8-bit weights
PROCESSORS = 64  # each takes one channel at a time, and four share an instance of data memory
COLUMNS = 768  # words of 9 bytes of weights per processor
WEIGHT_BYTES = PROCESSORS * COLUMNS * 9  # 442,368


@dataclass(frozen=True)
class ChipLayer:
    """One operation of a network.

    kind: `conv`, a valid convolution; `add`, the saturating sum of two inputs; `keep`, a copy.
    inputs: names of earlier layers, or INPUT. crop: frames dropped at both ends of the input.
    weight: int8 (Cout, Cin, K) in the range of `weight_bits` (1, 2, 4 or 8). bias: int8 (Cout,).
    relu: clip at 0. output_shift: the sum of products is scaled by 2^(output_shift + 1 -
    weight_bits), that is by 2^(output_shift - 7) for weights of 8 bits.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = (INPUT,)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    dilation: int = 1
    relu: bool = False
    output_shift: int = 0
    weight_bits: int = 8
    crop: tuple[int, int] = (0, 0)

    @property
    def lost(self) -> int:
        """Frames by which the output is shorter than each input."""
        taps = 1 if self.weight is None else self.weight.shape[2]
        return sum(self.crop) + (taps - 1) * self.dilation


@dataclass(frozen=True)
class ChipNetwork:
    """Layers in the order in which they run; the last one's output is the network's.

    channels: of the input.
    """

    channels: int
    layers: tuple[ChipLayer, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """{layer: (channels, frames its output is shorter than the input)}, INPUT included."""
        known = {INPUT: (self.channels, 0)}
        for layer in self.layers:
            channels, lost = known[layer.inputs[0]]
            if layer.weight is not None:
                channels = layer.weight.shape[0]
            known[layer.name] = channels, lost + layer.lost
        return known

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        return self.shapes[self.layers[-1].name][0]

    @property
    def context(self) -> int:
        """Frames by which a window is longer than its output: T = F + context."""
        return self.shapes[self.layers[-1].name][1]

    @property
    def dummies(self) -> int:
        """Frames at the end of a window whose values do not matter: what the layers crop there."""
        tails = {INPUT: 0}
        for layer in self.layers:
            tails[layer.name] = tails[layer.inputs[0]] + layer.crop[1]
        return tails[self.layers[-1].name]


def run(network: ChipNetwork, x: np.ndarray) -> np.ndarray:
    """Run the network on a window, int8 (C, T) with T > context; int8 (C', T - context).

    Raises ValueError when `x` has another shape or values outside int8.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] != network.channels or x.shape[1] <= network.context:
        raise ValueError(
            f"expected ({network.channels}, more than {network.context} frames), got {x.shape}"
        )
    if x.min() < LOW or x.max() > HIGH:
        raise ValueError(f"values outside {LOW}..{HIGH}")
    known = {INPUT: x.astype(np.int64)}
    for layer in network.layers:
        known[layer.name] = run_layer(layer, *(known[name] for name in layer.inputs))
    return known[network.layers[-1].name].astype(np.int8)


def run_layer(layer: ChipLayer, *inputs: np.ndarray) -> np.ndarray:
    """The output int64 (C', T - layer.lost) of one layer, of its inputs (C, T)."""
    front, back = layer.crop
    first, *others = (x[:, front : x.shape[1] - back] for x in inputs)
    if layer.kind == "keep":
        return first
    if layer.kind == "add":
        return np.clip(first + others[0], LOW, HIGH)
    assert layer.weight is not None
    total = convolve(first, layer.weight, layer.dilation)
    if layer.bias is not None:
        total = total + 128 * layer.bias.astype(np.int64)[:, None]
    y = scale(total, layer.output_shift + 1 - layer.weight_bits)
    return np.clip(y, 0 if layer.relu else LOW, HIGH)


def convolve(x: np.ndarray, weight: np.ndarray, dilation: int) -> np.ndarray:
    """Sums of products (C', T - (K - 1) * dilation) of integers, without padding."""
    taps = weight.shape[2]
    length = x.shape[1] - (taps - 1) * dilation
    x, weight = x.astype(np.float64), weight.astype(np.float64)  # exact, and fast
    parts = (
        weight[:, :, k] @ x[:, k * dilation : k * dilation + length] for k in range(taps)
    )  # (C', T')
    return np.sum(list(parts), 0).astype(np.int64)


def scale(total: np.ndarray, shift: int) -> np.ndarray:
    """total * 2^shift, rounded to the nearest integer, halves upward."""
    if shift >= 0:
        return total << shift
    return (total + (1 << (-shift - 1))) >> -shift
