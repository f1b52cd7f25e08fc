"""Random signals and rooms out of recordings, drawn one after the other or by number."""

from collections.abc import Iterator, Sequence
from itertools import count
from os import PathLike
from typing import Any

import numpy as np

from sepcli.errors import SepcliError
from sepcli.recordings import stored
from sepcli.recordings.pools import Pool

Sources = str | PathLike | Sequence[str | PathLike]


class _Sampler:
    """Draw k is a function of (seed, k); iterating gives draw 0, 1, 2, ... without end."""

    def __init__(self, sources: Sources, what: str, seed: int) -> None:
        single = isinstance(sources, str | PathLike)
        self.pool = Pool([str(x) for x in ([sources] if single else sources)], what=what)
        self.seed = seed

    def draw(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.draw, count())

    def _rng(self, index):
        return np.random.default_rng([self.seed, index])


class SignalSampler(_Sampler):
    """Random crops of recordings, mono float32 (T,); of each file no more than the crop is read.

    sources: folders, globs, files, lists and packs, each with =WEIGHT if it is to be drawn more
    often; see `Pool`. kind: what is taken from packs, "speech" or "noise"; all if not given.
    duration_s: of a crop; recordings that are shorter are followed by others.
    min_rms_db: crops are drawn again where they are quieter than this, re full scale.
    Raises SepcliError where there is no audio, or all of it is too quiet.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        sample_rate: int = 16000,
        kind: str = "signals",
        duration_s: float = 5.0,
        min_rms_db: float = -38.0,
        seed: int = 0,
    ) -> None:
        super().__init__(sources, kind, seed)
        self.sample_rate, self.samples = sample_rate, round(duration_s * sample_rate)
        self.min_rms_db = min_rms_db
        if self.samples < 1:
            raise SepcliError(f"duration_s must be above 0, not {duration_s}")

    def draw(self, index: int) -> np.ndarray:
        """Crop `index`, (T,)."""
        return self.draw_with_record(index)[0]

    def draw_with_record(self, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Crop `index`, (T,), and where it is from: a list of {"path", "start", "stop"}."""
        rng, floor = self._rng(index), self.min_rms_db
        return self.pool.crop(self.samples, self.sample_rate, rng, min_rms_db=floor)


class RirSampler(_Sampler):
    """Random room impulse responses, (R,) float32: the first channel, the direct sound at 1.0.

    sources: see `SignalSampler`. Raises SepcliError for one that is silent.
    """

    def __init__(self, sources: Sources, *, sample_rate: int = 16000, seed: int = 0) -> None:
        super().__init__(sources, "rir", seed)
        self.sample_rate = sample_rate

    def draw(self, index: int) -> np.ndarray:
        """Response `index`, (R,)."""
        _, rir = self.pool.draw_for(self._read, self._rng(index))
        return rir

    def _read(self, path):
        rir = stored.read(path, sample_rate=self.sample_rate)[0][0]
        peak = rir[np.argmax(np.abs(rir))]
        if not peak:
            raise SepcliError(f"{path}: silent, so it is not an impulse response; remove it")
        return rir / peak
