"""How the items of a run are shared out, in one object that all commands hand on."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from sepcli.cluster.shard import WHOLE, Shard
from sepcli.cluster.workers import in_order


@dataclass(frozen=True)
class Spread:
    """Which items of a run are done, and by how many processes.

    shard: the share of this command. jobs: processes on this machine.
    """

    shard: Shard = WHOLE
    jobs: int = 1

    def each(
        self, function: Callable[..., Any], tasks: Iterable[Any]
    ) -> Generator[Any, None, None]:
        """Yield function(task) for each of `tasks`, in their order; see `workers.in_order`."""
        return in_order(function, tasks, jobs=self.jobs)


ALONE = Spread()
