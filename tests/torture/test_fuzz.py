"""Mutants of every kind of file, a few thousand of them; `make torture` feeds many more."""

import ctypes
import os
import pickle
import signal

import pytest

from tests.torture import fuzz, targets, worker
from tests.torture.targets import TARGETS, Target

COUNT = 2000


def test_a_mutant_is_a_function_of_its_number():
    for name in ("audio", "ogg", "tar", "lists", "uploads"):
        target = TARGETS[name]
        some = [target.mutant(0, name, index) for index in range(20)]
        assert some == [target.mutant(0, name, index) for index in range(20)]
        assert len({data for _, data in some}) > 15
        assert some != [target.mutant(1, name, index) for index in range(20)]


def test_whatever_is_in_a_file_it_is_read_or_refused_with_one_line():
    parts = [(name, 0, count) for name, count in fuzz.shares(COUNT, list(TARGETS))]
    counts, found = fuzz.run(parts)
    assert not found, "\n".join(f"{each}" for each in found)
    assert counts["taken"] > COUNT // 20
    assert counts["refused"] > COUNT // 2
    assert counts["taken"] + counts["refused"] == counts["fed"]


# What the harness itself would find


def read_the_worst(place, name, data):
    """Do what the mutant says, as a reader with such a fault would."""
    what = data.decode()
    if what == "crash":
        ctypes.string_at(0)
    elif what == "spin":
        signal.setitimer(signal.ITIMER_PROF, 0.2)
        while True:
            pass
    elif what == "memory":
        bytearray(worker.MOST_BYTES)[:: 1 << 12] = bytes(worker.MOST_BYTES >> 12)
    elif what == "write":
        (place.inputs.parent / "escaped").write_text("x")
    elif what == "run":
        os.system("true")
    elif what == "unpickle":
        pickle.loads(pickle.dumps(pytest.approx))
    elif what == "print":
        os.write(2, b"a library says so\n")
    elif what == "raise":
        raise KeyError("x")
    elif what == "refuse":
        raise targets.SepcliError("x: refused; do something else")


WORST = {
    "crash": "died of signal 11",
    "spin": "died of signal 27",
    "memory": "took 1",
    "write": "forbidden: open",
    "run": "forbidden: os.system",
    "unpickle": "forbidden: pickle.find_class",
    "print": "printed: a library says so",
    "raise": "KeyError: 'x'",
}


def test_the_harness_finds_what_it_looks_for(monkeypatch):
    """In the worker, too, which imports this module."""
    monkeypatch.setenv(worker.ALSO, "tests.torture.test_fuzz:WORST_TARGET")
    monkeypatch.setitem(TARGETS, "worst", WORST_TARGET)
    counts, found = fuzz.run([("worst", 0, len(ORDER))])
    assert counts == {"fed": len(ORDER), "taken": 2, "refused": 1}
    wrong = {ORDER[each["index"]]: each["wrong"] for each in found}
    assert set(wrong) == set(WORST)
    for what, pattern in WORST.items():
        assert pattern in wrong[what], what


ORDER = ["nothing", *WORST, "refuse", "nothing"]


class _Ordered(Target):
    def mutant(self, seed, target, index):
        return "x", ORDER[index].encode()


WORST_TARGET = _Ordered(lambda: {"x": b"nothing"}, read_the_worst)
