"""Run a model by torch over audio of any length, sample rate and number of channels."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch

from sepcli.dsp.griffin_lim import griffin_lim
from sepcli.dsp.mel import magnitudes_of, mel_filters
from sepcli.dsp.wiener import WINDOW, wiener
from sepcli.errors import SepcliError
from sepcli.inference.blockwise import Method, Separates, at_rate
from sepcli.inference.segments import grid, in_segments
from sepcli.inference.stream import Sources, Stream, batched, check_channels, unbatched
from sepcli.inference.vocoder import FLOOR, MEL, MEL_BANDS, find_vocoder
from sepcli.models.modelfile import Card
from sepcli.nn.model import Model, checked
from sepcli.nn.runner import TorchRunner
from sepcli.nn.spectral import OfflineSpectralModel, with_phase
from sepcli.signals.resampling import resample


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
    def conditioned(self) -> bool:
        """Whether the model takes references, or has taken them."""
        return type(self.model).conditioned

    @property
    def compares(self) -> bool:
        """Whether it has a `resemblance`."""
        return self.model.compares

    @property
    def _kept(self):
        """Indices of `sources` among the model's."""
        return [self.model.sources.index(source) for source in self.sources]

    def only(self, sources: Sequence[str]) -> Self:
        """The same with no other `sources` than these, which saves work."""
        chosen = copy.copy(self)
        chosen.sources, chosen.model = tuple(sources), self.model.focused(sources)
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

    @torch.inference_mode()
    def resemblance(self, audio: np.ndarray) -> float:
        """How likely audio (C, T) at the model's rate is of whom the references are of, 0 to 1."""
        x = torch.from_numpy(audio).to(self.model.device).expand(self.model.channels, -1)
        return float(self.model.resemblance(x[None])[0])

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
        return Sources(TorchRunner(self.model), channels, kept=self._kept).all_of(blocks)

    def _in_segments(self, blocks, channels):
        """Run a model that is not causal on blocks (C, n) at its rate."""
        seconds = min(
            self.method.segment_s or self.model.segment_s, self.model.longest_s or math.inf
        )
        length = max(1, round(seconds * self.sample_rate))
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
        if not self.method.griffin_lim:  # one by one, which takes less memory
            return torch.stack([stft.synthesise(y, T) for y in spectra.unbind(1)], 1)
        if self.method.gl_init == "random":
            spectra = torch.polar(spectra.abs(), _random_phases(spectra, start // stft.hop))
        length = max(T, stft.size // 2 + 1)  # as `analyse` pads what is too short
        iterations = self.method.griffin_lim
        return griffin_lim(spectra, stft.window, stft.hop, length, iterations=iterations)[..., :T]

    def _filters(self, bands):
        model: Any = self.model
        filters = mel_filters(self.sample_rate, model.stft.size, bands)
        return filters.to(model.stft.window.device)


def _filtered(spectra, mixture, iterations):
    """The estimates (B, S, C, F, N) after a Wiener filter; a single one shares with the rest.

    They are replaced, window by window of the filter, so that they are in memory once.
    """
    S = spectra.shape[1]
    for y, x in zip(spectra.split(WINDOW, -1), mixture.split(WINDOW, -1), strict=True):
        sources = y if S > 1 else torch.cat([y, x[:, None] - y], 1)
        y.copy_(wiener(sources, x, iterations)[:, :S])
    return spectra


def _random_phases(spectra, first):
    """Phases for spectra (B, S, C, F, N) that depend on the frame, which `first` counts from."""
    *shape, N = spectra.shape
    phases = [np.random.default_rng(first + n).random(shape, np.float32) for n in range(N)]
    return 2 * torch.pi * torch.from_numpy(np.stack(phases, -1)).to(spectra.device)
