"""Work in processes: the same results in the same order, and nobody left behind."""

import itertools
import os
import signal
import subprocess
import sys

import pytest

from sepcli.cluster import workers
from sepcli.cluster.workers import AHEAD, by_workers, in_order
from sepcli.errors import SepcliError
from tests.tasks import (
    die,
    echo,
    fail,
    interrupt_and_wait,
    kill_itself_at_3,
    need_too_much,
    refuse_5,
    square,
    with_pid,
)

METHODS = pytest.mark.parametrize("method", ["spawn", "fork"])
SECONDS = 120  # for a process that ends or hangs

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12


@pytest.fixture(autouse=True)
def no_hanging():
    """Fail instead of waiting for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_order(jobs):
    assert list(in_order(square, range(20), jobs=jobs)) == [n * n for n in range(20)]


def test_there_may_be_fewer_tasks_than_workers():
    assert list(in_order(square, [7], jobs=3)) == [49]
    assert list(in_order(square, [], jobs=2)) == []


def test_all_workers_work_and_end():
    results = list(in_order(with_pid, range(8), jobs=2))
    assert [n for n, _ in results] == list(range(8))
    pids = {pid for _, pid in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(map(alive, pids))


def test_tasks_are_taken_only_a_little_ahead():
    taken = []
    numbers = (taken.append(n) or n for n in itertools.count())
    results = in_order(square, numbers, jobs=2)
    for _ in range(5):
        next(results)
    assert len(taken) <= 5 + 2 * AHEAD
    results.close()


def test_workers_end_when_nobody_reads_on():
    results = in_order(with_pid, itertools.count(), jobs=2)
    pids = {next(results)[1] for _ in range(4)}
    assert all(map(alive, pids))
    results.close()
    assert not any(map(alive, pids))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_where_the_result_would_have(jobs):
    results = in_order(refuse_5, range(10), jobs=jobs)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(SepcliError, match="five: too many; take four"):
        next(results)


def test_an_unexpected_error_says_where_it_was():
    with pytest.raises(ZeroDivisionError) as caught:
        list(in_order(fail, [0], jobs=2))
    assert "in fail" in caught.value.__notes__[0]


@METHODS
@pytest.mark.parametrize(("function", "reason"), [
    (die, r"a worker process died \(exit code 3\).*; use less"),
    (kill_itself_at_3, r"a worker process died \(killed by signal 9\).*lack of memory; use less"),
    (need_too_much, "a worker process ran out of memory; try fewer of them"),
])  # fmt: skip
def test_a_worker_that_dies_is_one_line(method, function, reason):
    with pytest.raises(SepcliError, match=reason) as caught:
        list(by_workers(function, range(9), workers=2, method=method, remedy="use less"))
    assert "\n" not in str(caught.value)
    assert not workers._running


def test_a_worker_that_died_cannot_be_given_a_task():
    """Writing to it is a broken pipe, which must not look as if the reader of ours had left."""
    results = by_workers(kill_itself_at_3, itertools.count(), workers=1, method="fork")
    with pytest.raises(SepcliError, match="killed by signal 9"):
        list(results)


@METHODS
@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_tasks_and_results_may_be_larger_than_any_pipe_holds(method, jobs):
    """Both sides send a megabyte at once: neither may wait until the other has read."""
    payloads = [bytes([n]) + bytes(2**20) for n in range(3 * jobs)]
    results = by_workers(echo, payloads, workers=jobs, method=method)
    assert [result[-1] for result in results] == list(range(3 * jobs))


def test_signals_to_the_whole_group_are_for_the_one_that_started_it():
    results = by_workers(with_pid, itertools.count(), workers=2, method="fork")
    pids = {next(results)[1] for _ in range(4)}
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in pids:
            os.kill(pid, number)
    assert {next(results)[1] for _ in range(8)} == pids
    results.close()
    assert not any(map(alive, pids))


def test_workers_that_never_answer_end_with_the_iteration():
    with pytest.raises(KeyboardInterrupt):
        list(by_workers(interrupt_and_wait, [1, 2, 3], workers=2, method="fork"))
    assert not workers._running


# Left in the middle, by a program without `if __name__ == "__main__"`; it prints its workers.
LEFT = """
import itertools, os, sys
from sepcli.cluster.workers import by_workers
def pid(n):
    return os.getpid()
results = by_workers(pid, itertools.count(), workers=2, method="fork")
print(*{next(results) for _ in range(4)}, flush=True)
END
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 15)", -15),
    ],
)
def test_workers_end_with_the_program_however_it_ends(end, code):
    # What holds standard output open would be waited for here.
    process = subprocess.run(
        [sys.executable, "-c", LEFT.replace("END", end)],
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert process.returncode == code
    assert len(process.stdout.split()) == 2
