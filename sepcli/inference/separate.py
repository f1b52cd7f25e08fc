"""Run a model over audio of any length, sample rate and number of channels, block by block."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from sepcli.audio import Resampler
from sepcli.audio.resample import resample
from sepcli.dsp.griffin_lim import griffin_lim
from sepcli.dsp.mel import magnitudes_of, mel_filters
from sepcli.dsp.wiener import wiener
from sepcli.errors import SepcliError
from sepcli.inference.segments import grid, in_segments
from sepcli.inference.stream import (
    Sources,
    Stream,
    TorchRunner,
    batched,
    check_channels,
    unbatched,
)
from sepcli.inference.vocoder import FLOOR, MEL, MEL_BANDS, find_vocoder
from sepcli.models.modelfile import Card, load_model
from sepcli.nn.model import Model, checked
from sepcli.nn.spectral import OfflineSpectralModel, with_phase

BLOCK_SECONDS = 8.0  # fed to the model at a time: enough to be fast, little enough for RAM


def pick_device(name: str) -> torch.device:
    """The torch device called `name`; `auto` takes a GPU when there is one.

    Raises SepcliError when the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):  # what torch raises depends on how it was built
        raise SepcliError(f"device {name!r} is not available here; use --device cpu") from None
    return device


@dataclass(frozen=True)
class Method:
    """How models are run.

    segment_s, overlap: models that need what comes later are run on segments of so many seconds,
        which share that part with the one before; see `inference.segments`. Longer ones take more
        memory.
    wiener: iterations of the Wiener filter, in which the estimates share out the mixture.
    vocoder: what makes sound of the mel bands of the estimates (`inference.vocoder`): "mel" makes
        magnitudes of them, which keep the phase that the estimates had; else a callable or the
        file of a model, which has phases of its own.
    griffin_lim: iterations for a phase that fits the magnitudes that the model estimates; 0 leaves
        it as the model gives it, which is the mixture's for most.
    gl_init: where these begin, at the phase of the estimates (`mix`) or a `random` one, which
        depends on the frame alone.
    """

    segment_s: float = 20.0
    overlap: float = 0.15
    wiener: int = 0
    vocoder: object = None
    griffin_lim: int = 0
    gl_init: str = "mix"


class Separates:
    """What separates audio block by block: with `sources` and `blocks`, as `Separator`."""

    sources: tuple[str, ...]

    def only(self, sources: Sequence[str]) -> "Separates":
        """The same with no other `sources` than these, which saves work."""
        raise NotImplementedError

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """Separate an iterable of blocks (C, n) into blocks (S, C, m)."""
        raise NotImplementedError

    def separate(self, audio: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Separate audio (C, T) float32 at any rate; return {source: (C, T)} at the same rate."""
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2:
            raise ValueError(f"expected (channels, samples), got shape {audio.shape}")
        step = block_frames(sample_rate)
        blocks = (audio[:, at : at + step] for at in range(0, audio.shape[1], step))
        nothing = np.zeros((len(self.sources), *audio[:, :0].shape), np.float32)
        parts = [nothing, *self.blocks(blocks, sample_rate, audio.shape[0])]
        return dict(zip(self.sources, np.concatenate(parts, -1), strict=True))


class Separator(Separates):
    """A model ready to separate audio: `load("denoise").separate(audio, 44100)["speech"]`."""

    def __init__(
        self, model: Model, card: Card | None = None, method: Method | None = None
    ) -> None:
        self.model, self.card, self.method = checked(model), card, method or Method()
        self.sources, self.sample_rate = model.sources, model.sample_rate
        self._spectral = isinstance(model, OfflineSpectralModel)
        self._vocoder = find_vocoder(self.method.vocoder)
        refined = self.method.griffin_lim or self.method.wiener or self.method.vocoder
        if refined and not self._spectral:
            raise SepcliError(
                "the model estimates no spectra for a Wiener filter, Griffin-Lim or a vocoder; "
                "choose one that does with -m, such as an open_unmix"
            )

    @property
    def _kept(self):
        """Indices of `sources` among the model's."""
        return [self.model.sources.index(source) for source in self.sources]

    def only(self, sources: Sequence[str]) -> Self:
        """The same with no other `sources` than these, which saves work."""
        chosen = copy.copy(self)
        chosen.sources = tuple(sources)
        return chosen

    def given(self, references: Sequence[np.ndarray], sample_rate: int) -> Self:
        """The same for recordings of what `references`, arrays (C, T), hold; encoded here, once.

        Raises SepcliError when the model takes no references.
        """
        x = [self._reference(audio, sample_rate) for audio in references]
        chosen = copy.copy(self)
        with torch.no_grad():
            chosen.model = self.model.given(self.model.condition(x))
        return chosen

    def _reference(self, audio, sample_rate):
        """A reference (C, T) at any rate as the model takes it, (1, C', T')."""
        audio = resample(np.asarray(audio, np.float32), sample_rate, self.sample_rate)
        x = torch.from_numpy(audio).to(self.model.device)
        if len(x) != self.model.channels:
            x = x.mean(0, keepdim=True).expand(self.model.channels, -1)
        return x[None]

    def stream(self, sample_rate: int, channels: int = 1, **choices: Any) -> Stream:
        """A `Stream(**choices)` to push live audio (C, n) into, at the model's own rate only."""
        if sample_rate != self.sample_rate:
            raise ValueError(f"the model runs at {self.sample_rate} Hz; resample {sample_rate} Hz")
        return Stream(TorchRunner(self.model), channels, **choices)

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """Separate an iterable of blocks (C, n) into blocks (S, C, m); in all, as many samples out.

        Memory does not grow with the length. Raises SepcliError when the model does not take so
        many channels (see `inference.stream.check_channels`), or needs a reference.
        """
        check_channels(self.model.channels, channels)
        run = self._causal if self.model.complete().causal else self._in_segments
        if sample_rate == self.sample_rate:
            yield from run(blocks, channels)
        else:
            yield from at_rate(self.sample_rate, run, blocks, sample_rate, channels)

    def _causal(self, blocks, channels):
        """Stream blocks (C, n) at the model's rate."""
        sources = Sources(TorchRunner(self.model), channels, kept=self._kept)
        for block in blocks:
            yield sources.push(block)
        yield sources.finish()

    def _in_segments(self, blocks, channels):
        """Run a model that is not causal on blocks (C, n) at its rate."""
        length = max(1, round(self.method.segment_s * self.sample_rate))
        geometry = grid(length, self.method.overlap, self.model.hop)
        return in_segments(self._segment, blocks, geometry)

    @torch.inference_mode()
    def _segment(self, audio, start):
        """The sources (S, C, T) of a segment (C, T) that begins at the sample `start`."""
        x = torch.from_numpy(batched(audio, self.model.channels)).to(self.model.device)
        y = self._by_spectra(x, start) if self._spectral else self.model.estimates(x)[:, self._kept]
        return unbatched(y.cpu().numpy(), len(audio))

    def _by_spectra(self, x, start):
        """The sources (B, S, C, T) of x (B, C, T), with what `method` does to their spectra."""
        model: Any = self.model
        stft, T = model.stft, x.shape[-1]
        mixture = stft.analyse(x)
        spectra = self.model.estimates(mixture)  # (B, S, C, F, N)
        if self.method.wiener:
            spectra = _filtered(spectra, mixture, self.method.wiener)
        spectra = spectra[:, self._kept]
        if self._vocoder:
            mel = self._filters(self._vocoder.bands) @ spectra.abs()  # (B, S, C, M, N)
            y = self._vocoder(mel.clamp(min=FLOOR).log().flatten(0, 2), T)
            return y.reshape(*spectra.shape[:3], T)
        if self.method.vocoder == MEL:
            filters = self._filters(MEL_BANDS)
            spectra = with_phase(magnitudes_of(filters @ spectra.abs(), filters), spectra)
        if not self.method.griffin_lim:
            return stft.synthesise(spectra, T)
        if self.method.gl_init == "random":
            spectra = torch.polar(spectra.abs(), _random_phases(spectra, start // stft.hop))
        length = max(T, stft.size // 2 + 1)  # as `analyse` pads what is too short
        iterations = self.method.griffin_lim
        return griffin_lim(spectra, stft.window, stft.hop, length, iterations=iterations)[..., :T]

    def _filters(self, bands):
        model: Any = self.model
        filters = mel_filters(self.sample_rate, model.stft.size, bands)
        return filters.to(model.stft.window.device)


def at_rate(
    rate: int,
    run: Callable[[Iterator[np.ndarray], int], Iterator[np.ndarray]],
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
) -> Iterator[np.ndarray]:
    """Blocks (C, n) at `sample_rate` through `run` at `rate`; blocks (S, C, m), in all as long.

    run: maps (blocks, channels) at `rate` to blocks (S, C, m).
    """
    fed = given = 0  # samples that came in, and that went out
    outward: Any = None

    def inward():
        nonlocal fed
        resampler = Resampler(sample_rate, rate, channels)
        for block in blocks:
            fed += block.shape[1]
            yield resampler.process(block)
        yield resampler.process(np.zeros((channels, 0), np.float32), last=True)

    S = 0
    for block in run(inward(), channels):
        S = len(block)
        outward = outward or Resampler(rate, sample_rate, S * channels)
        block = outward.process(block.reshape(S * channels, -1))  # (S*C, m)
        given += block.shape[1]
        yield block.reshape(S, channels, -1)  # (S, C, m)
    if outward is None:
        return
    rest = outward.process(np.zeros((S * channels, 0), np.float32), last=True)
    missing = fed - given  # both resamplers round: pad or cut the end by a sample or two
    rest = np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, :missing]
    yield rest.reshape(S, channels, -1)


def _filtered(spectra, mixture, iterations):
    """The estimates (B, S, C, F, N) after a Wiener filter; a single one shares with the rest."""
    S = spectra.shape[1]
    if S == 1:
        spectra = torch.cat([spectra, mixture[:, None] - spectra], 1)
    return wiener(spectra, mixture, iterations)[:, :S]


def _random_phases(spectra, first):
    """Phases for spectra (B, S, C, F, N) that depend on the frame, which `first` counts from."""
    *shape, N = spectra.shape
    phases = [np.random.default_rng(first + n).random(shape, np.float32) for n in range(N)]
    return 2 * torch.pi * torch.from_numpy(np.stack(phases, -1)).to(spectra.device)


class Average(Separates):
    """Several separators as one: a source is the mean of those that find it, all weighing the same.

    `sources` are those of all models, in the order in which they first appear.
    """

    def __init__(self, separators: Iterable[Separates]) -> None:
        self.separators = list(separators)
        self.sources = tuple(dict.fromkeys(s for each in separators for s in each.sources))

    def only(self, sources: Sequence[str]) -> "Average":
        chosen = [
            each.only(found)
            for each in self.separators
            if (found := [source for source in sources if source in each.sources])
        ]
        average = Average(chosen)
        average.sources = tuple(sources)
        return average

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`: models whose blocks end elsewhere wait for each other."""
        feeds = itertools.tee(blocks, len(self.separators))
        flows = [
            each.blocks(feed, sample_rate, channels)
            for each, feed in zip(self.separators, feeds, strict=True)
        ]
        waiting = [  # what came out of each model and not yet of all
            np.zeros((len(each.sources), channels, 0), np.float32) for each in self.separators
        ]
        for block in flows[0]:
            waiting[0] = np.concatenate([waiting[0], block], -1)
            for i, flow in enumerate(flows[1:], 1):
                while waiting[i].shape[-1] < waiting[0].shape[-1]:
                    waiting[i] = np.concatenate([waiting[i], next(flow)], -1)
            ready = waiting[0].shape[-1]
            yield self._mean([each[..., :ready] for each in waiting])
            waiting = [each[..., ready:] for each in waiting]

    def _mean(self, estimates):
        """The sources (S, C, n) of each model's (S', C, n)."""
        mean = []
        for source in self.sources:
            found = [
                y[each.sources.index(source)]
                for each, y in zip(self.separators, estimates, strict=True)
                if source in each.sources
            ]
            mean.append(sum(found) / len(found))
        return np.stack(mean)


def with_mixture(
    separator: Separates, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separate as `Separator.blocks`; yields blocks of the mixture (C, n) and sources (S, C, n)."""
    heard = np.zeros((channels, 0), np.float32)  # and not yet separated

    def listen():
        nonlocal heard
        for block in blocks:
            heard = np.concatenate([heard, block], 1)
            yield block

    for y in separator.blocks(listen(), sample_rate, channels):
        n = y.shape[-1]
        mixture, heard = heard[:, :n], heard[:, n:]
        yield mixture, y


class WithResidual(Separates):
    """A separator with one more source, `residual`: the mixture without all the others."""

    def __init__(self, separator: Separates) -> None:
        self.separator = separator
        self.sources = (*separator.sources, "residual")

    def blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """As `Separator.blocks`."""
        for mixture, y in with_mixture(self.separator, blocks, sample_rate, channels):
            yield np.concatenate([y, (mixture - y.sum(0))[None]])


def block_frames(sample_rate: int) -> int:
    """Frames of audio to read at a time."""
    return max(1, int(BLOCK_SECONDS * sample_rate))


def load(
    name: str | Path | Sequence[str | Path], device: str = "cpu", method: Method | None = None
) -> Separates:
    """Load the model `name` (shipped, a model file, or a run folder), ready to separate audio.

    A list of names gives the `Average` of the models.
    """
    if not isinstance(name, str | Path):
        loaded = [load(each, device, method) for each in name]
        return loaded[0] if len(loaded) == 1 else Average(loaded)
    model, card = load_model(name, pick_device(device))
    return Separator(model, card, method)
