"""What the microcontroller does: sizes and tables of one model for host.h and host.c.

A table of 127 thresholds stands for compression and rounding of features, one of 256 values for the
sigmoid: neither a power nor an exponential is computed on the microcontroller.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sepcli.errors import SepcliError
from sepcli.max78000.plan import Plan
from sepcli.models.tcn_max78000 import FLOOR
from sepcli.quant.chip import HIGH

TEMPLATES = Path(__file__).parent
LARGEST = 3e38  # of single precision, more or less
FLOAT_BYTES = 4


class Host:
    """Sizes {name: whole number} and tables {name: array} of a quantised `TcnMax78000`.

    plan: of its network, for as many frames as one run is to give. Raises SepcliError when the
    transform's length is no power of two.
    """

    def __init__(self, model: Any, plan: Plan) -> None:
        self.stft = model.front_end == "stft"
        kernel, decoders = model.kernel, 1 if self.stft else len(model.sources)
        if self.stft and kernel & (kernel - 1):
            raise SepcliError(
                f"the transform has {kernel} samples, but host.c needs a power of two; train with "
                "`kernel: 256`"
            )
        network = plan.network
        self.sizes = {
            "SAMPLE_RATE": model.sample_rate,
            "SOURCES": len(model.sources),
            "DECODERS": decoders,
            "REST": len(model.sources) - decoders,
            "STFT": int(self.stft),
            "KERNEL": kernel,
            "HOP": model.hop,
            "FRAMES": plan.frames,
            "SAMPLES": plan.frames * model.hop,
            "DELAY": model.delay,
            "FEATURES": network.channels,
            "PARTS": kernel + 2 if self.stft else network.channels,
            "RING": plan.input.frames - network.dummies,
            "MASKS": network.channels_out // decoders,
            "LOGITS": network.channels_out,
            "PASSES": plan.input.passes,
            "PROCESSORS": plan.input.processors,
            "INSTANCES": -(-plan.input.processors // 4),
            "WORDS": plan.input.frames * plan.input.passes,
            "IN_OFFSET": plan.input.offset,
            "OUT_OFFSET": plan.steps[-1].written.offset,
        }
        exponents = [int(grid.exponent) for grid in (model.tcn.features, model.tcn.logits)]
        self.tables = {
            "thresholds": thresholds(exponents[0], model.compression),
            "sigmoid": 1 / (1 + np.exp(-np.arange(-128, 128) * 2.0 ** -exponents[1])),
        }
        if self.stft:
            self.sizes["CONSTANT"] = int(np.clip(np.floor(2.0 ** exponents[0] + 0.5), 0, HIGH))
            angles = 2 * np.pi * np.arange(kernel // 2) / kernel
            self.tables |= {
                "analysis": model.stft.window.numpy(),
                "synthesis": model.stft.synthesis_window.numpy() / kernel,
                "cosines": np.cos(angles),
                "sines": np.sin(angles),
            }
        else:
            self.tables |= {
                "encoder": model.bank.encoder.conv.weight.detach().numpy()[:, 0],
                "decoder": model.bank.decoder.conv.weight.detach().numpy()[:, 0],
            }

    @property
    def header(self) -> str:
        """The text of host.h."""
        width = max(map(len, self.sizes))
        sizes = [f"#define HOST_{name:{width}} {value}" for name, value in self.sizes.items()]
        return _template("host.h").replace("@sizes@", "\n".join(sizes))

    @property
    def source(self) -> str:
        """The text of host.c."""
        tables = "\n\n".join(_table(name, values) for name, values in self.tables.items())
        return _template("host.c").replace("@tables@", tables)

    @property
    def macs_per_frame(self) -> Any:
        """Multiply-accumulates per frame; host.c counts as many when built with HOST_COUNT."""
        kernel, filters = self.sizes["KERNEL"], self.sizes["FEATURES"]
        if self.stft:
            fourier = 2 * kernel * (kernel.bit_length() - 1)
            return 2 * (kernel + fourier) + 2 * (kernel // 2 - 1) + 2 * (kernel // 2 + 1)
        return (1 + self.sizes["DECODERS"]) * filters * (kernel + 1)

    @property
    def table_bytes(self) -> int:
        """Bytes of constant tables in single precision."""
        return FLOAT_BYTES * sum(table.size for table in self.tables.values())

    @property
    def state_bytes(self) -> Any:
        """Bytes of `host_state` in single precision."""
        size = self.sizes
        reals = size["KERNEL"] + size["FRAMES"] * size["PARTS"] + size["REST"] * size["SAMPLES"]
        reals += size["DECODERS"] * (size["KERNEL"] - size["HOP"])
        ring = size["RING"] * size["FEATURES"]
        return FLOAT_BYTES * (reals + -(-ring // FLOAT_BYTES) + 1)


def thresholds(exponent: Any, compression: float) -> Any:
    """The power of a magnitude from which its feature is at least 1, 2, ..., 127; (127,).

    The feature of the power p is c(p) 2^exponent, rounded, with c(p) = (p + FLOOR)^(compression/2)
    - FLOOR^(compression/2).
    """
    edges = (np.arange(1, HIGH + 1) - 0.5) * 2.0**-exponent
    powers = (edges + FLOOR ** (compression / 2)) ** (2 / compression) - FLOOR
    return np.minimum(powers, LARGEST)


def _template(name):
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _table(name, values):
    """A constant array in C; doubles as short as they can be told apart."""
    shape = "".join(f"[{n}]" for n in values.shape)
    return f"static const HOST_REAL {name}{shape} = {_braces(values)};"


def _braces(values, indent=""):
    if values.ndim > 1:
        rows = ",\n".join(_braces(row, indent + "    ") for row in values)
        return f"{{\n{rows}\n{indent}}}"
    inner, lines = indent + "    ", []
    numbers = [repr(float(value)) for value in values]
    for at in range(0, len(numbers), 4):
        lines.append(inner + ", ".join(numbers[at : at + 4]))
    return f"{indent}{{\n" + ",\n".join(lines) + f"\n{indent}}}"
