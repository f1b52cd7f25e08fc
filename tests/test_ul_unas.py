"""UL-UNAS and what stands beside it: bands, blocks, forms for graphs, levels, and its weights."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sepcli.layers.ul_unas import CausalConv, Shape, erb_bands, shuffle
from sepcli.models import build
from tests.models import TINY, UNAS, randomise

RECIPE = Path(__file__).parent.parent / "recipes/denoise"


def settings(name):
    return dict(TINY)[name]


def recipe(name):
    """A script of the recipe, as a module."""
    spec = importlib.util.spec_from_file_location(name, RECIPE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_bin_is_shared_between_the_bands_around_it():
    """As numpy interpolates between the bands' middles."""
    bands = erb_bands(257, 65, 64, 16000).numpy()
    middles = bands.argmax(1)
    expected = [np.interp(np.arange(192), middles, row) for row in np.eye(64)]
    np.testing.assert_allclose(bands, expected, atol=1e-6)
    assert np.all(np.diff(np.diff(middles)) > -2)  # wider and wider, up to rounding
    assert middles[0] == 0
    assert middles[-1] == 191


@pytest.mark.parametrize("count", [1, 193])
def test_too_many_bands_for_the_bins_are_refused(count):
    with pytest.raises(ValueError, match=f"192 bins from 65 on are too few for {count} bands"):
        erb_bands(257, 65, count, 16000)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (("wide", 4, 2, 3, 1), "unknown block 'wide'; choose from plain, separable, bottleneck"),
        (("plain", 4, 2, 4, 1), "odd kernel over bands"),
        (("plain", 4, 2, 3, 3), "stride 1 or 2"),
        (("separable", 5, 2, 3, 1), "even number of channels"),
    ],
)
def test_what_no_block_is_is_refused(block, message):
    with pytest.raises(ValueError, match=message):
        build("ul_unas", **UNAS | {"encoder": (block,)})


def test_a_stride_needs_an_odd_number_of_bands():
    with pytest.raises(ValueError, match="odd number of bands, not 16"):
        build("ul_unas", **UNAS | {"bins": 8})


def test_channels_are_shuffled_as_torch_does():
    x = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(shuffle(x), nn.ChannelShuffle(2)(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_hears_the_present_and_the_past(stride):
    """Whatever the stride, an impulse in frame 1 is heard from frame 1 on."""
    conv = CausalConv(2, Shape("plain", 3, 3, 3, stride), up=True)
    x = torch.zeros(1, 2, 5, 9)
    with torch.no_grad():
        silence, _ = conv.step(x, conv.initial_state(9))
        x[:, :, 1, 4] = 1
        y, _ = conv.step(x, conv.initial_state(9))
    assert y.shape[3] == (17 if stride == 2 else 9)
    heard = (y - silence).abs().sum((0, 1, 3)) > 0
    assert heard.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("name", ["ul_unas", "unas_lstm"])
def test_the_form_for_graphs_gives_what_the_model_gives(name):
    torch.manual_seed(0)
    model = randomise(build(name, **settings(name))).double()
    x = torch.randn(2, 2, 33, 6, dtype=torch.float64)
    form, frames = model.exported(), []
    state = form.core_state(2)
    with torch.no_grad():
        expected, _ = model.core(x, model.core_state(2))
        for frame in x.split(form.hops, -1):
            y, state = form.core(frame, state)
            frames.append(y)
    torch.testing.assert_close(torch.cat(frames, -1), expected)


def test_the_defaults_are_those_of_the_published_graph_and_of_less_than_a_million_in_all():
    sizes = {name: build(name) for name in ("ul_unas", "unas_lstm")}
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in sizes.items()}
    # 170,751 numbers are in the graph that the authors publish; 24,576 of them are the bands and
    # 385 folded away: biases and statistics of batch norms, and constants.
    assert counts == {"ul_unas": 145_790, "unas_lstm": 998_377}
    assert {model.latency for model in sizes.values()} == {512}


def test_what_is_frozen_does_not_learn():
    torch.manual_seed(0)
    model = randomise(build("unas_lstm", **settings("unas_lstm"), frozen=True)).train()
    model(torch.randn(2, 1, 2000)).square().mean().backward()
    for part, weight in model.named_parameters():
        frozen = part.startswith("unas.")
        assert frozen == (weight.grad is None)
        assert frozen or weight.grad.abs().max() > 0, part


@pytest.mark.parametrize("gain", [1e-2, 10.0])
def test_both_networks_together_are_deaf_to_the_level(gain):
    torch.manual_seed(0)
    model = randomise(build("unas_lstm", **settings("unas_lstm"))).double()
    x = torch.randn(1, 1, 3000, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(gain * x), gain * model(x), rtol=1e-3, atol=1e-5 * gain)


@pytest.mark.parametrize("share", [-60.0, 0.0, 60.0])
def test_the_shares_say_whose_gains_they_are(share):
    torch.manual_seed(0)
    model = randomise(build("unas_lstm", **settings("unas_lstm")))
    x, states = torch.randn(1, 2, 33, 8), model.core_state()
    with torch.no_grad():
        model.share.fill_(share)
        y, _ = model.core(x, states)
        first, level, _ = model.lstm.logits(x, states[0])
        heard = level.transpose(1, 2).log10() / 0.3 - model.level
        second, _ = model.unas.gains(x, states[1], heard)
    weight = 1 / (1 + np.exp(-share))
    expected = x * (weight * first.sigmoid() + (1 - weight) * second)[:, None]
    torch.testing.assert_close(y, expected)


def test_a_gru_of_a_graph_is_that_of_torch():
    """By ONNX Runtime, both ways."""
    make, start = onnx.helper, recipe("start")
    rng = np.random.default_rng(0)
    shapes = {"W": (2, 12, 3), "R": (2, 12, 4), "B": (2, 24)}
    weights = {name: rng.standard_normal(s).astype("f") for name, s in shapes.items()}
    node = make.make_node(
        "GRU", ["x", *weights], ["y"], hidden_size=4, direction="bidirectional",
        linear_before_reset=1,
    )  # fmt: skip
    graph = make.make_graph(
        [node],
        "gru",
        [make.make_tensor_value_info("x", 1, [7, 2, 3])],
        [make.make_tensor_value_info("y", 1, [7, 2, 2, 4])],
        [onnx.numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
    x = rng.standard_normal((7, 2, 3)).astype("f")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": x})

    reader = start.Reader.__new__(start.Reader)
    reader.nodes = [("GRU", [torch.from_numpy(weights[name]) for name in "WRB"])]
    gru = nn.GRU(3, 4, bidirectional=True)
    gru.load_state_dict(reader.gru(gru))
    with torch.no_grad():
        y, _ = gru(torch.from_numpy(x))
    np.testing.assert_allclose(y, expected.transpose(0, 2, 1, 3).reshape(7, 2, 8), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_and_its_batch_norm_become_one_layer(stride):
    """As the graph has it: a frame of zeros before the past, and the last frame of what comes."""
    start = recipe("start")
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(4, 4, (2, 3), (1, stride), (1, 1), groups=4)
    norm = nn.BatchNorm2d(4).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    ours = CausalConv(4, Shape("separable", 4, 2, 3, stride), groups=4, up=True)
    reader = start.Reader.__new__(start.Reader)
    known = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    reader.nodes = [
        ("ConvTranspose", [theirs.weight, theirs.bias]),
        ("BatchNormalization", known),
        ("Conv", []),
    ]
    past, x = torch.randn(2, 1, 4, 1, 9)
    with torch.no_grad():
        ours.conv.load_state_dict(reader.convolution(ours.conv))
        both = torch.cat([torch.zeros_like(past), past, x], 2)
        expected = norm(theirs(both)[:, :, -1:])
        y, _ = ours.step(x, past)
    torch.testing.assert_close(y, expected)
