"""Full disks, signals, closed pipes, jumping clocks and others at work in the same folder.

    python -m tests.torture.faults -n 20

Each of the commands in `scenarios.SCENARIOS` meets each of the faults in `FAULTS`, `-n` times at
random points. It has to end by itself with one line that says why, or as if nothing had happened
where the fault is none of its business; to leave no half-written file; and to make the same as an
undisturbed run when it is run again. Prints one line of JSON for each command, and exits with 1
where something is wrong.
"""

import argparse
import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.torture import kills
from tests.torture.kills import Trial, run
from tests.torture.scenarios import SCENARIOS, prepare

NEW_USERS, NEW_MOUNTS = 0x10000000, 0x00020000  # of unshare(2)
STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT)


def full_disk(rng: Random, trial: Trial) -> Callable[[], None]:
    """No file gets longer than some of those that are written."""
    sizes = [len(each) for each in trial.expected.values() if isinstance(each, bytes)]
    most = rng.randrange(1, max([2, *sizes]))

    def arm():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return arm


def signalled(number: int) -> Callable[[Random, Trial], Callable[[], None]]:
    def fault(rng, trial):
        step = rng.randint(1, trial.steps)

        def arm():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            kills.at_step(step, lambda: os.kill(os.getpid(), number))

        return arm

    return fault


def jumping_clock(rng: Random, trial: Trial) -> Callable[[], None]:
    """The time of day goes back or forth by weeks, whenever somebody looks."""
    now, seed = time.time, rng.random()

    def arm():
        jumps = Random(seed)
        time.time = lambda: max(0.0, now() + jumps.uniform(-3e6, 3e6))

    return arm


def no_shared_memory(rng: Random, trial: Trial) -> Callable[[], None]:
    """No /dev/shm: as of a system that has none, and really without where that is allowed."""

    def refuse(*_, **__):
        raise OSError(38, "Function not implemented")

    class Refused:
        SEM_VALUE_MAX = 1

        def __init__(self, *_):
            refuse()

    def arm():
        import _multiprocessing
        import _posixshmem

        _multiprocessing.SemLock, _posixshmem.shm_open = Refused, refuse
        libc = ctypes.CDLL(None)
        if libc.unshare(NEW_USERS | NEW_MOUNTS) == 0:
            libc.mount(b"none", b"/dev/shm", b"tmpfs", 1, b"size=4k")  # read-only

    return arm


def closed_output(rng: Random, trial: Trial) -> Callable[[], None]:
    """Standard output and error are pipes that nobody reads."""

    def arm():
        for number in (1, 2):
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, number)

    return arm


# What a fault is, and the exit codes that it may lead to.
FAULTS = {
    "full disk": (full_disk, (0, 1)),
    "SIGTERM": (signalled(signal.SIGTERM), (0, *STOPPED)),
    "SIGINT": (signalled(signal.SIGINT), (0, *STOPPED)),
    "jumping clock": (jumping_clock, (0,)),
    "no shared memory": (no_shared_memory, (0,)),
    "closed output": (closed_output, (0, 141)),
}


def meet(trial: Trial, fault: str, index: int) -> None:
    """Have the command meet a fault, and go on without."""
    make, codes = FAULTS[fault]
    if "--cluster" in trial.about.first:  # dask needs shared memory, and to go by the clock
        codes = (*codes, 1)
    rng = Random(f"{trial.seed}/{trial.name}/{fault}/{index}")
    folder = trial.new_folder("killed")
    ended = run(trial.about.first, folder, make(rng, trial))
    points = [fault]
    if ended.code not in codes or "Traceback" in ended.said:
        trial.tell(points, f"exit code {ended.code}: {ended.said[-1500:]}")
    if ended.code == 1 and "Error: " not in (ended.said.splitlines() or [""])[-1]:
        trial.tell(points, f"no error line: {ended.said[-500:]}")
    trial.look(folder, points)
    if ended.code == 0:
        trial.compare(folder, points)
    trial.finish(folder, points)


def together(trial: Trial) -> None:
    """Two of the command at the same time, in the same folder; then once more, alone."""
    folder = trial.new_folder("killed")
    children = [kills.begin(trial.next(folder), folder, lambda: None, f".{n}") for n in range(2)]
    for child in children:
        ended = kills.end(*child)
        if ended.code not in (0, 1) or "Traceback" in ended.said:
            trial.tell(["two at once"], f"exit code {ended.code}: {ended.said[-500:]}")
    trial.finish(folder, ["two at once"])


def blocked(trial: Trial) -> None:
    """A file is where a folder has to be made, which stops even those who may write anywhere."""
    for name in sorted({path.partition("/")[0] for path in trial.expected}):
        folder = trial.new_folder("killed")
        (folder / "taken").write_text("mine")
        (folder / name).symlink_to(folder / "taken" / "below")
        ended = run(trial.about.first, folder, lambda: None)
        if ended.code not in (1, 2) or "Traceback" in ended.said or "Error: " not in ended.said:
            trial.tell(["blocked"], f"exit code {ended.code}: {ended.said[-500:]}")
        there = {path.name for path in folder.iterdir()} - {"in", "taken", name}
        if others := there - {path.partition("/")[0] for path in trial.expected}:
            trial.tell(["blocked"], f"left behind: {others}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults of the system around commands.")
    parser.add_argument("-n", "--times", type=int, default=20, help="that each fault is met")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="repeatable")
    args = parser.parse_args()
    kills.preload()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        (Path(folder) / "in").mkdir()
        prepare(Path(folder) / "in")
        for name in args.only or SCENARIOS:
            began, trial = time.monotonic(), Trial(name, Path(folder), args.seed)
            for index in range(args.times):
                for fault in FAULTS:
                    meet(trial, fault, index)
                together(trial)
            blocked(trial)
            for line in trial.wrong:
                print(json.dumps({"wrong": line}), flush=True)
            met = args.times * (len(FAULTS) + 1) + 1
            line = {"command": name, "faults": met, "wrong": len(trial.wrong)}
            print(json.dumps({**line, "seconds": round(time.monotonic() - began, 1)}), flush=True)
            wrong += len(trial.wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
