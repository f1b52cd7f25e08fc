"""The share of a long run that one of several equal commands does."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sepcli.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, both from 1: every count-th item, from the index-th on.

    The shares 1/n to n/n of the same items are disjoint and together all of them, and no share has
    two items more than another.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(
                f"shard {self.index}/{self.count}: there are the shards 1/n to n/n; begin to count "
                "at 1, as with --array=1-8 in Slurm, or seq 8"
            )

    def has(self, number: int) -> bool:
        """Whether item `number`, counted from 0, is of this share."""
        return number % self.count == self.index - 1

    def of(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of this share; `items` may be endless."""
        return itertools.islice(items, self.index - 1, None, self.count)

    def number(self, place: int) -> int:
        """The number among all items, from 0, of the one that is number `place` of this share."""
        return place * self.count + self.index - 1

    def size(self, total: int) -> int:
        """How many of `total` items are of this share."""
        return len(range(self.index - 1, total, self.count))


WHOLE = Shard()


def parse(text: str) -> Shard:
    """The `Shard` that is written as "3/8"; UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None:
        raise UsageError(f"shard {text!r}: write it as i/n, such as 1/8")
    return Shard(int(match[1]), int(match[2]))
