"""Models of one number per source, and training loops of them."""

import numpy as np
import torch
from torch import nn

from sepcli.data.datasets import Items
from sepcli.mixing.source import Drawn, Source
from sepcli.nn.model import Model
from sepcli.training.loop import (
    State,
    fit,
)
from sepcli.training.settings import Settings

T = 400


QUICK = {"lr": 0.05, "batch": 2, "warmup": 0, "log_every": 1, "validate_every": 100}


class Shares(Source):
    """White noise x as the mixture of `a` = 0.8 x and `b` = 0.2 x; the items in `bad` are NaN."""

    def __init__(self, bad=()):
        self.bad = bad

    def draw(self, seed, index, step=None):
        x = np.random.default_rng([seed, index]).standard_normal((1, T), dtype=np.float32)
        x = x * np.float32(np.nan) if index in self.bad else x
        return Drawn(x, {"a": np.float32(0.8) * x, "b": np.float32(0.2) * x})


class Gains(Model):
    """One gain for each source; (B, 1, T) -> (B, 2, 1, T)."""

    sample_rate, sources, channels = 1000, ("a", "b"), 1

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, x):
        return self.gain[:, None, None] * x[:, None]


def data(items=0, seed=0, **source):
    return Items(Shares(**source), ("a", "b"), items=items, seed=seed)


def make(model=Gains, **settings):
    """A fresh (state, settings) of the quick settings changed by `settings`."""
    torch.manual_seed(0)
    settings = Settings(**QUICK | settings)
    return State(model(), settings), settings


def train(state, settings, *, train_data=None, stop=None):
    """Run the loop, to the step `stop` where given; returns the records."""
    records = []
    for record in fit(state, train_data or data(), data(4, seed=1), settings):
        records.append(record)
        if record["event"] == "step" and record["step"] == stop:
            break
    return records


def exhaust(generator):
    """What the generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value
