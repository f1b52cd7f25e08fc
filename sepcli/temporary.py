"""Names of what is not finished, which tell whose it is, so that nothing stays of who was killed.

A name is `.NAME.MACHINE-PROCESS-TOKEN.part`. Whoever next writes into the same folder, on the same
machine, removes what belongs to processes that are no more. Machines that share a folder do not
know of each other's processes, nor do containers: MACHINE stands for one start of one of these.
"""

import contextlib
import functools
import os
import re
import shutil
from pathlib import Path

ENDING = ".part"  # of everything that is not finished
SHOWN = 24  # characters of a name that its temporary name begins with
_MOST_SWEPT = 10_000  # folders to remember
_NAME = re.compile(r"\..*\.([0-9a-f]{8})-([0-9a-f]+)-[0-9a-f]{8}\.part(\.\w+)?", re.DOTALL)
_swept: set[str] = set()


def temporary(path: str | os.PathLike[str], ending: str = ENDING) -> Path:
    """A new hidden name beside `path` for what will take its place; short, whatever `path` is."""
    path = Path(path)
    owner = f"{_machine()}-{os.getpid():x}-{os.urandom(4).hex()}"
    return path.with_name(f".{path.name[:SHOWN]}.{owner}{ending}")


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove from a folder what processes that were killed have left; once for each folder."""
    place = os.path.realpath(folder)
    if place in _swept:
        return
    if len(_swept) >= _MOST_SWEPT:
        _swept.clear()
    _swept.add(place)
    with contextlib.suppress(OSError), os.scandir(place) as scan:
        for entry in [entry for entry in scan if _is_left(entry.name)]:
            with contextlib.suppress(OSError):  # another process was faster
                is_folder = entry.is_dir(follow_symlinks=False)
                shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)


def _is_left(name):
    """Whether a temporary name is one of a process that was here and is no more."""
    found = _NAME.fullmatch(name) if name.startswith(".") else None
    return bool(found) and found[1] == _machine() and not _is_alive(int(found[2], 16))


def _is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True


@functools.cache
def _machine():
    """8 hexadecimal digits that stand for this start of this machine or container."""
    about = [os.uname().nodename]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            about.append(read())
    import hashlib

    return hashlib.blake2b("\0".join(about).encode(), digest_size=4).hexdigest()
