"""What makes training items: the contract of a kind of data."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sepcli.recordings.pools import Faults

if TYPE_CHECKING:
    import torch


class Item(Protocol):
    """One item.

    mix: (C, T). refs: by name, (C, T) each. enroll: another utterance of the target, (C, T'), None
    where no enrolment was asked for. float32, or for spectrograms complex64, (C, F, N).
    """

    @property
    def mix(self) -> np.ndarray: ...
    @property
    def refs(self) -> dict[str, np.ndarray]: ...
    @property
    def enroll(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Drawn:
    """An `Item` and no more."""

    mix: np.ndarray
    refs: dict[str, np.ndarray]
    enroll: np.ndarray | None = None


class Source(ABC):
    """Items by number, each a function of the arguments of `draw` and of nothing else.

    It is made of one argument, the settings of its kind: a dataclass that has `sample_rate` in Hz
    and what else the table `sepcli.data.datasets.KINDS` says. Raises SepcliError for settings
    that make no sense.

    draws_batches: whether it makes whole batches on any device, by `draw_many`.
    faults: what becomes of recordings that cannot be read; None where that is always an error.
    """

    draws_batches = False
    faults: Faults | None = None

    def recordings(self) -> Iterable[Any]:
        """All that may be drawn from, each as `sepcli.recordings.stored` takes it."""
        return ()

    @abstractmethod
    def draw(self, seed: int, index: int, step: int | None = None) -> Item:
        """Item `index` of the stream `seed` (both 0 or more).

        step: of the training that it is for, where something changes in its course; None means
        after all of them.
        """

    def draw_many(
        self, seed: int, indices: Sequence[int], device: Any = "cpu"
    ) -> "tuple[torch.Tensor, dict[str, torch.Tensor], *tuple[torch.Tensor, ...]]":
        """Items of the stream `seed`: (mix (B, C, T), refs by name, (B, C, T) each).

        Where there are enrolments, these are the third, (B, C, T').
        """
        raise NotImplementedError
