"""Grids and twins for the tests of quantisation."""

import torch

from sepcli.models import build
from sepcli.quant import cpu
from sepcli.quant.grids import CodeGrid, set_phase
from tests.models import randomise


def grid(low, high, bits=8):
    """A grid over the range from `low` to `high`."""
    made = CodeGrid(bits)
    made.low.fill_(low)
    made.high.fill_(high)
    return made


def twin_of(name, settings, seed=0):
    """A random model, and its twin after calibration on noise."""
    torch.manual_seed(seed)
    model = randomise(build(name, **settings))
    twin = cpu.prepare(model)
    set_phase(twin.train(), "observe")
    with torch.no_grad():
        twin(0.3 * torch.randn(4, 1, 3000))
    set_phase(twin.eval(), "frozen")
    return model, twin
