"""How the items of a run are shared out, in one object that all commands hand on.

Who does them is imported when there are some: every command has such an object when it starts.
"""

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sepcli.cluster.shard import WHOLE, Shard
from sepcli.errors import is_lenient, leniency

if TYPE_CHECKING:
    from sepcli.cluster.scheduler import Handling


@dataclass(frozen=True)
class Spread:
    """Which items of a run are done, by whom, and where that is noted.

    shard: the share of this command. jobs: processes on this machine. cluster: the address of a
    scheduler, or "local". ledger_path: of a file with a line of JSON per item.
    """

    shard: Shard = WHOLE
    jobs: int = 1
    cluster: str | None = None
    ledger_path: str | None = None

    def each(
        self,
        function: Callable[..., Any],
        tasks: Iterable[Any],
        handling: "Handling | None" = None,
    ) -> Generator[Any, None, None]:
        """Yield function(task) for each of `tasks`; see `workers.in_order` and `scheduler.each`.

        handling: what a cluster makes of the results. Without it they come in the order of the
        tasks; processes of this machine always keep that.
        """
        if is_lenient():
            function = Lenient(function)
        if self.cluster is None:
            from sepcli.cluster.workers import in_order

            return in_order(function, tasks, jobs=self.jobs)
        from sepcli.cluster import scheduler

        how = {"workers": self.jobs, "handling": handling}
        return scheduler.each(function, tasks, self.cluster, **how)

    def threads(self, wanted: int | None = None) -> int | None:
        """Threads of a model: as many as `wanted`, else a fair part of this machine's cores.

        None, which leaves it to the library, for one process alone; 1 for workers of a cluster,
        of which there is one per core.
        """
        if wanted or (self.jobs == 1 and self.cluster is None):
            return wanted
        return 1 if self.cluster else max(1, (os.cpu_count() or 1) // self.jobs)

    def ledger(self) -> AbstractContextManager[Any]:
        """What notes the records that its `watch` passes on."""
        from sepcli.cluster.ledger import open_ledger

        return open_ledger(self.ledger_path)


@dataclass(frozen=True)
class Lenient:
    """A function that reads what is damaged as far as it goes, whichever process calls it."""

    function: Callable[..., Any]

    def __call__(self, task: Any) -> Any:
        with leniency():
            return self.function(task)


ALONE = Spread()
