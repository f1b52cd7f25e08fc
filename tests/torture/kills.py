"""Kill commands at random points, run them again, and compare what is there in the end.

    python -m tests.torture.kills -n 100

Each of the commands in `scenarios.SCENARIOS` is killed `-n` times by SIGKILL: at a random one of
its steps on the disk (a file opened to be written, renamed, removed, ...), or after a random time
of the processor. Up to three kills later it runs to its end, which has to succeed, and to leave the
same as a run that was never disturbed, and nothing else. What a killed run leaves in its place is
either whole or not there. The points are a function of the seed. Prints one line of JSON for each
command, and exits with 1 where something is wrong.
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from tests.torture.scenarios import SCENARIOS, Scenario, prepare, tree
from tests.torture.worker import CHANGING, WRITING

CPU_CLOCK = 2  # CLOCK_PROCESS_CPUTIME_ID
SLOWEST_S = 600.0  # of one run, however busy the machine is
IN_A_ROW = 3  # kills, at most, before a run that may end


class Ended:
    """How a run ended: its exit status, steps on the disk, processor time, and what it said."""

    def __init__(self, status: int, folder: Path, tag: str) -> None:
        self.code = os.waitstatus_to_exitcode(status)
        self.killed = self.code == -signal.SIGKILL
        log, told = folder / f".log{tag}", folder / f".told{tag}"
        self.said = log.read_text(errors="replace")
        facts, modules, *_ = *told.read_text().splitlines(), "", ""
        self.steps, self.cpu_s = json.loads(facts or "[0, 0]")
        self.modules = modules.split()  # not all of them where files may not get large
        log.unlink()
        told.unlink()


def at_step(number: int, do: Callable[[], None]) -> None:
    """Do something in this process right before a step on the disk; 0 only counts them."""
    own = os.getpid()

    def hear(event, args):
        if os.getpid() != own:  # a worker
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING
        if writes or event in CHANGING:
            SEEN[0] += 1
            if SEEN[0] == number:
                do()

    sys.addaudithook(hear)


SEEN = [0]  # steps of this process


def kill_at_step(number: int) -> None:
    """Have this process killed right before a step on the disk."""
    at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def kill_after(seconds: float) -> None:
    """Have the kernel kill this process after so much of the processor's time."""

    class Event(ctypes.Structure):  # struct sigevent, of 64 bytes
        _fields_ = [
            ("value", ctypes.c_void_p),
            ("signo", ctypes.c_int),
            ("notify", ctypes.c_int),
            ("pad", ctypes.c_int * 12),
        ]

    libc = ctypes.CDLL(None, use_errno=True)
    event, timer = Event(None, signal.SIGKILL, 0), ctypes.c_void_p()
    whole, rest = divmod(int(seconds * 1e9), 10**9)
    times = (ctypes.c_long * 4)(0, 0, whole, max(1, rest))
    if libc.timer_create(CPU_CLOCK, ctypes.byref(event), ctypes.byref(timer)) or libc.timer_settime(
        timer, 0, ctypes.byref(times), None
    ):
        raise OSError(ctypes.get_errno(), "no timer")


def run(args: tuple[str, ...], folder: Path, arm: Callable[[], None]) -> Ended:
    """Run `sepcli` with the arguments in a child of this process, in `folder`."""
    return end(*begin(args, folder, arm))


def begin(args, folder: Path, arm: Callable[[], None], tag: str = "") -> tuple[int, Path, str]:
    """Begin to run `sepcli`; what `end` takes. tag: of its own files, where others run beside."""
    for name in (f".log{tag}", f".told{tag}"):
        (folder / name).touch()
    child = os.fork()
    if not child:
        _be_sepcli(args, folder, arm, tag)
    return child, folder, tag


def end(child: int, folder: Path, tag: str) -> Ended:
    """Wait until what has begun ends, and its workers."""
    until = time.monotonic() + SLOWEST_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            raise TimeoutError(f"it hangs: {(folder / f'.log{tag}').read_text()}")
        time.sleep(0.005)
    _wait_for_group(child)
    return Ended(status, folder, tag)


def _wait_for_group(group):
    """Wait until no process of a group is left: workers end with who started them."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    raise TimeoutError("a worker outlives what started it")


def _be_sepcli(args, folder, arm, tag):
    """Become the command; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        log, told = (os.open(f"{name}{tag}", os.O_WRONLY) for name in (".log", ".told"))
        nothing = os.open(os.devnull, os.O_RDONLY)
        for taken, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(taken, number)
        modes = ((0, "r"), (1, "w"), (2, "w"))
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in modes)
        before = time.process_time()
        arm()
        from sepcli.cli import main as command
        from sepcli.cli import open_standard_streams

        open_standard_streams()
        try:
            command(list(args), prog_name="sepcli")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            facts = json.dumps([SEEN[0], time.process_time() - before])
            os.write(told, f"{facts}\n{' '.join(sorted(sys.modules))}".encode())
    finally:
        os._exit(code)


class Trial:
    """One command, undisturbed first; then killed."""

    def __init__(self, name: str, root: Path, seed: int) -> None:
        self.about: Scenario = SCENARIOS[name]
        self.name, self.root, self.seed = name, root, seed
        self.whole = self.new_folder("whole")
        ended = run(self.about.first, self.whole, lambda: at_step(0, lambda: None))
        assert ended.code == 0, ended.said
        preload(ended.modules)
        whole = run(self.about.first, self.new_folder("again"), lambda: at_step(0, lambda: None))
        ended.cpu_s = whole.cpu_s
        self.steps, self.cpu_s = ended.steps, ended.cpu_s
        self.expected = tree(self.whole)
        assert self.expected
        self.wrong: list[str] = []
        self.kills = 0

    def new_folder(self, name: str) -> Path:
        """An empty folder with the inputs."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "in").symlink_to(self.root / "in")
        return folder

    def killed(self, index: int) -> None:
        """Kill it once or more, let it end, and look at what is there."""
        rng, folder = Random(f"{self.seed}/{self.name}/{index}"), self.new_folder("killed")
        points, args = [], self.about.first
        for _ in range(rng.randint(1, IN_A_ROW)):
            arm, point = self._point(rng)
            points.append(point)
            ended = run(args, folder, arm)
            self.kills += ended.killed
            if not ended.killed and ended.code:
                self.tell(points, f"exit code {ended.code}: {ended.said[-500:]}")
            self.look(folder, points)
            if not ended.killed:
                break
            args = self.next(folder)
        self.finish(folder, points)

    def _point(self, rng):
        if rng.random() < 0.7:
            step = rng.randint(1, self.steps)
            return lambda: kill_at_step(step), f"step {step} of {self.steps}"
        seconds = rng.random() * self.cpu_s
        return lambda: kill_after(seconds), f"after {seconds:.3f} of {self.cpu_s:.3f} s"

    def next(self, folder: Path) -> tuple[str, ...]:
        """How it goes on: a training that has no checkpoint yet starts again."""
        if self.name != "train" or (folder / "run/last.ckpt").exists():
            return self.about.again
        return (*self.about.first, "--overwrite")

    def look(self, folder: Path, points: list[str]) -> None:
        """See that what has its own name is whole."""
        if not self.about.whole:
            return
        for path, content in tree(folder).items():
            unfinished = any(part.startswith(".") or ".part" in part for part in Path(path).parts)
            if not unfinished and content != self.expected.get(path):
                self.tell(points, f"{path}: half-written")

    def finish(self, folder: Path, points: list[str]) -> None:
        """Run it to its end, and compare."""
        ended = run(self.next(folder), folder, lambda: None)
        if ended.code:
            self.tell(points, f"exit code {ended.code} in the end: {ended.said[-500:]}")
        self.compare(folder, points)

    def compare(self, folder: Path, points: list[str]) -> None:
        """See that what is there is what an undisturbed run leaves."""
        left = tree(folder)
        for path in sorted({*left, *self.expected}):
            if left.get(path) != self.expected.get(path):
                what = "left behind" if path not in self.expected else "another or missing"
                self.tell(points, f"{path}: {what}")

    def tell(self, points: list[str], what: str) -> None:
        self.wrong.append(f"{self.name}, {'; '.join(points)}: {what}")


LOADED = ("sepcli", "torch", "onnx", "onnxscript", "onnx_ir", "scipy", "h5py", "soundfile", "yaml")


def preload(modules: Iterable[str] = ("onnxruntime", "torch")) -> None:
    """Load what every child needs once, and not in each of them: most of the time goes there."""
    for name in modules:
        if name.partition(".")[0] in (*LOADED, "onnxruntime") and name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    os.environ["SEPCLI_CACHE"] = "off"
    # Workers of a cluster as forks, which have all this, and are not 3 s of the processor each.
    os.environ["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "fork"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill commands at random points.")
    parser.add_argument("-n", "--kills", type=int, default=100, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="repeatable")
    args = parser.parse_args()
    preload()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        (Path(folder) / "in").mkdir()
        prepare(Path(folder) / "in")
        for name in args.only or SCENARIOS:
            began, index = time.monotonic(), 0
            trial = Trial(name, Path(folder), args.seed)
            while trial.kills < args.kills and index < 3 * args.kills + 3:
                trial.killed(index)
                index += 1
            for line in trial.wrong:
                print(json.dumps({"wrong": line}), flush=True)
            line = {"command": name, "kills": trial.kills, "trials": index}
            line |= {"steps": trial.steps, "cpu_s": round(trial.cpu_s, 2)}
            line["wrong"] = len(trial.wrong)
            line["seconds"] = round(time.monotonic() - began, 1)
            print(json.dumps(line), flush=True)
            wrong += len(trial.wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
