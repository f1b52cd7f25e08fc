"""Kinds of data made as whole batches, on the device that trains, of what is kept in memory.

Item i is a function of (seed, i), as everywhere; there is nothing for workers to do.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch

from sepcli.data import batched
from sepcli.mixing.mixtures import Mixture
from sepcli.mixing.source import Source


class Kept(Source):
    """Items by number, and whole batches of them on any device, by `draw_many`.

    settings: the class of them, which has `duration_s` and `sample_rate`. memory: the module whose
    `find` looks up the sources that they name, and whose `load` keeps excerpts of these.
    """

    draws_batches = True
    settings: type
    memory: Any

    def __init__(self, spec: Any = None) -> None:
        """Look up the spec's sources; raises SepcliError where there is no audio."""
        self.spec = spec or self.settings()
        self.samples = round(self.spec.duration_s * self.spec.sample_rate)
        self._sources = self.memory.find(self.spec)
        self._memory = lru_cache(maxsize=1)(self._load)
        self._memory_on = lru_cache(maxsize=2)(lambda seed, device: self._memory(seed).to(device))

    def __getstate__(self):
        return self.spec

    def __setstate__(self, spec):
        self.__init__(spec)

    def _begun(self, seed, indices, device, parts):
        """What is kept, on a device, and the `Draws` of so many parts of the items."""
        draws = [batched.Draws(seed, indices, part) for part in range(parts)]
        return self._memory_on(seed, str(device)), draws

    def _load(self, seed):
        return self.memory.load(self.spec, self._sources, seed)

    def recordings(self) -> Iterator[Any]:
        """All that may be drawn from."""
        return chain.from_iterable(s.recordings() for s in self._sources.values() if s)

    def draw(self, seed: int, index: int, step: int | None = None) -> Mixture:
        """Item `index` of the stream `seed` (both ints, 0 or more): a `Mixture`."""
        mix, refs, *enroll = self.draw_many(seed, [index])
        refs = {name: x[0].numpy() for name, x in refs.items()}
        enrolled = enroll[0][0].numpy() if enroll else None
        return Mixture(mix[0].numpy(), refs, {}, self.spec.sample_rate, enrolled)


class Making:
    """One batch in the making: signals are (B, ..., T), and a number of each item (B, 1, ...).

    axes: of a signal, without the batch.
    """

    axes = 1

    def __init__(self, spec, kept, draws, samples, device):
        self.spec, self.kept, self.draws, self.samples = spec, kept, draws, samples
        self.device = device

    def _equaliser(self, draws, deviation_db, probability):
        """Frequency responses (B, CURVE)."""
        rate, chosen = self.spec.sample_rate, draws.happens(probability)
        knots, gains_db = draws.knots(rate / 2), deviation_db * draws.normal(batched.KNOTS)
        return batched.equaliser(knots, np.where(chosen[:, None], gains_db, 0), rate)

    def _low_pass(self, draws, probability):
        """Frequency responses (B, CURVE)."""
        chosen, cutoff_hz = draws.happens(probability), draws.uniform(*self.spec.low_pass_hz)
        curve = batched.low_pass(cutoff_hz, self.spec.sample_rate)
        return np.where(chosen[:, None], curve, 1)

    def _varied(self, signal, draws, largest_db, probability):
        """Signals, some of them through gains that vary over time and frequency."""
        chosen, deviation_db = draws.happens(probability), draws.uniform(0, largest_db)
        if not chosen.any():
            return signal
        knots = draws.normal(batched.MOMENTS * batched.PLACES) * deviation_db[:, None]
        rows = self._rows(chosen)
        given = signal[rows]
        flat = given.reshape(-1, self.samples)
        gains_db = knots.reshape(-1, batched.MOMENTS, batched.PLACES)[chosen]
        gains_db = gains_db.repeat(len(flat) // len(given), 0).astype(np.float32)
        changed = batched.varied(flat, torch.from_numpy(gains_db).to(self.device))
        return signal.index_copy(0, rows, changed.reshape(given.shape))

    def _rows(self, chosen):
        """The numbers of the chosen items, on the device."""
        return torch.from_numpy(np.flatnonzero(chosen)).to(self.device)

    def _tensor(self, numbers):
        """NumPy numbers (B, ...) as float32 on the device, to be spread over the axes behind B."""
        numbers = torch.from_numpy(np.ascontiguousarray(numbers, np.float32)).to(self.device)
        return numbers[(slice(None), *(None,) * self.axes)]
