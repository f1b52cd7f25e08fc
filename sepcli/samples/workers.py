"""Work shared out to processes, results in order."""

import itertools
import multiprocessing
import signal
import threading
import traceback
from collections import deque
from contextlib import contextmanager

from sepcli.errors import SepcliError

AHEAD = 2  # tasks that a worker has at once: one to do, one to begin without waiting


def in_order(function, tasks, *, jobs):
    """Yield function(task) for each of `tasks`, in their order, done by `jobs` processes.

    function and tasks must be picklable; tasks may be endless: at most `AHEAD` a worker are taken
    ahead of the result that is yielded. An exception of the function is raised where its result
    would have come. However the iteration ends, or this process does, the workers end too.
    """
    if jobs == 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    workers = [_Worker(function) for _ in range(jobs)]
    try:
        with _interrupts_ignored():
            for worker in workers:
                worker.start()
        turns = itertools.cycle(workers)
        busy = deque(
            worker.give(task)
            for worker, task in zip(turns, itertools.islice(tasks, AHEAD * jobs), strict=False)
        )
        while busy:
            worker = busy.popleft()
            result = worker.take()
            busy.extend(worker.give(task) for task in itertools.islice(tasks, 1))
            yield result
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()


class _Worker:
    """A process and the connection to it."""

    def __init__(self, function):
        # Spawned, not forked: BLAS and the reader of a progress bar run threads here, and a fork
        # would hand every worker the other workers' connections, which then never close.
        context = multiprocessing.get_context("spawn")
        self.connection, self._theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(function, self._theirs), daemon=True)

    def start(self):
        self._process.start()
        self._theirs.close()  # so that the end of the process ends the connection

    def give(self, task):
        self.connection.send(task)
        return self

    def take(self):
        try:
            result, error = self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise SepcliError(
                f"a worker process died (exit code {self._process.exitcode}), perhaps for lack of "
                "memory; try fewer --jobs"
            ) from None
        if error is not None:
            raise error
        return result

    def stop(self):
        self.connection.close()
        if self._process.pid is not None:
            self._process.terminate()

    def join(self):
        if self._process.pid is not None:
            self._process.join()


def _work(function, connection):
    """Answer tasks until the other side closes the connection, or is gone."""
    try:
        while True:
            task = connection.recv()
            try:
                answer = function(task), None
            except Exception as error:
                if not isinstance(error, SepcliError):
                    error.add_note(traceback.format_exc())  # pickling drops the traceback
                answer = None, error
            connection.send(answer)
    except (EOFError, ConnectionError):
        pass


@contextmanager
def _interrupts_ignored():
    """Let processes that are started here ignore Ctrl-C, which reaches all of a terminal's."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals cannot be set here
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
