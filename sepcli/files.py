"""Files that appear whole or not at all, and what the system says when they cannot be made.

The one home of what happens to outputs that exist already, and of the line that an OSError becomes.
Everything that is written goes through here, except for what streams.
"""

import contextlib
import errno
import io
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError
from sepcli.temporary import ENDING, SHOWN, sweep, temporary

Place = str | os.PathLike[str]

_LONGEST = 255  # bytes of a name, in the file systems that there are
_MODELS = (".safetensors", ".pth", ".chkpnt", ".onnx", ".pt2")

_NO_ROOM = "make room"
_ELSEWHERE = "choose another place"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the spelling",
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: "check the permissions, or choose another place",
    errno.EPERM: "check the permissions, or choose another place",
    errno.EISDIR: "name a file in it",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
}

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


# What the system says


@contextlib.contextmanager
def explained(where: Place, kind: type[SepcliError] = SepcliError) -> Iterator[None]:
    """Turn what the system says of `where` into one line, a `kind`; a closed pipe stays one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise kind(complaint(error, where)) from None


def complaint(error: OSError, where: Place) -> str:
    """One line on an OSError: the file (`where` unless the error names another), reason, remedy."""
    name = where
    if isinstance(error.filename, str | bytes | os.PathLike):
        named = os.fsdecode(error.filename)
        name = where if ENDING in os.path.basename(named) else named
    if error.errno in (errno.EEXIST, errno.ENOTDIR) and (blocker := _in_the_way(name)):
        return f"{blocker}: a file, where a folder is needed; {_ELSEWHERE}"
    if error.errno == errno.EBADF:
        return f"{name}: closed; connect it to a file or a pipe"
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:200]
    remedy = _REMEDIES.get(error.errno or 0, "check the path, the permissions and the space")
    return f"{name}: {reason}; {remedy}"


def _in_the_way(path):
    """The first of `path` and the folders above it that exists, if it is no folder; else None."""
    for place in (Path(path), *Path(path).parents):
        if os.path.lexists(place):
            return None if os.path.isdir(place) else place
    return None


# What is there in place of a file


def stand_in(head: bytes) -> str:
    """What a file that begins with `head` is in place of the one that was meant, and the remedy.

    "" where it is neither the pointer of a file that Git LFS holds, nor a page of the web, nor
    compressed.
    """
    if head.startswith(b"version https://git-lfs"):
        return "only a Git LFS pointer; fetch the file itself: git lfs pull"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        return "a web page; download the file itself, not the page that shows it"
    for magic, program in _COMPRESSED.items():
        if head.startswith(magic):
            return f"compressed; unpack it with {program} -d, or pipe it in: {program} -dc"
    return ""


def check_meant(path: Place) -> None:
    """Raise SepcliError for a file that stands in for another; see `stand_in`."""
    with explained(path), open(path, "rb") as file:
        if what := stand_in(file.read(256)):
            raise SepcliError(f"{path}: {what}")


# What is in a folder


def entries(
    folder: Place, above: tuple[os.stat_result, ...] = ()
) -> tuple[list[os.DirEntry[str]], tuple[os.stat_result, ...]]:
    """The entries of a folder in the order of their names, and `above` for the folders among them.

    What is hidden is left out, and so is everything where the folder is one of those above it, as a
    link makes it. Raises SepcliError for a folder that cannot be read.
    """
    with explained(folder), os.scandir(folder) as scan:
        here = os.stat(folder)
        if any(os.path.samestat(here, other) for other in above):
            return [], above
        seen = [entry for entry in scan if not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name), (*above, here)


# Names


def beside(path: Place, ending: str) -> Path:
    """`path` with `ending` added to its name: always the same one, cut where it would be too long.

    What is cut off is represented by a hash, so that different names stay different.
    """
    path = Path(path)
    if len(os.fsencode(path.name + ending)) <= _LONGEST:
        return path.with_name(path.name + ending)
    import hashlib

    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    return path.with_name(f"{path.name[:SHOWN]}~{digest}{ending}")


def companion(path: Place, ending: str) -> Path:
    """The file that goes with a model file, such as its graph: the same name with another ending.

    A name that does not end like a model's, as v1.0 does not, is kept whole.
    """
    path = Path(path)
    stem = path.stem if path.suffix in _MODELS else path.name
    return path.with_name(stem + ending)


def in_folder(path: Place, name: str) -> Path:
    """`path`, or the file `name` in it where it is a folder, or ends like one."""
    path = os.fspath(path)
    return Path(path, name) if path.endswith(os.sep) or os.path.isdir(path) else Path(path)


def composed(name: str) -> str:
    """A name as it is compared with others: é is one letter, though macOS writes it as two."""
    return unicodedata.normalize("NFC", name)


# Text


_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def encoding_of(head: bytes) -> tuple[str, int]:
    """(encoding, length of the byte order mark) of a text that begins with the bytes `head`.

    UTF-16 is recognised without a mark, too, by the zero in its first letter, which is ASCII in
    every list and in JSON.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if len(head) > 1 and 0 in head[:2] and any(head[:2]):
        return ("utf-16-le" if head[1] == 0 else "utf-16-be"), 0
    return "utf-8", 0


def text_of(data: bytes, where: Place) -> str:
    """The text in bytes: UTF-8 or UTF-16, with a byte order mark or without.

    Names of files may be any bytes: those that are no UTF-8 become surrogates, as Python has them.
    Raises SepcliError, naming `where`, for what is no text.
    """
    encoding, mark = encoding_of(data)
    try:
        errors = "surrogateescape" if encoding == "utf-8" else "strict"
        text = data[mark:].decode(encoding, errors)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SepcliError(f"{where}: neither UTF-8 nor UTF-16; save it as UTF-8 text")
    return text


def read_text(path: Place) -> str:
    """The text in a file, see `text_of`; SepcliError where it cannot be read."""
    with explained(path):
        return text_of(Path(path).read_bytes(), path)


def lines_of(text: str) -> list[str]:
    """The lines of a text, without their ends, which may be those of any system."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


# What exists already


def stays(paths: Iterable[Place], overwrite: bool | None) -> bool:
    """Whether outputs exist and are left as they are; SepcliError where nobody said what to do.

    paths: those that are written together. overwrite: True replaces what exists, False keeps it
    where all are there, None makes it an error.
    """
    paths = list(paths)
    existing = [path for path in paths if os.path.exists(path)]
    if existing and overwrite is None:
        raise exists(existing[0])
    return overwrite is False and len(existing) == len(paths)


def exists(path: Place) -> SepcliError:
    """The SepcliError on an output that is there already."""
    return SepcliError(f"{path}: exists; use --overwrite or --skip-existing")


# What can be written


def check_place(path: Place, *, folder: bool = False) -> None:
    """Raise SepcliError now if a file (or folder) `path` could not be made later; leaves no trace.

    For what takes long to compute. Folders on the way count as makeable; devices and pipes as
    writable.
    """
    path = Path(path)
    if os.path.isdir(path) and not folder:
        raise SepcliError(f"{path}: a folder; name a file in it")
    if is_device(path):
        return
    with explained(path):
        place = Path(os.path.realpath(path))
        missing = [place] if not folder or not place.is_dir() else []
        missing += [above for above in place.parents if not os.path.lexists(above)]
        above = missing[-1].parent if missing else place
        longest = _longest_name(above)
        if any(len(os.fsencode(part.name)) > longest for part in missing):
            raise OSError(errno.ENAMETOOLONG, "", os.fspath(path))
        if folder and os.path.lexists(place) and not place.is_dir():
            raise OSError(errno.ENOTDIR, "", os.fspath(path))
        sweep(above)
        probe = temporary(above / "probe")
        probe.open("xb").close()
        probe.unlink()


def _longest_name(folder):
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):  # what it is about is found out by writing
        return _LONGEST


def is_device(path: Place) -> bool:
    """Whether `path` is there, but neither a file nor a folder: a pipe, or /dev/stdout."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def make_folder(path: Place) -> None:
    """Make a folder, and those above it; SepcliError where that is impossible."""
    with explained(path):
        os.makedirs(path, exist_ok=True)


# Writing


class Aside:
    """A file (or folder) that is written beside its place: `part` is where, `commit` moves it.

    What others that were killed left beside it goes, see `temporary.sweep`.

    path: its place; the folder of it is made, a link stays a link, and a device or pipe is written
        to at the end.
    ending: of the temporary name, for libraries that look at it.
    """

    def __init__(self, path: Place, *, ending: str = ENDING) -> None:
        self.path, self._scratch = Path(path), None
        if is_device(path):
            import tempfile

            self._scratch = Path(tempfile.mkdtemp(prefix="sepcli-"))
            self.part = temporary(self._scratch / "out", ending)
            return
        self.path = Path(os.path.realpath(path))
        os.makedirs(self.path.parent, exist_ok=True)
        sweep(self.path.parent)
        self.part = temporary(self.path, ending)

    def commit(self, *, sync: bool = False) -> None:
        """Move what was written to its place, in one step where that is new or a file.

        sync: wait until its bytes are on the disk, so that a crash cannot leave an empty file.
        """
        if self._scratch:
            with self.part.open("rb") as source, self.path.open("wb") as target:
                shutil.copyfileobj(source, target)
            return
        if sync:
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
        if self.part.is_dir() and os.path.isdir(self.path):
            self._exchange()
        else:
            os.replace(self.part, self.path)

    def _exchange(self):
        """Put a folder in the place of another."""
        old = temporary(self.path)
        os.replace(self.path, old)
        try:
            os.replace(self.part, self.path)
        except OSError:
            os.replace(old, self.path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was not committed."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.part) if self.part.is_dir() else self.part.unlink(missing_ok=True)
            if self._scratch:
                self._scratch.rmdir()


@contextlib.contextmanager
def replacing(path: Place, *, ending: str = ENDING, sync: bool = False) -> Iterator[Path]:
    """Yield a Path to write a file or folder at, which takes the place of `path` at the end.

    After an exception `path` is as it was. See `Aside`. Raises SepcliError for what the system
    refuses.
    """
    with explained(path):
        aside = Aside(path, ending=ending)
        try:
            yield aside.part
            aside.commit(sync=sync)
        finally:
            aside.discard()


def save(path: Place, content: str | bytes, *, sync: bool = False) -> None:
    """Write text (as UTF-8) or bytes to a file that is complete or not there at all."""
    with replacing(path, sync=sync) as part:
        part.write_bytes(
            content.encode(errors="surrogateescape") if isinstance(content, str) else content
        )


@contextlib.contextmanager
def honest(path: Place) -> Iterator[io.FileIO]:
    """Open a new file at `path` for a library that hides the system's complaints behind its own.

    Yields a binary file; when a write to it failed, that OSError is raised whatever the library
    raised in its place (torch: a RuntimeError on the format of archives).
    """
    file = _Witness(path, "wb")
    try:
        with file:
            yield file
    except Exception:
        if file.error is not None:
            raise file.error from None
        raise


class _Witness(io.FileIO):
    """A file that remembers the first write that failed."""

    error = None

    def write(self, data: Any) -> int:
        try:
            view = memoryview(data).cast("B")
            while len(view):  # a full disk takes less than it gets, before it refuses
                view = view[super().write(view) :]
            return memoryview(data).nbytes
        except OSError as error:
            self.error = self.error or error
            raise
