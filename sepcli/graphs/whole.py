"""Run a model's graph for whole signals with ONNX Runtime: no torch.

A graph has the inputs `x, condition0, ...` and the output `y`. Its metadata `sepcli` is that of a
streaming graph (see `graphs/onnx.py`) with the kind "offline", without states, and with "length"
(samples that it takes; null: any number). x and y are waveforms (B, C, T) and (B, S, C, T), or, for
the front end "stft", real and imaginary parts (B, C, 2, F, N) and (B, S, C, 2, F, N) of spectra,
and "stft" is {"window", "hop"}, or that of a causal model.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from sepcli.dsp.frames import flush
from sepcli.dsp.stft import CentredStft, ChunkedStft
from sepcli.graphs.onnx import (
    Graph,
    condition_of,
    conditions,
    fitting,
    foreign,
    lacking,
    opened,
    running,
)

SEGMENT_S = 20.0  # of long audio, at a time, where a graph says nothing


class OnnxWhole:
    """A graph for whole signals, a file or open; see `OnnxRunner`."""

    def __init__(self, graph: Path | Graph, condition: Path | None = None) -> None:
        path, self._session, about = opened(graph, "offline")
        self._path, self._beside = path, condition or condition_of(path)
        try:
            self.sample_rate, self.sources = about["sample_rate"], tuple(about["sources"])
            self.channels, self.hop = about["channels"], about["hop"]
            self.length, self.sha256 = about["length"], about["sha256"]
            self.segment_s = about.get("segment_s", SEGMENT_S)
            self.conditioned = bool(about["conditions"])
            self._transform = None
            if about["front_end"] == "stft":
                self._transform = _transform(about["stft"])
        except (KeyError, TypeError) as error:
            raise foreign(path, error) from None
        self._names = [node.name for node in self._session.get_inputs()]
        self.condition: list[np.ndarray] | None = None if self.conditioned else []

    @property
    def spectral(self) -> bool:
        """Whether it maps the spectra of a centred transform, which can be refined."""
        return isinstance(self._transform, CentredStft)

    def given(self, references: Sequence[np.ndarray]) -> Self:
        """The same for what references, arrays (C, T) at the model's rate, are of."""
        chosen = copy.copy(self)
        chosen.condition, _ = conditions(self._beside, self.sha256, references)
        return chosen

    def run(
        self,
        x: np.ndarray,
        *,
        kept: Sequence[int] | None = None,
        refine: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> np.ndarray:
        """Separate signals (B, C, T) into (B, S, C, T); T is at most `length`, where there is one.

        Shorter ones are followed by zeros. kept: the indices of the sources to give, all if None.
        refine: changes the spectra of all sources, (B, S, C, 2, F, N), given the mixture's
        (B, C, 2, F, N), where `spectral`.
        """
        if self.condition is None:
            raise lacking(self._path)
        kept = range(len(self.sources)) if kept is None else kept
        if self.length is None:
            return self._run(x, kept, refine)
        padded = np.pad(x, ((0, 0), (0, 0), (0, self.length - x.shape[2])))
        y = [self._run(item[None], kept, refine) for item in padded]  # it takes one at a time
        return np.concatenate(y)[..., : x.shape[2]]

    def _run(self, x, kept, refine):
        spectra = x if self._transform is None else self._transform.analyse(x)
        condition = [np.repeat(each, len(x), 0) for each in self.condition or []]
        with running(self._path):
            feed = dict(zip(self._names, [np.ascontiguousarray(spectra), *condition], strict=True))
            y = self._session.run(None, feed)[0]
            y = fitting(y, len(x), len(self.sources), *spectra.shape[1:])
        if refine:
            refine(y, spectra)
        parts = (y[:, source] for source in kept)
        if self._transform:
            parts = (self._transform.synthesise(each, x.shape[2]) for each in parts)
        return np.stack(list(parts), 1)


class DelayedStft:
    """The transform of a causal model on whole signals (..., T), and back."""

    def __init__(self, **settings: Any) -> None:
        self.stft = ChunkedStft(**settings)
        self.hop, self.delay = self.stft.stride, self.stft.overlap

    def analyse(self, x: np.ndarray) -> np.ndarray:
        """The spectrum (..., 2, F, N) of samples (..., T), until all of them would come out."""
        rows = x.reshape(-1, x.shape[-1])
        rows = np.pad(rows, ((0, 0), (0, flush(x.shape[-1], self.hop, self.delay))))
        parts, _ = self.stft.analyse(rows, self.stft.initial_state(len(rows)))
        return parts.reshape(*x.shape[:-1], *parts.shape[1:])

    def synthesise(self, parts: np.ndarray, length: int) -> np.ndarray:
        """The samples (..., length) of the spectrum (..., 2, F, N)."""
        rows = parts.reshape(-1, *parts.shape[-3:])
        y, _ = self.stft.synthesise(rows, self.stft.initial_state(len(rows)))
        return y[:, self.delay :][:, :length].reshape(*parts.shape[:-3], length)


def _transform(settings: dict[str, Any]) -> Any:
    return CentredStft(**settings) if "hop" in settings else DelayedStft(**settings)
