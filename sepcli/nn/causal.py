"""What every causal model shares: offline separation is streaming in one chunk."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.dsp.frames import flush
from sepcli.nn.filterbank import Stft
from sepcli.nn.model import Condition, Model, State


def flat(state: State) -> list[torch.Tensor]:
    """The tensors of nested tuples, in order."""
    return [x for part in state for x in flat(part)] if isinstance(state, tuple) else [state]


def nested(like: State, tensors: Iterator[torch.Tensor]) -> State:
    """The next of `tensors` in nested tuples as `like`; undoes `flat`."""
    if isinstance(like, tuple):
        return tuple(nested(part, tensors) for part in like)
    return next(tensors)


class CausalModel(Model):
    """A separator of waveforms that can run chunk by chunk.

    A subclass has `initial_state` and `step`, and says of itself what a `Model` says; also

    hop: samples; a chunk has a whole number of hops.  delay: samples by which `step` is late.

    `core` and `core_state` are the part that an exported graph holds, between the two halves of
    the `front_end`: all of `step` when that is "waveform". `exported` may give them another form.
    """

    delay: int
    causal: bool = True
    front_end: str = "waveform"
    hops: int | None = None  # that `core` takes at a time; None: any number

    facts = (*Model.facts, "delay")

    @property
    def latency(self) -> int:
        """Algorithmic latency in samples: filling one hop, and the lag of the output."""
        return self.hop + self.delay

    @abstractmethod
    def initial_state(self, batch: int = 1, *condition: Condition) -> State:
        """The state before the first chunk."""
        raise NotImplementedError

    @abstractmethod
    def step(
        self, x: torch.Tensor, state: Any, *condition: Condition
    ) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, C, k*hop), any k >= 1, to (B, S, C, k*hop) and the next state.

        The output is `delay` samples late.
        """
        raise NotImplementedError

    def forward(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """Separate whole signals (B, C, T), any T >= 1, into (B, S, C, T)."""
        T = x.shape[-1]
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(f"expected (batch, {self.channels}, samples), got {tuple(x.shape)}")
        x = F.pad(x, (0, flush(T, self.hop, self.delay)))
        return self.run(x, *condition)[..., self.delay : self.delay + T]

    def run(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """Separate the padded signal (B, C, k*hop) in one chunk."""
        return self.step(x, self.initial_state(x.shape[0], *condition), *condition)[0]

    def core_state(self, batch: int = 1, *condition: Condition) -> State:
        """The state of `core` before the first chunk."""
        return self.initial_state(batch, *condition)

    def core(
        self, x: torch.Tensor, state: Any, *condition: Condition
    ) -> tuple[torch.Tensor, State]:
        """`step`, without what the front end does."""
        return self.step(x, state, *condition)

    def exported(self) -> Any:
        """What the graph is made from: `core`, `core_state` and `hops`, in the form that is fast.

        Its states may differ from the model's, but its outputs do not.
        """
        return self


class SpectralModel(CausalModel):
    """A causal model of one channel that estimates a spectrum between an STFT and its inverse.

    A subclass sets `stft`, and has `core_state` and `core`. A second source is the rest of the
    mixture.
    """

    stft: Stft
    spectral: bool = True
    front_end: str = "stft"
    channels: int = 1
    compilable: str = "core"  # compilers know no complex numbers

    def initial_state(self, batch: int = 1, *condition: Condition) -> State:
        """The state before the first sample."""
        tail = self.stft.initial_state(batch, next(self.parameters()))
        return tail, self.core_state(batch, *condition), tail

    def step(
        self, x: torch.Tensor, state: Any, *condition: Condition
    ) -> tuple[torch.Tensor, State]:
        """Map a chunk (B, 1, k*hop), any k >= 1, to (B, S, 1, k*hop), `delay` samples late."""
        past, core, tail = state
        x = x[:, 0]  # (B, T)
        spectrum, following = self.stft.analyse(x, past)  # (B, F, N)
        parts = torch.stack([spectrum.real, spectrum.imag], 1)  # (B, 2, F, N)
        parts, core = self.core(parts, core, *condition)
        parts = parts.to(x.dtype)  # of whatever autocast has made of them
        spectrum = torch.complex(parts[:, 0], parts[:, 1])  # (B, F, N)
        estimate, tail = self.stft.synthesise(spectrum, tail)
        estimates = [estimate]
        if len(self.sources) == 2:
            delayed = torch.cat([past, x], -1)[:, : x.shape[-1]]  # the mixture, as late
            estimates.append(delayed - estimate)
        return torch.stack(estimates, 1)[:, :, None], (following, core, tail)  # (B, S, 1, T)

    def forward(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """Separate whole signals (B, 1, T), any T >= 1, into (B, S, 1, T).

        Of their spectra (B, 1, F, N), complex, into those of the sources, (B, S, 1, F, N).
        """
        return self.spectra(x, *condition) if x.is_complex() else super().forward(x, *condition)

    def analyse(self, x: torch.Tensor) -> torch.Tensor:
        """The spectra (..., F, N), complex, of whole signals (..., T): what `forward` works on."""
        flat = F.pad(x, (0, flush(x.shape[-1], self.hop, self.delay))).flatten(0, -2)
        spectrum, _ = self.stft.analyse(flat, self.stft.initial_state(len(flat), flat))
        # Frames side by side, as models have them, and as losses are fastest.
        return spectrum.contiguous().unflatten(0, x.shape[:-1])

    def spectra(self, spectrum: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """The spectra (B, S, 1, F, N) of the sources in the mixture's (B, 1, F, N), complex."""
        parts = torch.cat([spectrum.real, spectrum.imag], 1)  # (B, 2, F, N)
        parts, _ = self.core(parts, self.core_state(spectrum.shape[0], *condition), *condition)
        parts = parts.to(spectrum.real.dtype)  # of whatever autocast has made of them
        estimate = torch.complex(parts[:, 0], parts[:, 1])[:, None]  # (B, 1, F, N)
        estimates = [estimate] if len(self.sources) == 1 else [estimate, spectrum - estimate]
        return torch.stack(estimates, 1)

    def synthesise(self, spectra: torch.Tensor, length: int) -> torch.Tensor:
        """The signals (..., length) of spectra (..., F, N)."""
        flat = spectra.flatten(0, -3)  # (B*S, F, N)
        x, _ = self.stft.synthesise(flat, self.stft.initial_state(len(flat), flat.real))
        return x[:, self.delay : self.delay + length].unflatten(0, spectra.shape[:-2])

    @abstractmethod
    def core_state(self, batch: int = 1, *condition: Condition) -> State:
        """The state of `core` before the first frame."""
        raise NotImplementedError

    @abstractmethod
    def core(
        self, x: torch.Tensor, state: Any, *condition: Condition
    ) -> tuple[torch.Tensor, State]:
        """Map the mixture's spectrum (B, 2, F, N) to the first source's, and the next state.

        The spectra are real and imaginary parts of N >= 1 frames.
        """
        raise NotImplementedError


def conform(cls: type[nn.Module]) -> type[Model]:
    """The class itself, or, if it is a plain nn.Module, the same as a `Model`.

    It is a `CausalModel` if it has `step`. Raises SepcliError when it lacks a method.
    """
    if issubclass(cls, Model):
        return cls
    base = CausalModel if hasattr(cls, "step") else Model
    made: Any = type(
        cls.__name__, (cls, base), {"__module__": cls.__module__, "__doc__": cls.__doc__}
    )
    return made


class OneFrameCore(nn.Module):
    """What `exported` returns where one frame at a time is faster: a base that keeps the states.

    A subclass has `core`.
    """

    model: Any
    hops = 1

    def __init__(self, model: SpectralModel) -> None:
        super().__init__()
        self.model, self.core_state = model, model.core_state
