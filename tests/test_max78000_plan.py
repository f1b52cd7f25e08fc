"""Where tensors lie in the chip's memory, and what layers cost: the vendor's figures as oracle."""

import numpy as np
import pytest

from sepcli.errors import SepcliError
from sepcli.max78000 import limits
from sepcli.max78000.plan import plan
from sepcli.quant.chip import ChipLayer, ChipNetwork
from sepcli.quant.targets import target_module
from tests.chips import tcn

SEVEN = (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("hidden", "dilations", "frames", "ms"),  # what ai8xize.py prints for these networks
    [
        (64, SEVEN, 10, 4.85),
        (64, SEVEN, 20, 5.07),
        (64, SEVEN, 64, 6.21),
        (64, SEVEN[:6], 20, 2.35),
        (64, (1, 2, 4, 1, 2, 4, 1), 20, 0.88),
        (96, SEVEN, 20, 8.10),
        (104, SEVEN, 20, 8.38),
    ],
)
def test_the_time_of_a_run_is_what_the_tool_estimates(hidden, dilations, frames, ms):
    cycles = plan(tcn(dilations, hidden=hidden), frames).cycles
    assert 1000 * cycles / limits.CLOCK_HZ == pytest.approx(ms, abs=0.005)


def test_the_cycles_of_each_block_are_those_of_the_tool():
    made = plan(tcn(SEVEN), 20)
    cycles = [step.cycles for step in made.steps]
    blocks = [sum(cycles[1 + 4 * i : 5 + 4 * i]) for i in range(7)]
    assert (cycles[0], cycles[-1]) == (18546, 2600)
    assert blocks == [40660, 39936, 38634, 37442, 34220, 26950, 14686]


@pytest.mark.parametrize(
    ("shape", "columns"),  # of the tool's kernel map
    [
        ((64, 64, 1, 1), 8),
        ((64, 64, 3, 1), 22),
        ((64, 64, 3, 2), 36),
        ((64, 64, 3, 4), 64),
        ((64, 64, 3, 64), 64),
        ((64, 128, 1, 1), 15),
    ],
)
def test_a_layer_takes_as_many_columns_as_in_the_map_of_the_tool(shape, columns):
    assert limits.columns(*shape) == columns


@pytest.mark.parametrize(
    ("channels", "processors"),
    [(1, 1), (3, 3), (64, 64), (96, 48), (100, 52), (104, 52), (128, 64)],
)
def test_channels_share_processors_in_passes(channels, processors):
    assert limits.mask(channels).bit_count() == processors


def test_the_weight_memory_has_442_368_bytes():
    assert limits.WEIGHT_BYTES == 442_368 == target_module("max78000").BUDGET
    assert target_module("cpu").BUDGET is None


def overlaps(made):
    """Pairs of tensors, in bytes and layers, that share a byte while both are needed."""
    tensors = {made.input, *(step.written for step in made.steps)}
    for a in tensors:
        for b in tensors:
            if a is not b and a.first <= b.last and b.first <= a.last and a.offset != b.offset:
                words = [
                    {t.offset + 4 * (t.gap + 1) * limits.passes(t.channels) * i + 4 * p
                     for i in range(t.frames) for p in range(limits.passes(t.channels))}
                    if t.gap else set(range(t.start, t.end, 4))
                    for t in (a, b)
                ]  # fmt: skip
                if words[0] & words[1]:
                    yield a, b


@pytest.mark.parametrize("frames", [1, 10, 20, 64, 700])
@pytest.mark.parametrize("hidden", [48, 64, 96, 104])
@pytest.mark.parametrize("dilations", [(1, 2), (64, 8, 1), SEVEN])
def test_no_two_tensors_that_are_needed_at_once_share_a_word(frames, hidden, dilations):
    made = plan(tcn(dilations, hidden=hidden), frames)
    assert not list(overlaps(made))
    assert made.peak <= limits.INSTANCE_BYTES


def test_the_operands_of_a_sum_take_turns_word_by_word():
    made = plan(tcn((2,)), 20)
    keep, point = (step.written for step in made.steps if step.layer.name in ("keep1", "point1"))
    assert (keep.gap, point.gap, point.offset - keep.offset) == (1, 1, 4)


def test_an_emulated_convolution_keeps_room_for_its_junk():
    made = plan(tcn((16,)), 20)
    (dilated,) = (step.written for step in made.steps if step.layer.name == "dilated1")
    assert dilated.offset - dilated.start == 4 * 16
    assert dilated.end - dilated.start >= 4 * 16 * -(-made.steps[0].written.frames // 16)


def test_a_layer_with_too_much_data_is_named_with_the_bytes():
    wide = tcn((), outputs=512)  # 8 words per frame
    message = r"layer 1 \(mask\): with 32,736 bytes for mask, 40,.* which has 32,768; use fewer"
    with pytest.raises(SepcliError, match=message):
        plan(wide, 1023)


def conv(name, source, taps=1, dilation=1):
    weight = np.ones((64, 64, taps), np.int8)
    return ChipLayer(name, "conv", (source,), weight=weight, dilation=dilation)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([conv("a", "input"), ChipLayer("s", "add", ("a", "input"))], "is the network's input"),
        (
            [conv("a", "input"), conv("b", "a"), ChipLayer("s", "add", ("a", "b"))],
            r"layer 2 \(s\): its operand a is read by b, s, too",
        ),
        (
            [
                conv("a", "input"),
                ChipLayer("k", "keep", ("a",), crop=(31, 1)),
                conv("b", "a", 3, 16),
                ChipLayer("s", "add", ("b", "k")),
            ],
            "operand b comes from a convolution with dilation 16",
        ),
    ],
)
def test_operands_that_cannot_be_written_with_gaps_are_refused(layers, message):
    with pytest.raises(SepcliError, match=message):
        plan(ChipNetwork(64, tuple(layers)), 20)
