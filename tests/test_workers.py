"""Work in processes: the same results in the same order, and nobody left behind."""

import itertools
import os
import time

import pytest

from sepcli.errors import SepcliError
from sepcli.samples.workers import AHEAD, in_order


def square(n):
    return n * n


def slow_if_even(n):
    time.sleep(0.02 * (n % 2 == 0))
    return n, os.getpid()


def refuse_5(n):
    if n == 5:
        raise SepcliError("five: too many; take four")
    return n


def fail(n):
    return 1 / n


def die(n):
    os._exit(3)


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
    results = list(in_order(slow_if_even, range(8), jobs=2))
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
    results = in_order(slow_if_even, itertools.count(), jobs=2)
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


def test_a_worker_that_dies_is_reported():
    with pytest.raises(SepcliError, match=r"worker process died \(exit code 3\).*fewer --jobs"):
        list(in_order(die, range(4), jobs=2))
