"""The lint of exports, against exports that were broken on purpose."""

import copy

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.max78000 import files
from sepcli.max78000.lint import lint
from sepcli.max78000.plan import plan
from tests.chips import tcn, window


def package(network, frames=20):
    """What is in the files of an export."""
    config = yaml.safe_load(files.yaml(files.config(plan(network, frames))))
    return config, files.checkpoint(network), window(network, frames)


@pytest.fixture(scope="module")
def made():
    return package(tcn((1, 16)))


@pytest.fixture
def parts(made):
    """An export that may be broken, and its layers by name."""
    config, checkpoint, sample = copy.deepcopy(made)
    return config, checkpoint, sample, {entry["name"]: entry for entry in config["layers"]}


def said(config, checkpoint, sample):
    return [str(finding) for finding in lint(config, checkpoint, sample)]


@settings(max_examples=25, deadline=None)
@given(
    dilations=st.lists(st.integers(1, 64), max_size=7),
    hidden=st.sampled_from([8, 48, 64, 96, 104]),
    inputs=st.sampled_from([16, 64, 128]),
    frames=st.integers(1, 64),
    bias=st.booleans(),
    bits=st.sampled_from([4, 8]),
)
def test_what_we_plan_and_write_is_clean(dilations, hidden, inputs, frames, bias, bits):
    network = tcn(dilations, hidden=hidden, inputs=inputs, bias=bias, bits=bits)
    wide = [d for d in dilations if d > 2]
    if len(wide) * hidden * bits <= 6 * 64 * 8:  # else the weights may be too many
        assert said(*package(network, frames)) == []


@pytest.mark.parametrize(
    ("layer", "key", "value", "message"),
    [
        ("mask", "colour", 3, r"layer 9 \(mask\): unknown keys: colour"),
        ("mask", "operation", "Mul", "operation mul is not one of"),
        ("keep1", "activate", "ReLU", "activate: only a convolution has these"),
        ("mask", "activate", "PReLU", "activation prelu, the chip has ReLU, Abs, None"),
        ("mask", "quantization", 3, "weights of 3 bits"),
        ("mask", "quantization", 4, "mask.op.weight: not whole numbers from -8 to 7"),
        ("keep1", "quantization", 8, "quantization: only a convolution has these"),
        ("mask", "kernel_size", 3, r"kernel_size 3, mask.op.weight has 1"),
        ("mask", "pad", 1, "pad 1, the chip has 0 to 0 for 1 taps"),
        ("dilated1", "pad", 3, "pad 3, the chip has 0 to 2 for 3 taps"),
        ("dilated2", "pad", 1, "dilation 16 with 3 taps needs 3 taps and pad 0"),
        ("dilated2", "write_gap", 1, "write_gap after dilation 16: the chip places the output"),
        ("dilated2", "out_offset", 0x7F20, "0x7f20 leaves no 256 bytes for dilation"),
        ("dilated2", "out_offset", 0x20, r"takes -0x20\.\.0x\w+, an instance of data memory has"),
        ("mask", "out_offset", 0x7FF0, r"the output takes 0x7ff0\.\.0x\w+, an instance"),
        ("mask", "out_offset", 0x1002, "which is not a multiple of 4"),
        ("mask", "in_offset", 0x1004, "in_offset 0x1004, the input is at"),
        ("keep1", "in_crop", [2, 0], r"in_crop \[2, 0\] leaves nothing"),
        ("keep1", "in_dim", 33, "in_dim 33, but 53 remain"),
        ("bottleneck", "processors", 0x7FFFFFFFFFFFFFFF, "processors has 63 bits, 64 channels"),
        ("dilated1", "output_processors", 0xFFFF, "output_processors has 16 bits, 64 channels"),
        ("keep1", "output_processors", 0xFF, "differ from processors, but nothing is convolved"),
        ("point1", "write_gap", 0, "reads a tensor written with write_gap 0"),
        ("add1", "in_sequences", "keep1", "1 operands, a sum has 2 or more"),
        ("mask", "in_sequences", ["add2", "add1"], "which would be concatenated"),
        ("mask", "in_sequences", "later", "names a layer that has not run yet"),
        ("mask", "name", "add2", "this name is taken"),
        ("mask", "name", "stop", "this name is taken"),
        ("mask", "data_format", "HWC", "only HWC, and only in the first layer"),
        ("add2", "output_width", 32, "output_width: only a convolution has these"),
        ("point2", "output_width", 32, "32 bits only come out of the last layer"),
    ],
)
def test_a_wrong_key_is_found_and_its_layer_named(parts, layer, key, value, message):
    config, checkpoint, sample, layers = parts
    layers[layer][key] = value
    with pytest.raises(AssertionError, match=message):
        assert not "\n".join(said(config, checkpoint, sample))


@pytest.mark.parametrize(
    ("layer", "key", "message"),
    [
        ("dilated1", "pad", "lacks `pad`, whose default is 1"),
        ("mask", "processors", "lacks `processors`"),
        ("bottleneck", "output_processors", "lacks `output_processors`"),
    ],
)
def test_a_missing_key_is_found(parts, layer, key, message):
    config, checkpoint, sample, layers = parts
    del layers[layer][key]
    assert any(message in line for line in said(config, checkpoint, sample))


def test_overwriting_what_a_later_layer_reads_is_found(parts):
    config, checkpoint, sample, layers = parts
    layers["dilated1"]["out_offset"] = layers["bottleneck"]["out_offset"]  # in place
    lines = said(config, checkpoint, sample)
    assert any("over layer 0's output" in line and "layer 2 still reads" in line for line in lines)


def test_overwriting_the_copy_that_only_the_sum_reads_is_found(parts):
    config, checkpoint, sample, layers = parts
    layers["dilated1"]["out_offset"] = layers["keep1"]["out_offset"] + 0x40
    layers["point1"]["in_offset"] = layers["dilated1"]["out_offset"]
    line, *_ = said(config, checkpoint, sample)
    assert line.startswith("layer 2 (dilated1): writes ")
    assert line.endswith("which layer 4 still reads")


def test_overwriting_the_input_is_found(parts):
    config, checkpoint, sample, layers = parts
    layers["bottleneck"]["out_offset"] = 0x10
    assert any("over the input" in line for line in said(config, checkpoint, sample))


def test_junk_below_the_output_over_a_living_tensor_is_found(parts):
    """Only the junk reaches it: 4 * 16 bytes below the offset; the tool sees no overlap."""
    config, checkpoint, sample, layers = parts
    copy_end = layers["keep2"]["out_offset"] + 8 * 20
    layers["dilated2"]["out_offset"] = layers["point2"]["in_offset"] = copy_end + 4 * 16 - 4
    line, *_ = said(config, checkpoint, sample)
    assert line.startswith("layer 6 (dilated2): writes 0x19c..")
    assert line.endswith("over layer 5's output at 0x100..0x1a0, which layer 8 still reads")
    layers["dilated2"]["out_offset"] = layers["point2"]["in_offset"] = copy_end + 4 * 16 + 4
    assert said(config, checkpoint, sample) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["state_dict"].popitem(last=False),
            "the input has 64 channels|no weights left",
        ),
        (lambda c: c.pop("epoch"), "the checkpoint lacks `epoch`"),
        (lambda c: c.update(arch="other"), "arch other in the checkpoint, tcn_max78000 in YAML"),
        (
            lambda c: c["state_dict"]["mask.op.weight"].mul_(2).add_(0.5),
            "mask.op.weight: not whole numbers from -128 to 127",
        ),
        (
            lambda c: c["state_dict"]["mask.output_shift"].fill_(16),
            "shift 16, the chip has -15 to 15",
        ),
        (
            lambda c: c["state_dict"].update({"mask.op.bias": torch.full((128,), 100.0)}),
            "must be 128 multiples of 128",
        ),
        (
            lambda c: c["state_dict"].update({"mask.op.bias": torch.full((128,), 128.0 * 128)}),
            "biases outside -128..127",
        ),
    ],
)
def test_a_wrong_checkpoint_is_found(parts, change, message):
    config, checkpoint, sample, _ = parts
    change(checkpoint)
    with pytest.raises(AssertionError, match=message):
        assert not "\n".join(said(config, checkpoint, sample))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((64, 55), np.int32), r"sample input int32 \(64, 55\), must be int64"),
        (np.full((64, 55), 128), "sample input outside -128..127"),
        (np.zeros((48, 55), np.int64), "48 channels|bits"),
        (np.zeros((64, 1024), np.int64), "1024 frames of input, the chip takes 1 to 1023"),
        (np.zeros((64, 3), np.int64), "in_dim|frames"),
    ],
)
def test_a_wrong_sample_is_found(parts, sample, message):
    config, checkpoint, _, _ = parts
    with pytest.raises(AssertionError, match=message):
        assert not "\n".join(said(config, checkpoint, sample))


def test_weights_that_are_all_zero_need_their_bits_said(parts):
    config, checkpoint, sample, layers = parts
    checkpoint["state_dict"]["mask.op.weight"].zero_()
    assert said(config, checkpoint, sample) == []
    del layers["mask"]["quantization"]
    assert said(config, checkpoint, sample) == [
        "layer 9 (mask): all weights are 0: without `quantization` the tool takes them for 1 bit"
    ]


def test_eight_blocks_are_two_layers_too_many():
    network = tcn((1, 1, 1, 1, 1, 1, 1, 1))
    assert said(*package(network)) == ["layer 32 (add8): 34 layers, the chip has 32"]


def test_128_hidden_channels_exhaust_the_kernel_memory():
    network = tcn((1, 2, 4, 8, 16, 32, 64), hidden=128)
    assert said(*package(network)) == [
        "layer 26 (dilated7): its weights end at column 860 of 768: the kernel memory is exhausted"
    ]


@pytest.mark.parametrize("hidden", [64, 96, 104])
def test_seven_blocks_of_up_to_104_hidden_channels_fit(hidden):
    assert said(*package(tcn((1, 2, 4, 8, 16, 32, 64), hidden=hidden, bias=True))) == []


def test_more_biases_than_a_group_of_bias_memory_has_are_found():
    assert said(*package(tcn((), outputs=600, bias=True))) == [
        "layer 1 (mask): 600 biases, but the best group of bias memory has 512 left"
    ]


def test_two_sums_of_weights_more_than_there_are_columns_name_the_first_layer_only():
    lines = said(*package(tcn((64,) * 7, hidden=128)))
    assert sum("kernel memory" in line for line in lines) == 1
