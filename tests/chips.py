"""Random networks and models for the tests of what the MAX78000 runs."""

import numpy as np
import torch
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.mixing import synthetic
from sepcli.models import build
from sepcli.models.modelfile import save
from sepcli.quant.chip import INPUT, ChipLayer, ChipNetwork
from sepcli.quant.grids import set_phase


def tcn(dilations=(1, 2, 4), *, hidden=64, inputs=64, outputs=128, bits=8, bias=False, seed=0):
    """Bottleneck, residual blocks and masks, with random integers for weights."""
    rng = np.random.default_rng(seed)
    one = 2 ** (bits - 1)

    def conv(name, source, cout, cin, taps=1, **more):
        return ChipLayer(
            name,
            "conv",
            (source,),
            weight=rng.integers(-one, one, (cout, cin, taps)).astype(np.int8),
            bias=rng.integers(-128, 128, cout).astype(np.int8) if bias else None,
            output_shift=-4,
            weight_bits=bits,
            **more,
        )

    layers, stream = [conv("bottleneck", INPUT, 64, inputs)], "bottleneck"
    for i, dilation in enumerate(dilations, 1):
        layers += [
            ChipLayer(f"keep{i}", "keep", (stream,), crop=(2 * dilation, 1)),
            conv(f"dilated{i}", stream, hidden, 64, 3, dilation=dilation, relu=True),
            conv(f"point{i}", f"dilated{i}", 64, hidden, crop=(0, 1)),
            ChipLayer(f"add{i}", "add", (f"keep{i}", f"point{i}")),
        ]
        stream = f"add{i}"
    layers.append(conv("mask", stream, outputs, 64))
    return ChipNetwork(inputs, tuple(layers))


def window(network, frames, seed=1):
    """A random window (C, T), int64, that gives `frames` frames."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (network.channels, frames + network.context))


def calibrated(seed=0, **settings):
    """A small quantised `tcn_max78000` with random weights and the ranges of generated audio."""
    torch.manual_seed(seed)
    model = build("tcn_max78000", **{"hidden": 16, "dilations": (1, 4), **settings})
    model.tcn.quantise()
    set_phase(model, "observe")
    model.train()(torch.from_numpy(audio(1.0, model.sample_rate))[None, None])
    set_phase(model, "frozen")
    return model.eval()


def audio(seconds, sample_rate=16000, seed=0):
    """Generated speech in noise (T,), float32."""
    rng, samples = np.random.default_rng(seed), int(seconds * sample_rate)
    speech = synthetic.speech(samples, sample_rate, rng, seed)
    return (speech + 0.02 * rng.standard_normal(samples)).astype(np.float32)


QUANTISED = {"quantized": {"target": "max78000"}}  # what the card of a model file says


def run(*args):
    return CliRunner().invoke(main, ["export-max78000", *map(str, args)])


def make(path, **changed):
    """Write a small quantised model; return the path."""
    settings = {"hidden": 16, "dilations": [1, 4], **changed}
    model = calibrated(**settings)
    save(path, "tcn_max78000", settings, model.state_dict(), QUANTISED)
    return path
