"""Where every tensor of a network lies in data memory, over its whole life.

All instances hold the same frames at the same addresses, each for its own four channels, so one
plan of 32 KiB serves all. A tensor stays in place from the layer that writes it to the last one
that reads it; what is alive at the same time lies apart. Two things widen a tensor: the operands of
a sum are written word by word in turn, and a convolution that the chip emulates in two dimensions
writes rows of junk below its output.
"""

from dataclasses import dataclass
from typing import Any

from sepcli.errors import SepcliError
from sepcli.max78000 import limits
from sepcli.quant.chip import INPUT, ChipLayer, ChipNetwork

ALIGNMENT = 0x100  # bytes; a word would do, but nobody could read the plan


@dataclass(frozen=True)
class Tensor:
    """Frames in data memory: (channels, frames), in bytes from `offset`, every `gap` + 1 words.

    start, end: what is written in all, junk included, end excluded. first, last: the layers that
    write it and read it last; the input is there before layer 0, as if written by layer -1.
    """

    channels: int
    frames: int
    offset: int
    gap: int
    start: int
    end: int
    first: int
    last: int

    @property
    def passes(self) -> int:
        """How often the processors go over its channels."""
        return limits.passes(self.channels)

    @property
    def processors(self) -> int:
        """How many processors hold its channels."""
        return limits.processors(self.channels)

    @property
    def mask(self) -> int:
        """The bits of these processors."""
        return limits.mask(self.channels)


@dataclass(frozen=True)
class Step:
    """A layer with its place: `read` are the tensors of its inputs, before the crop."""

    layer: ChipLayer
    read: tuple
    written: Tensor

    @property
    def in_offset(self) -> Any:
        """Bytes at which the first frame lies that is read, behind what is cropped."""
        tensor = self.read[0]
        return tensor.offset + limits.data_bytes(tensor.channels, self.layer.crop[0])

    @property
    def frames_in(self) -> Any:
        """Frames that are read, without what is cropped."""
        return self.read[0].frames - sum(self.layer.crop)

    @property
    def columns(self) -> int:
        """Words of weight memory per processor; 0 without weights."""
        if self.layer.weight is None:
            return 0
        outputs, inputs, taps = self.layer.weight.shape
        layer = self.layer
        return limits.columns(inputs, outputs, taps, layer.dilation, layer.weight_bits)

    @property
    def cycles(self) -> int:
        """Cycles of the accelerator's clock, by the model of Analog Devices' tools."""
        if self.layer.weight is None:
            operands = len(self.layer.inputs)
            return limits.copy_cycles(self.written.channels, self.frames_in, operands)
        outputs, inputs, taps = self.layer.weight.shape
        return limits.conv_cycles(inputs, outputs, taps, self.layer.dilation, self.frames_in)

    @property
    def ms(self) -> float:
        """Milliseconds that these cycles take."""
        return 1000 * self.cycles / limits.CLOCK_HZ


@dataclass(frozen=True)
class Plan:
    """A network with a place for each tensor; `frames` come out per run, `input` goes in."""

    network: ChipNetwork
    frames: int
    input: Tensor
    steps: tuple

    @property
    def peak(self) -> int:
        """Bytes of an instance up to the highest one that is used."""
        return max(self.input.end, *(step.written.end for step in self.steps))

    @property
    def columns(self) -> int:
        """Words of weight memory per processor up to the last one used."""
        return limits.stacked(step.columns for step in self.steps)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights as such, without what the chip adds to them."""
        return sum(
            step.layer.weight.size * step.layer.weight_bits // 8
            for step in self.steps
            if step.layer.weight is not None
        )

    @property
    def bias_bytes(self) -> int:
        """Bytes of biases."""
        biases = (step.layer.bias for step in self.steps)
        return sum(bias.size for bias in biases if bias is not None)

    @property
    def cycles(self) -> int:
        """Cycles of one run."""
        return sum(step.cycles for step in self.steps)

    @property
    def ms(self) -> float:
        """Milliseconds of one run."""
        return 1000 * self.cycles / limits.CLOCK_HZ

    @property
    def used(self) -> dict[str, tuple[int, int]]:
        """{what: (how much of it the network takes, how much the chip has)}."""
        return {
            "layers": (len(self.steps), limits.LAYERS),
            "weight_bytes": (self.weight_bytes, limits.WEIGHT_BYTES),
            "columns": (self.columns, limits.COLUMNS),
            "bias_bytes": (self.bias_bytes, limits.BIAS_GROUPS * limits.BIAS_GROUP_BYTES),
            "data_bytes_per_instance": (self.peak, limits.INSTANCE_BYTES),
            "frames_longest": (self.input.frames, limits.FRAMES),
        }


def plan(network: ChipNetwork, frames: int) -> Plan:
    """Place the tensors of `network` for runs of `frames` output frames; a `Plan`.

    Raises SepcliError naming the layer where too much is alive at once, or whose operands cannot
    be written in turn.
    """
    shapes = {
        name: (channels, frames + network.context - lost)
        for name, (channels, lost) in network.shapes.items()
    }
    placed, tensors = [], {}
    for block in sorted(_blocks(network, shapes), key=lambda block: block.first):
        start = _free(block, placed, network)
        placed.append((start, block))
        for name, offset, gap in block.members:
            channels, length = shapes[name]
            tensors[name] = Tensor(
                channels, length, start + offset, gap, start, start + block.size, block.first,
                block.last,
            )  # fmt: skip
    steps = tuple(
        Step(layer, tuple(tensors[name] for name in layer.inputs), tensors[layer.name])
        for layer in network.layers
    )
    return Plan(network, frames, tensors[INPUT], steps)


@dataclass(frozen=True)
class _Block:
    """Bytes that are taken from the layer `first` to `last`; members: (name, offset, gap)."""

    first: int
    last: int
    size: int
    members: tuple


def _blocks(network, shapes):
    """Yield what is to be placed: single tensors, and the operands of a sum together."""
    layers = network.layers
    number = {INPUT: -1, **{layer.name: i for i, layer in enumerate(layers)}}
    last = {name: i for i, layer in enumerate(layers) for name in layer.inputs}
    together = set()
    for i, layer in enumerate(layers):
        if layer.kind == "add":
            _check_operands(network, layer, i)
            gap = len(layer.inputs) - 1
            size = limits.data_bytes(*shapes[layer.inputs[0]], gap=gap) + 4 * gap
            members = tuple((name, 4 * n, gap) for n, name in enumerate(layer.inputs))
            yield _Block(min(number[name] for name in layer.inputs), i, size, members)
            together.update(layer.inputs)
    for name, first in number.items():
        if name in together:
            continue
        size, offset = limits.data_bytes(*shapes[name]), 0
        if name != INPUT and is_emulated(layers[first]):
            channels, source = shapes[name][0], layers[first]
            length = shapes[source.inputs[0]][1] - sum(source.crop)
            offset = limits.junk(channels, source.dilation)
            size = offset + limits.emulated_bytes(channels, length, source.dilation)
        yield _Block(first, last.get(name, len(layers) - 1), size, ((name, offset, 0),))


def is_emulated(layer: ChipLayer) -> bool:
    """Whether the chip runs this convolution in two dimensions."""
    return layer.weight is not None and limits.emulated(layer.weight.shape[2], layer.dilation)


def _check_operands(network, add, index):
    """Raise SepcliError unless all operands of a sum can be written with gaps between words."""
    for name in add.inputs:
        readers = [layer.name for layer in network.layers if name in layer.inputs]
        source = next((layer for layer in network.layers if layer.name == name), None)
        if source is None:
            reason = "is the network's input"
        elif readers != [add.name] or add.inputs.count(name) > 1:
            reason = f"is read by {', '.join(readers)}, too"
        elif is_emulated(source):
            reason = f"comes from a convolution with dilation {source.dilation}"
        elif network.shapes[name][0] > limits.PROCESSORS:
            reason = f"has {network.shapes[name][0]} channels, more than {limits.PROCESSORS}"
        else:
            continue
        raise SepcliError(
            f"layer {index} ({add.name}): its operand {name} {reason}, so they cannot be "
            "interleaved word by word; put a copy or a 1x1 convolution between"
        )


def _free(block, placed, network):
    """The lowest start, in bytes, where nothing lies that is alive at the same time."""
    alive = [
        (start, start + other.size)
        for start, other in placed
        if other.first <= block.last and block.first <= other.last
    ]
    shift = block.members[0][1]  # align the output, not the junk below it
    candidates = [0, *(end for _, end in alive)]
    start = 0
    for start in sorted(-(-(at + shift) // ALIGNMENT) * ALIGNMENT - shift for at in candidates):
        if all(start >= end or start + block.size <= other for other, end in alive):
            break
    if start + block.size > limits.INSTANCE_BYTES:
        name = block.members[0][0]
        raise SepcliError(
            f"layer {max(0, block.first)} ({network.layers[max(0, block.first)].name}): with "
            f"{block.size:,} bytes for {name}, {start + block.size:,} bytes of data are taken in "
            f"every instance, which has {limits.INSTANCE_BYTES:,}; use fewer --frames or channels"
        )
    return start
