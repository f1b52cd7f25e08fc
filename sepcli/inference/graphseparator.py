"""Separate audio of any length by an exported graph, with ONNX Runtime alone."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from sepcli.dsp.wiener import filter_parts
from sepcli.errors import SepcliError
from sepcli.graphs.onnx import Graph, OnnxRunner, Resemblance, open_graph, resemblance_of
from sepcli.graphs.whole import OnnxWhole
from sepcli.inference.blockwise import Method, Separates, at_rate
from sepcli.inference.segments import grid, in_segments
from sepcli.inference.stream import Sources, Stream, batched, check_channels, unbatched
from sepcli.signals.resampling import resample


class GraphSeparator(Separates):
    """A graph that `sepcli export` wrote, ready to separate audio, as an `inference.Separator`.

    path: its file, or what was opened. threads: None for all cores. model: gives the model that it
    is the graph of, where that can leave out the work for some of the sources. Raises SepcliError.
    """

    def __init__(
        self,
        path: Path | Graph,
        method: Method | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        model: Callable[[], Separates] | None = None,
    ) -> None:
        self.method = method or Method()
        if isinstance(path, Path):
            path = open_graph(path, threads=threads or 0, device=device, steady=False)
        graph, path, self._model = path, path.path, model
        if self.method.griffin_lim or self.method.vocoder:
            raise SepcliError(
                f"{path}: Griffin-Lim and vocoders need the model itself; name its weights with -m"
            )
        self._runner: Any = (OnnxWhole if graph.kind == "offline" else OnnxRunner)(graph)
        if self.method.wiener and not getattr(self._runner, "spectral", False):
            raise SepcliError(
                f"{path}: estimates no spectra for a Wiener filter; choose a model that does with "
                "-m, such as an open_unmix"
            )
        self.sources, self.sample_rate = self._runner.sources, self._runner.sample_rate
        self.channels, self.conditioned = self._runner.channels, self._runner.conditioned
        self._beside = resemblance_of(path)
        self._resemblance: Resemblance | None = None

    def only(self, sources: Sequence[str]) -> Separates:
        """The same with no other `sources` than these: the model, if it saves most of the work."""
        if self._model and len(sources) < len(self.sources) - 1:  # without them and a residual
            return self._model().only(sources)
        chosen = copy.copy(self)
        chosen.sources = tuple(sources)
        return chosen

    def given(self, references: Sequence[np.ndarray], sample_rate: int) -> Self:
        """The same for recordings of what `references`, arrays (C, T), hold.

        Several are put together, one after the other. Raises SepcliError.
        """
        if not self.conditioned:
            raise SepcliError("the model takes no reference; choose another model with -m")
        chosen = copy.copy(self)
        chosen._runner = self._runner.given([self._reference(x, sample_rate) for x in references])
        return chosen

    @property
    def compares(self) -> bool:
        """Whether there is a graph that compares voices."""
        return self._beside.is_file()

    def resemblance(self, audio: np.ndarray) -> float:
        """How likely audio (C, T) at the model's rate is of whom the references are of, 0 to 1."""
        if self._resemblance is None:
            self._resemblance = Resemblance(self._beside, self._runner.sha256)
        x = np.repeat(audio.mean(0, keepdims=True), self.channels, 0)[None]
        return self._resemblance(np.ascontiguousarray(x, np.float32), self._runner.condition or [])

    def _reference(self, audio, sample_rate):
        audio = resample(np.asarray(audio, np.float32), sample_rate, self.sample_rate)
        if len(audio) == self.channels:
            return audio
        return np.repeat(audio.mean(0, keepdims=True), self.channels, 0)

    def stream(self, sample_rate: int, channels: int = 1, **choices: Any) -> Stream:
        """A `Stream(**choices)` to push live audio (C, n) into, at the model's own rate only."""
        if sample_rate != self.sample_rate:
            raise ValueError(f"the model runs at {self.sample_rate} Hz; resample {sample_rate} Hz")
        if isinstance(self._runner, OnnxWhole):
            raise SepcliError("the graph is for whole signals; export a causal model's to stream")
        return Stream(self._runner, channels, **choices)

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`."""
        check_channels(self.channels, channels)
        run = self._in_segments if isinstance(self._runner, OnnxWhole) else self._streamed
        if sample_rate == self.sample_rate:
            yield from run(blocks, channels)
        else:
            yield from at_rate(self.sample_rate, run, blocks, sample_rate, channels)

    @property
    def _kept(self):
        return [self._runner.sources.index(source) for source in self.sources]

    def _streamed(self, blocks, channels):
        return Sources(self._runner, channels, kept=self._kept).all_of(blocks)

    def _in_segments(self, blocks, channels):
        seconds, hop = self.method.segment_s or self._runner.segment_s, self._runner.hop
        length = max(1, round(seconds * self.sample_rate))
        if fixed := self._runner.length:
            geometry = replace(grid(fixed, self.method.overlap, hop), align=1)  # none is longer
        else:
            geometry = grid(length, self.method.overlap, hop)
        return in_segments(self._segment, blocks, geometry)

    def _segment(self, audio, _start):
        refine = self._filter if self.method.wiener else None
        x = batched(audio, self.channels)
        return unbatched(self._runner.run(x, kept=self._kept, refine=refine), len(audio))

    def _filter(self, y, x):
        """Filter the spectra of the sources; a single one shares the mixture with the rest."""
        if y.shape[1] > 1:
            return filter_parts(y, x, self.method.wiener)
        both = np.concatenate([y, x[:, None] - y], 1)
        filter_parts(both, x, self.method.wiener)
        y[...] = both[:, :1]
