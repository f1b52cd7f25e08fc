"""A process that feeds mutants to their targets, and tells where it is before each of them.

    python -m tests.torture.worker ROOT PLAN.json

PLAN: {"seed", "first", "parts": [[target, first index, count], ...]}. What is wrong is appended to
ROOT/found.jsonl; how far it is, and what became of the mutants, is in ROOT/progress, four integers:
position, taken, refused, and what is going on. A target is fed its healthy files first, which it
has to take.
"""

import faulthandler
import json
import logging
import mmap
import os
import re
import resource
import signal
import struct
import sys
import traceback
from importlib import import_module
from pathlib import Path

from tests.torture.targets import TARGETS, Place

CPU_S = 10.0  # of one mutant
MOST_BYTES = 1 << 30  # resident
DATA_LIMIT = 6 << 30  # what a process may ask for at all, for the sake of the machine
LONGEST = 20_000  # characters of a message
# libmpg123 within libsndfile; nothing can keep it quiet but taking standard error away from all.
DECODER = re.compile(r"(Note|Warning): |\[src/libmpg123/|mpg123")
ALSO = "TORTURE_TARGET"  # a target of a test: package.module:NAME
WARM, RUNNING, OVER = 1, 2, 3
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
    "pty.spawn", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
    "urllib.Request", "pickle.find_class", "os.kill", "signal.pthread_kill", "webbrowser.open",
)  # fmt: skip
CHANGING = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.truncate", "shutil.rmtree", "shutil.move", "os.chown",
)  # fmt: skip


class ForbiddenError(BaseException):
    """Something was tried that reading a file must never do."""


class Watch:
    """Notes what is tried that must not be, while a mutant is read."""

    def __init__(self, place: Place, root: Path) -> None:
        self.place, self.seen = place, []
        self._free = (str(place.output) + "/", str(root / "tmp") + "/")
        sys.addaudithook(self._hear)

    def _hear(self, event, args):
        if not self.place.armed:
            return
        if event in FORBIDDEN:
            self._refuse(f"{event} {args[:2]!r:.200}")
        elif event == "open":
            path, mode, flags = args
            writes = flags & WRITING if isinstance(flags, int) else set(mode or "") & set("wax+")
            if writes and not self._allowed(path):
                self._refuse(f"open {path!r} {mode} {flags}")
        elif event in CHANGING and not self._allowed(args[0]) and not _in_open_folder(args):
            self._refuse(f"{event} {args!r:.200}")

    def _allowed(self, path):
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a descriptor, which was opened before
        path = os.path.abspath(os.fsdecode(path))
        return path == os.devnull or f"{path}/".startswith(self._free)

    def _refuse(self, what):
        self.seen.append(what)
        raise ForbiddenError(what)


def _in_open_folder(args):
    """Whether a path is seen from a descriptor, as shutil.rmtree does it, of what was allowed."""
    return isinstance(args[-1], int) and args[-1] >= 0 and len(args) > 1 and "/" not in str(args[0])


class Notes(logging.Handler):
    """Sees that what sepcli tells beside errors is lines, too."""

    def emit(self, record: logging.LogRecord) -> None:
        assert record.getMessage().isprintable(), record.getMessage()

    def handleError(self, record):  # noqa: N802
        raise


class Progress:
    """Four integers in a file that the parent reads, too."""

    def __init__(self, path: Path) -> None:
        path.touch()
        os.truncate(path, 32)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 32)
        self.taken = self.refused = 0

    def tell(self, position: int, state: int) -> None:
        self._map[:] = struct.pack("<4q", position, self.taken, self.refused, state)


def peak() -> int:
    """The most resident bytes since `forget_peak`."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Feeder:
    """Feeds mutants, and says what is wrong."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed = root, seed
        self.place = Place(root)
        self.watch = Watch(self.place, root)
        self.progress = Progress(root / "progress")
        self._found = (root / "found.jsonl").open("a")

    def warm(self, target: str) -> None:
        """The healthy files, which also load whatever is loaded late."""
        about = TARGETS[target]
        for name, data in about.seeds().items():
            try:
                about.read(self.place, name, data)
            finally:
                self.place.clear()

    def feed(self, target: str, index: int) -> None:
        name, data = TARGETS[target].mutant(self.seed, target, index)
        size, self.watch.seen = os.fstat(2).st_size, []
        forget_peak()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        self.place.armed = True
        wrong, taken = "", 0
        try:
            TARGETS[target].read(self.place, name, data)
            taken = 1
        except BaseException as error:
            self.place.armed = False
            wrong = self._judged(error)
        finally:
            self.place.armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self.watch.seen:
            wrong = "forbidden: " + "; ".join(self.watch.seen[:3]) + "\n" + wrong
        if strays := self.place.strays(self.root_watched):
            wrong = wrong or f"left behind: {strays}"
        self.place.clear()
        if lines := said(size):
            wrong = wrong or f"printed: {lines}"
        most = peak()
        if most > MOST_BYTES:
            wrong = wrong or f"took {most >> 20} MB"
        if wrong:
            self._tell(target, index, name, wrong)
        self.progress.taken += taken and not wrong

    @property
    def root_watched(self):
        return self.root / "in"

    def _judged(self, error):
        """What is wrong with an exception, or nothing."""
        from sepcli.errors import SepcliError

        if not isinstance(error, SepcliError):
            return "".join(traceback.format_exception(error)[-8:])
        line = str(error)
        if not line.isprintable() or not line.strip() or len(line) > LONGEST:
            return f"a message that is no line: {line!r:.200}"
        self.progress.refused += 1
        return ""

    def _tell(self, target, index, name, wrong):
        record = {"target": target, "index": index, "seed": self.seed, "file": name}
        self._found.write(json.dumps({**record, "wrong": wrong}) + "\n")
        self._found.flush()


def said(start: int) -> str:
    """What was written to standard output and error since `start`, but for remarks of decoders."""
    if os.fstat(2).st_size == start:
        return ""
    with open("/proc/self/fd/2", "rb") as file:
        file.seek(start)
        lines = file.read(5000).decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if line and not DECODER.match(line))


def main(root: Path, plan: dict) -> None:
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # says where it was, and ends
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
    logging.getLogger("sepcli").addHandler(Notes())
    logging.getLogger("sepcli").propagate = False
    if also := os.environ.get(ALSO):
        module, _, name = also.partition(":")
        TARGETS["worst"] = getattr(import_module(module), name)
    feeder = Feeder(root, plan["seed"])
    position = 0
    for target, first, count in plan["parts"]:
        begun = max(0, plan["first"] - position)
        if begun < count:
            feeder.progress.tell(position + begun, WARM)
            feeder.warm(target)
            for index in range(begun, count):
                feeder.progress.tell(position + index, RUNNING)
                feeder.feed(target, first + index)
        position += count
    feeder.progress.tell(position, OVER)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
