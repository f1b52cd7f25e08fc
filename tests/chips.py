"""Random networks for the tests of what the MAX78000 runs."""

import numpy as np

from sepcli.nn.chip import INPUT, ChipLayer, ChipNetwork


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
