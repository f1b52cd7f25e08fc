"""Work for the workers of dask.distributed: a window of it at a time, every item accounted for.

No engine runs each task exactly once: what a worker was at when it died is run again. So tasks have
to be such that a second run changes nothing. The scheduler knows of the window only, which bounds
its memory, and what a dying worker takes with it. It blames a death on all that was at the worker,
so these items are done again one by one, and only what kills a worker alone is given up.
"""

import itertools
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sepcli.cluster import LOCAL, calling
from sepcli.cluster.workers import Ready, interrupts_ignored
from sepcli.errors import OutputError, SepcliError, UsageError, note

ATTEMPTS = 2  # at an item, the second one on another worker where there is one
AHEAD = 2  # tasks per thread of a worker: one to do, one to begin without waiting
PATIENCE_S = 60.0  # for the first worker
_LOOK_S = 5.0  # between looks at how many workers there are
_REMEDY = "pip install 'sepcli[cluster]'"


@dataclass(frozen=True)
class Handling:
    """What a run makes of the results of its tasks.

    failed: whether a result is worth another attempt. lost: the result in place of a task that
    has none, by the reason; without it, that is an error. mark: notes how a result came about,
    {"worker", "seconds", "attempts"}. ordered: whether results come in the order of the tasks.
    """

    failed: Callable[[Any], bool] = lambda _result: False
    lost: Callable[[Any, str], Any] | None = None
    mark: Callable[[Any, dict[str, Any]], None] = lambda _result, _about: None
    ordered: bool = True


def each(
    function: Callable[..., Any],
    tasks: Iterable[Any],
    address: str,
    *,
    workers: int = 1,
    handling: Handling | None = None,
) -> Generator[Any, None, None]:
    """Yield function(task) for each of `tasks`, done by the workers of a cluster.

    address: of a scheduler, such as tcp://10.0.0.1:8786, or "local" for so many `workers` here.
    function and tasks must be picklable. An item that fails is tried once more, elsewhere. Raises
    SepcliError where dask is not installed, no scheduler or worker answers, or the scheduler goes.
    """
    with _connected(address, workers) as client, _Run(client, address, function, handling) as run:
        yield from run.results(iter(tasks))


@contextmanager
def _connected(address, workers):
    """A client of the scheduler; workers that were started for it end with it."""
    dask, distributed = _engine()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if address == LOCAL:
        settings = {
            "distributed.scheduler.allowed-failures": 1,  # deaths of workers, per attempt
            "distributed.comm.timeouts.connect": "300s",  # a machine may be busy
            "distributed.comm.timeouts.tcp": "300s",
        }
        # Ctrl-C is for the one that started the workers.
        with dask.config.set(settings), interrupts_ignored():
            cluster = _started(distributed, workers)
        with cluster, distributed.Client(cluster) as client:
            yield client
        return
    try:
        client = distributed.Client(address, timeout=PATIENCE_S / 2)
    except (OSError, TimeoutError, ValueError) as error:
        raise SepcliError(
            f"{address}: no scheduler answers ({_said(error)}); start one with `dask scheduler`, "
            "or use --cluster local"
        ) from None
    with client:
        yield client


def _started(distributed, workers):
    """So many workers on this machine, and their scheduler."""
    try:
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except (RuntimeError, OSError) as error:
        why = _said(_first(error))
        raise SepcliError(
            f"--cluster {LOCAL}: its workers could not be started ({why}); use --jobs instead"
        ) from None


def _first(error):
    """The error of the system that led to another, or that one itself."""
    chain = [error]
    while before := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(before)
    return next((each for each in reversed(chain) if isinstance(each, OSError)), error)


def _engine():
    try:
        import dask
        import distributed
    except ImportError as error:
        raise SepcliError(f"--cluster needs dask.distributed ({error}); {_REMEDY}") from None
    return dask, distributed


@dataclass
class _Item:
    """A task that is under way."""

    number: int
    task: Any
    attempts: int = 0
    avoid: str | None = None  # a worker
    alone: bool = False  # whether nothing else is under way beside it


class _Run:
    """The window of tasks that are under way, and the results of those before."""

    def __init__(self, client, address, function, handling):
        self._client, self._address = client, address
        self._packed = calling.pack(function)
        self._handling = handling or Handling()
        self._futures = {}  # future -> item
        self._done = queue.SimpleQueue()  # futures
        self._results = {}  # number -> result, of those that wait for their turn
        self._suspects = deque()  # items that were at workers that died, one of which may be why
        self._threads, self._looked, self._alone_since = 0, 0.0, None

    def __enter__(self):
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError:
            raise SepcliError(
                f"{self._address}: no worker has joined within {PATIENCE_S:g} s; start some with "
                f"`dask worker {self._address} --nthreads 1`"
            ) from None
        return self

    def __exit__(self, *_exc_info):
        self._client.cancel(list(self._futures), force=True)
        self._futures = {}

    def results(self, tasks: Iterator[Any]) -> Iterator[Any]:
        """Yield the results of all tasks."""
        numbered, turn = enumerate(tasks), 0
        while True:
            if not any(item.alone for item in self._futures.values()):
                self._fill(numbered)
            if self._suspects and not self._futures:
                self._submit(replace(self._suspects.popleft(), alone=True))
            if not (self._futures or self._results):
                return
            yielded = list(self._take(turn))
            turn += len(yielded)
            yield from yielded
            if not yielded and self._futures:
                self._wait()

    def _fill(self, numbered):
        """Begin as many tasks as the window has room for."""
        room = self._window() - len(self._futures) - len(self._results)
        for number, task in itertools.islice(numbered, max(0, room)):
            if isinstance(task, Ready):
                self._results[number] = task.result
            else:
                self._submit(_Item(number, task))

    def _window(self):
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()
        return AHEAD * max(1, self._threads)

    def _take(self, turn):
        """The results whose turn it is, `turn` being the number of the next one."""
        if not self._handling.ordered:
            results, self._results = self._results, {}
            yield from results.values()
            return
        while turn in self._results:
            yield self._results.pop(turn)
            turn += 1

    def _submit(self, item):
        item.attempts += 1
        others = [w for w in self._client.nthreads() if w != item.avoid] if item.avoid else []
        future = self._client.submit(
            calling.call,
            self._packed,
            item.task,
            key=f"{id(self):x}-{item.number}-{item.attempts}",
            pure=False,
            workers=others or None,
            allow_other_workers=bool(others),
        )
        self._futures[future] = item
        future.add_done_callback(self._done.put)

    def _wait(self):
        """Wait for one task to be done, and do what is to be done about it."""
        try:
            future = self._done.get(timeout=_LOOK_S)
        except queue.Empty:
            self._look()
            return
        if (item := self._futures.pop(future, None)) is not None:
            self._settle(item, future)

    def _look(self):
        """See how many workers there are now."""
        if self._client.status != "running":
            raise self._gone()
        self._looked = time.monotonic()
        self._threads = sum(self._client.nthreads().values())
        if self._threads:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = self._looked
            note(f"{self._address}: all workers have left; waiting for new ones")
        elif self._address == LOCAL and self._looked - self._alone_since > 2 * PATIENCE_S:
            raise SepcliError(
                "all workers died, and none was restarted; finished items are kept, so repeat the "
                "command with fewer --jobs and --skip-existing"
            )

    def _gone(self):
        return SepcliError(
            f"{self._address}: the connection to the scheduler was lost; finished items are kept, "
            "so start it and repeat the command with --skip-existing"
        )

    def _settle(self, item, future):
        """Keep the result of a task, or try it again."""
        if future.cancelled():
            raise self._gone()
        (result, about), error = _outcome(future)
        if isinstance(error, OutputError | UsageError):
            raise error  # no other item would fare better
        if error is None:
            if not self._handling.failed(result) or item.attempts >= ATTEMPTS:
                self._handling.mark(result, about | {"attempts": item.attempts})
                self._results[item.number] = result
                return
        elif _is_death(error) and not item.alone:
            self._suspects.append(item)
            return
        elif item.attempts >= ATTEMPTS:
            self._results[item.number] = self._lost(item, error)
            return
        item.avoid = about.get("worker") or _last_worker(error)
        self._submit(item)

    def _lost(self, item, error):
        """The result of a task that has none."""
        if self._handling.lost is None:
            raise error if isinstance(error, SepcliError) else SepcliError(_reason(error))
        result = self._handling.lost(item.task, _reason(error))
        self._handling.mark(result, {"worker": _last_worker(error), "attempts": item.attempts})
        return result


def _outcome(future):
    """((result, how it came about), None), or else the exception that a task ended with."""
    try:
        return future.result(), None
    except Exception as error:  # of the task, or as the worker died that had its result
        return (None, {}), error


def _is_death(error):
    """Whether a task is given up because the workers died that it was at."""
    return hasattr(error, "last_worker")


def _last_worker(error):
    """The worker that died of a task, where `error` knows it."""
    return getattr(getattr(error, "last_worker", None), "address", None)


def _reason(error):
    if (worker := _last_worker(error)) is not None:
        return f"its worker died ({worker}), perhaps for lack of memory; see the worker's log"
    return str(error) if isinstance(error, SepcliError) else f"{type(error).__name__}: {error}"


def _said(error):
    return " ".join(str(error).split())[:120] or type(error).__name__
