"""Feed mutants of healthy files to everything that reads files, and see that nothing breaks.

    python -m tests.torture.fuzz -n 100000

A mutant is a function of (seed, target, index). Each is either taken, or refused with one line;
anything else is printed, with the command that repeats it, and makes the exit code 1: an exception
of another kind, a crash, more than 10 s of processor time, more than 1 GB, a word of a library on
standard output or error, a file outside the output folder, a process, a connection, an unpickled
class.
"""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.torture.targets import TARGETS
from tests.torture.worker import OVER, WARM

ROOT = Path(__file__).parent.parent.parent
STUCK_S = 300.0  # without a step, however busy the machine is
STEP_S = 0.1


def shares(count: int, names: Sequence[str]) -> list[tuple[str, int]]:
    """How many of `count` mutants each target gets."""
    total = sum(TARGETS[name].share for name in names)
    return [(name, max(1, count * TARGETS[name].share // total)) for name in names]


def run(parts: Sequence[tuple[str, int, int]], seed: int = 0) -> tuple[Counter, list[dict]]:
    """Feed (target, first index, count) each; ({fed, taken, refused}, what is wrong)."""
    counts, found, position = Counter(), [], 0
    total = sum(count for _, _, count in parts)
    while position < total:
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            position, end = _worker(Path(folder), parts, seed, position, counts, found)
            if end is not None:
                found.append(_blame(parts, seed, position, end))
                position += 1
    counts["fed"] += total
    return counts, found


def _worker(root, parts, seed, first, counts, found):
    """Run a process until it is done or dies; (where it is, how it died or None)."""
    for name in ("in", "out", "tmp", "cwd"):
        (root / name).mkdir()
    plan = json.dumps({"seed": seed, "first": first, "parts": list(parts)})
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "TMPDIR": str(root / "tmp"),
        "OMP_NUM_THREADS": "1",
        "SEPCLI_CACHE": "off",
    }
    with (root / "stderr").open("w+b") as log:
        command = [sys.executable, "-m", "tests.torture.worker", str(root), plan]
        process = subprocess.Popen(
            command, cwd=root / "cwd", env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        stuck = _wait(process, root / "progress")
        position, taken, refused, state = _progress(root / "progress")
        counts.update(taken=taken, refused=refused)
        if (root / "found.jsonl").exists():
            found += map(json.loads, (root / "found.jsonl").read_text().splitlines())
        if process.returncode == 0 and state == OVER:
            return position, None
        said = (root / "stderr").read_bytes()[-3000:].decode(errors="replace")
    if state in (0, WARM):
        raise RuntimeError(f"a healthy file was not taken, or nothing could be started:\n{said}")
    end = "hung" if stuck else f"died of signal {-process.returncode}"
    return position, f"{end}\n{said}"


def _wait(process, progress):
    """Wait until a process ends; True where it did not go on for long, and was killed."""
    seen, since = None, time.monotonic()
    while True:
        try:
            process.wait(STEP_S)
            return False
        except subprocess.TimeoutExpired:
            now = _progress(progress)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK_S:
                process.kill()
                process.wait()
                return True


def _progress(path):
    data = path.read_bytes() if path.exists() else b""
    return struct.unpack("<4q", data) if len(data) == 32 else (0, 0, 0, 0)


def _blame(parts, seed, position, end):
    """The mutant at a position, and how its process ended."""
    for target, first, count in parts:
        if position < count:
            return {"target": target, "index": first + position, "seed": seed, "wrong": end}
        position -= count
    raise IndexError(position)


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed mutants to everything that reads files.")
    parser.add_argument("-n", "--count", type=int, default=100_000, help="mutants altogether")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this; repeatable")
    parser.add_argument("--index", type=int, help="begin with this mutant")
    parser.add_argument("--save", help="write the mutant --index of --target to this file")
    args = parser.parse_args()
    names = args.target or list(TARGETS)
    if args.save:
        _, data = TARGETS[names[0]].mutant(args.seed, names[0], args.index)
        Path(args.save).write_bytes(data)
        return 0
    total, wrong, began = Counter(), [], time.monotonic()
    for name, count in shares(args.count, names):
        since = time.monotonic()
        counts, found = run([(name, args.index or 0, count)], args.seed)
        for each in found:
            again = f"--target '{name}' --seed {args.seed} --index {each['index']} -n 1"
            print(
                json.dumps({**each, "again": f"python -m tests.torture.fuzz {again}"}), flush=True
            )
        line = {"target": name, **counts, "wrong": len(found)}
        print(json.dumps({**line, **times(since)}), flush=True)
        total, wrong = total + counts, wrong + found
    print(json.dumps({"mutants": total["fed"], **total, "wrong": len(wrong), **times(began)}))
    return bool(wrong)


def times(since: float) -> dict[str, float]:
    """Seconds since then, and those of the processor in all workers so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = round(used.ru_utime + used.ru_stime, 1)
    return {"seconds": round(time.monotonic() - since, 1), "cpu_s_so_far": cpu}


if __name__ == "__main__":
    sys.exit(main())
