"""Work shared out to processes, results in order.

Workers end with the iteration, however it ends, and with the process that started them. They are
the only ones to decide nothing: Ctrl-C and SIGTERM, which a terminal or a batch system sends to
every process, are for the one that started them.
"""

import atexit
import itertools
import multiprocessing.util  # which registers, as it is imported, what it does at the exit
import os
import queue
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sepcli.errors import SepcliError

AHEAD = 2  # tasks that a worker has at once: one to do, one to begin without waiting

_running = weakref.WeakSet()  # workers


@dataclass(frozen=True)
class Ready:
    """Stands among tasks for one that needs no work: `result` comes in its place."""

    result: Any


def in_order(
    function: Callable[..., Any], tasks: Iterable[Any], *, jobs: int
) -> Generator[Any, None, None]:
    """Yield function(task) for each of `tasks`, in their order, done by `jobs` processes.

    One job is done by this process itself. See `by_workers`.
    """
    if jobs > 1:
        yield from by_workers(function, tasks, workers=jobs)
        return
    for task in tasks:
        yield task.result if isinstance(task, Ready) else function(task)


def by_workers(
    function: Callable[..., Any],
    tasks: Iterable[Any],
    *,
    workers: int,
    method: str = "spawn",
    remedy: str = "try fewer --jobs",
) -> Iterator[Any]:
    """Yield function(task) for each of `tasks`, in their order, done by `workers` processes.

    function and tasks must be picklable; tasks may be endless: at most `AHEAD` a worker are taken
    ahead of the result that is yielded. An exception of the function is raised where its result
    would have come; a task that is `Ready` is given to no process. However the iteration ends, or
    this process does, the workers end too.
    method: how they start, see `multiprocessing`; None for the usual way of the system. Where
        threads run, as those of BLAS or a progress bar, they must not be forked.
    remedy: what to do about a worker that died.
    """
    tasks = iter(tasks)
    pool = [_Worker(function, method, remedy) for _ in range(workers)]
    try:
        with interrupts_ignored():
            for worker in pool:
                worker.start()
        free, ahead = deque(pool * AHEAD), deque()
        _fill(ahead, tasks, free, AHEAD * workers)
        while ahead:
            worker, result = ahead.popleft()
            if worker:
                result = worker.take()
                free.append(worker)
            _fill(ahead, tasks, free, AHEAD * workers)
            yield result
    finally:
        for worker in pool:
            worker.stop()


def _fill(ahead, tasks, free, length):
    """Give tasks to workers that are `free` until `ahead` has (worker, result) of so many."""
    for task in itertools.islice(tasks, length - len(ahead)):
        ready = isinstance(task, Ready)
        ahead.append((None, task.result) if ready else (free.popleft().give(task), None))


class _Worker:
    """A process and the connection to it."""

    _connection: Any
    _process: Any

    def __init__(self, function, method, remedy):
        self._function, self._remedy = function, remedy
        self._context = multiprocessing.get_context(method)
        self._owner, self._connection, self._process = os.getpid(), None, None

    def start(self):
        # Not earlier, or those that are forked before would keep this connection open, too. Those
        # that are forked later do keep our end open, but not for longer than their own.
        self._connection, theirs = self._context.Pipe()
        work = self._function, theirs, self._connection
        with theirs:  # closed here, so that the end of the process ends the connection
            process = self._context.Process(target=_work, args=work, daemon=True)
            try:
                process.start()
            except OSError as error:
                raise SepcliError(
                    f"no process can be started ({error.strerror}); {self._remedy}"
                ) from None
        self._process = process
        _running.add(self)

    def give(self, task):
        """Hand over a task; waits for nothing but the worker's reader, which never waits."""
        with self._dying_told():
            self._connection.send(task)
        return self

    def take(self):
        """The result of the oldest task."""
        with self._dying_told():
            result, error = self._connection.recv()
        if error is not None:
            raise error
        return result

    @contextmanager
    def _dying_told(self):
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(timeout=5)  # if it does live, that is not what is wrong
            code = self._process.exitcode
            if code is None:
                raise SepcliError(f"a worker process does not answer ({error})") from None
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise SepcliError(
                f"a worker process died ({how}), perhaps for lack of memory; {self._remedy}"
            ) from None

    def stop(self):
        """End the process now, whatever it does; nothing if that is not a child of this one."""
        if os.getpid() != self._owner:  # a worker that was forked has copies of the other ones
            return
        if self._process:
            self._connection.close()
            self._process.kill()  # SIGTERM is ignored
            self._process.join()
        _running.discard(self)


@atexit.register  # later than multiprocessing, so done before it, which would wait for ever
def _stop_all():
    for worker in list(_running):
        worker.stop()


def _work(function, connection, other_side):
    """Answer tasks until the other side closes the connection, or is gone."""
    other_side.close()  # the copy that this process has of it, which would keep it open
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    tasks = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, tasks), daemon=True).start()
    with suppress(ConnectionError):
        while True:
            connection.send(_answer(function, tasks.get()))


def _read(connection, tasks):
    """Read tasks as they come: the other side, while it sends one, must not wait for an answer to
    be taken by itself. Ends the process when the other side is gone: nobody wants its result."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _answer(function, task):
    """(result, None) or (None, exception)."""
    try:
        return function(task), None
    except SepcliError as error:
        return None, error
    except MemoryError:
        return None, SepcliError("a worker process ran out of memory; try fewer of them")
    except Exception as error:
        error.add_note(traceback.format_exc())  # pickling drops the traceback
        return None, error


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let processes that are started here ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals cannot be set here
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
