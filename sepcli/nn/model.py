"""What a model is: all that training, separation, streaming, export and `info` rely on.

B batch, S sources, C channels, T samples.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import torch
from torch import nn

from sepcli.dsp.consistency import add_up
from sepcli.errors import SepcliError
from sepcli.signals.checks import are_names

# What a conditioned model makes of its references, once per recording: a tensor or nested tuples of
# tensors, whose first dimension is the batch, or 1 for a condition that a whole batch shares.
Condition: TypeAlias = "torch.Tensor | tuple[Condition, ...]"

# What a model that runs chunk by chunk remembers: nested tuples of tensors, zero at first, whose
# first dimension grows with the batch.
State: TypeAlias = "torch.Tensor | tuple[State, ...]"

TAKE_CONDITIONS = (
    "forward", "spectra", "initial_state", "step", "core_state", "core", "resemblance",
)  # fmt: skip

FACTS = {  # what a model says of itself: (whether a value will do, what it has to be)
    "sample_rate": (lambda x: _is_whole(x, 1), "Hz, such as 16000"),
    "sources": (lambda x: are_names(x), "the names of its outputs, such as ('speech', 'noise')"),
    "channels": (lambda x: _is_whole(x, 1), "how many it takes and gives, such as 1"),
    "hop": (lambda x: _is_whole(x, 1), "samples, such as 160"),
    "delay": (lambda x: _is_whole(x, 0), "samples by which `step` is late, such as 0"),
}


class Model(nn.Module):
    """A separator of waveforms.

    A subclass has `forward`, and these attributes, of the class or set by its `__init__`:

    sample_rate: Hz.  sources: names of the outputs.  channels: that it takes and gives.
    hop: samples; long audio is cut at multiples of it.
    receptive_field: samples of input that one sample of output depends on, None if not known.
    segment_s: seconds of long audio that it is run on at a time, unless somebody says otherwise.
    longest_s: seconds that this may be at most, None where there is no limit.
    chip: of one that is made for a chip, the target of quantisation that is called so, None of all
        others. It then has `quantise()`, after which it computes with the chip's integers,
        `quantised`, and `network()`, what the chip runs (see `quant/chip.py`).

    One that takes references of what to find has `condition`, and a condition as the last argument
    of `forward` and of all other methods that say `*condition` below; one that can tell voices
    apart has `resemblance`. One that starts with statistics of the data has `set_statistics`.

    `causal`, `conditioned`, `compares` and `measures` say what the class has; so does `spectral`:
    `analyse`, `spectra` and `synthesise`, in which case `forward` takes spectra, too. `latency` is
    in samples, None of what needs the whole signal. `consistent`, whether what the estimates lack
    of the mixture is shared out, is up to the training: see `estimates`. `compilable` is the
    method that a training may hand to a compiler.

    Raises SepcliError when a subclass lacks a method.
    """

    sample_rate: int
    sources: tuple[str, ...]
    channels: int
    hop: int = 1
    receptive_field: int | None = None
    segment_s: float = 20.0
    longest_s: float | None = None
    chip: str | None = None
    latency: int | None = None
    causal: bool = False
    spectral: bool = False
    conditioned: bool = False
    compares: bool = False
    measures: bool = False
    consistent: bool = False
    compilable: str = "forward"
    resolution: int | None = None

    facts = ("sample_rate", "sources", "channels", "hop")

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.conditioned = cls.condition is not Model.condition
        cls.compares = cls.resemblance is not Model.resemblance
        cls.measures = cls.set_statistics is not Model.set_statistics
        abstract = [name for name in dir(cls) if _is_abstract(cls, name)]
        is_base = any(name in vars(cls) for name in abstract)  # of other models
        if abstract and not is_base:
            raise SepcliError(f"{cls.__name__} has no {' and no '.join(abstract)}; define it")

    @abstractmethod
    def forward(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """Separate whole signals (B, C, T), any T >= 1, into (B, S, C, T)."""
        raise NotImplementedError

    def condition(self, references: list[torch.Tensor]) -> Condition:
        """The condition of recordings, from references (B, C, T') of each, of any lengths.

        It is computed once per recording, and may be trained.
        """
        raise SepcliError("the model takes no reference; choose another model with -m")

    def resemblance(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """How likely it is that signals (B, C, T) are of whom the condition is of: (B,), 0 to 1."""
        raise NotImplementedError

    def set_statistics(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Start from the mean and the standard deviation, (F,), of the mixtures' magnitudes.

        The spectra are those of the model's `stft`.
        """
        raise NotImplementedError

    def analyse(self, x: torch.Tensor) -> torch.Tensor:
        """The spectra (..., F, N), complex, of whole signals (..., T), where `spectral`."""
        raise NotImplementedError

    def synthesise(self, spectra: torch.Tensor, length: int) -> torch.Tensor:
        """Whole signals (..., length) of spectra (..., F, N), where `spectral`."""
        raise NotImplementedError

    def complete(self) -> Self:
        """The model itself; raises SepcliError when a reference is missing, see `given`."""
        if self.conditioned:
            raise SepcliError(
                "the model needs a reference of what to find; give one with --ref to sepcli "
                "extract or stream"
            )
        return self

    def focused(self, sources: Sequence[str]) -> Self:
        """The same without work that only other `sources` need; theirs may be anything then."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters(), torch.zeros(())).device

    def given(self, condition: Condition) -> Self:
        """The same model, weights included, for one recording whose condition is known.

        None of its methods takes a condition; so it runs like any model that needs none.
        """
        bound = copy.copy(self)
        for name in TAKE_CONDITIONS:
            if hasattr(self, name):
                setattr(bound, name, _bound(getattr(self, name), condition))
        bound.conditioned = False
        return bound

    def estimates(self, x: torch.Tensor, *condition: Condition) -> torch.Tensor:
        """The sources (B, S, C, T) of mixtures (B, C, T), which add up to these if `consistent`.

        Raises SepcliError when `forward` gives another shape.
        """
        y = self(x, *condition)
        wanted = (x.shape[0], len(self.sources), *x.shape[1:])
        if y.shape != wanted:
            raise SepcliError(
                f"{type(self).__name__}.forward gave {tuple(y.shape)}, not (batch, sources, "
                f"channels, samples) = {wanted}"
            )
        return add_up(y, x) if self.consistent else y


def checked(model: nn.Module) -> Model:
    """The model, if it says of itself what a `Model` has to; SepcliError naming what is missing."""
    name = type(model).__name__
    if not isinstance(model, Model):
        raise SepcliError(f"{name} is not a sepcli.nn.model.Model; derive it from that class")
    for fact in model.facts:
        will_do, what = FACTS[fact]
        if not hasattr(model, fact):
            raise SepcliError(f"{name} has no {fact}; set it in __init__: {what}")
        if not will_do(getattr(model, fact)):
            raise SepcliError(f"{name}.{fact} is {getattr(model, fact)!r}, but should be {what}")
    return model


def expanded(condition: Condition, batch: int) -> Condition:
    """A condition for a batch of so many, where it is one that all share."""
    if isinstance(condition, tuple):
        return tuple(expanded(part, batch) for part in condition)
    return condition.expand(batch, *condition.shape[1:])


def _bound(method: Callable[..., Any], condition: Condition) -> Callable[..., Any]:
    """A method whose first argument is a batch, or the size of one, with the condition added."""

    def call(first: Any = 1, *rest: Any) -> Any:
        batch = first if isinstance(first, int) else len(first)
        return method(first, *rest, expanded(condition, batch))

    return call


def _is_abstract(cls: type, name: str) -> bool:
    return getattr(getattr(cls, name, None), "__isabstractmethod__", False)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
