"""What the MAX78000 has, and what a layer costs on it: weight columns, data words, cycles.

Numbers are those of Analog Devices' documentation and tools (ai8x-synthesis: README.md,
tornadocnn.py, kernels.py, latency.py), which count a 64-channel 1x1 convolution as 66 cycles per
frame. C channels, K taps, d dilation.
"""

import math
from collections.abc import Iterable

from sepcli.quant.chip import COLUMNS as COLUMNS
from sepcli.quant.chip import PROCESSORS as PROCESSORS
from sepcli.quant.chip import WEIGHT_BYTES as WEIGHT_BYTES

LAYERS = 32
INSTANCE_BYTES = 32768  # of data memory, per four processors
CHANNELS = 1024
FRAMES = 1023
TAPS = 9
PAD = 2
DILATION = 1023
SHIFTS = (-15, 15)
OPERANDS = (2, 16)
BIAS_GROUPS, BIAS_GROUP_BYTES = 4, 512  # one group per 16 processors
CLOCK_HZ = 50_000_000


def passes(channels: int) -> int:
    """How often the processors go over so many channels."""
    return math.ceil(channels / PROCESSORS)


def processors(channels: int) -> int:
    """How many processors hold so many channels: all of them, or whole fours in several passes."""
    each = math.ceil(channels / passes(channels))
    return each if channels <= PROCESSORS else 4 * math.ceil(each / 4)


def mask(channels: int) -> int:
    """The bits of these processors, from the first one up."""
    return (1 << processors(channels)) - 1


def emulated(taps: int, dilation: int) -> bool:
    """Whether a convolution is too long to be stretched with zeros, and runs as a 3x3 one."""
    return dilation > 1 and (taps - 1) * dilation >= TAPS


def stored_taps(taps: int, dilation: int) -> int:
    """Weights that are stored per kernel: stretched with zeros, or 3x3."""
    if dilation == 1:
        return taps
    return TAPS if emulated(taps, dilation) else (taps - 1) * dilation + 1


def columns(
    channels_in: int, channels_out: int, taps: int, dilation: int = 1, bits: int = 8
) -> int:
    """Words of weight memory that a convolution takes in every processor that it uses."""
    kernels = processors(channels_out) * passes(channels_out) * passes(channels_in)
    return math.ceil(kernels * stored_taps(taps, dilation) * bits / 72)


def stacked(columns: Iterable[int]) -> int:
    """Columns up to the last one used by layers with so many each; they start at multiples of 4."""
    total = 0
    for own in columns:
        total = -(-total // 4) * 4 + own if own else total
    return total


def data_bytes(channels: int, frames: int, *, gap: int = 0, width: int = 1) -> int:
    """Bytes of an instance from the first frame to behind the last; `width` bytes per value."""
    return 4 * passes(channels) * (gap + 1) * width * frames


def junk(channels: int, dilation: int) -> int:
    """Bytes that an emulated convolution writes below its output."""
    return 4 * dilation * passes(channels)


def emulated_bytes(channels: int, frames_in: int, dilation: int) -> int:
    """Bytes that an emulated convolution writes in all, its junk included.

    The tool asks for as many from the output on, too.
    """
    return junk(channels, dilation) * math.ceil(frames_in / dilation)


def conv_cycles(
    channels_in: int, channels_out: int, taps: int, dilation: int, frames_in: int
) -> int:
    """Cycles of a convolution without padding: reading frames, and one per output channel."""
    read = 2 * passes(channels_in)  # a frame, and as much for one of padding
    write = passes(channels_in) * channels_out
    if not emulated(taps, dilation):
        before = (taps - 1) * dilation  # frames before the first output
        return before * (read + 1) + (frames_in - before) * (read + write)
    rows = math.ceil(frames_in / dilation)  # of `dilation` columns, with padding on all sides
    first = 2 * (dilation + 2) * (read + 1)
    row = 2 * (read + 1) + dilation * read
    return first + rows * (row + dilation * write)


def copy_cycles(channels: int, frames: int, operands: int = 1) -> int:
    """Cycles of a copy or an element-wise operation."""
    return frames * passes(channels) * (2 * operands + 4)
