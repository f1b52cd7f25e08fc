"""Files seen from any place, and stretches of them for a decoder, as files of their own."""

import bisect
import contextlib
import io
import itertools
import os
from dataclasses import dataclass
from typing import Any

_LEAST_AHEAD, _MOST_AHEAD = 1 << 11, 1 << 16  # bytes that `Scan` reads at once


class Bytes(io.BytesIO):
    """Bytes as a file for libsndfile, which seeks to before the start of some damaged ones.

    An exception in its callbacks would be printed on stderr; it notices by itself that the
    position did not change.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with contextlib.suppress(ValueError, OverflowError):
            super().seek(offset, whence)
        return self.tell()


def read_at(file: Any, offset: int, count: int) -> bytes:
    """Up to `count` bytes of a seekable binary file from `offset` on; fewer only at its end."""
    try:
        descriptor = file.fileno()
    except OSError:  # bytes in memory
        file.seek(offset)
        return file.read(count)
    found = os.pread(descriptor, count, offset)
    while 0 < len(found) < count and (more := os.pread(descriptor, count, offset + len(found))):
        found += more[: count - len(found)]
    return found


class Scan:
    """The bytes of a file of `size` bytes, for looking at many places one after the other.

    Places that follow each other are read further and further ahead.
    """

    def __init__(self, file: Any, size: int, head: bytes = b"") -> None:
        """head: what it begins with, as far as that is known."""
        self.file, self.size = file, size
        self._start, self._buffer, self._ahead = 0, head, _LEAST_AHEAD

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on; fewer only at the end."""
        begin = position - self._start
        if begin < 0 or begin + count > len(self._buffer):
            count = min(count, self.size - position)
            if count <= 0:  # also where a header puts it beyond what a system can count
                return b""
            follows = 0 < begin <= 2 * len(self._buffer)
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if follows else _LEAST_AHEAD
            self._buffer = read_at(self.file, position, max(count, self._ahead))
            self._start, begin = position, 0
        return self._buffer[begin : begin + count]

    def find(self, marker: bytes, start: int, stop: int | None = None) -> int:
        """Where `marker` is first found in [start, stop), or -1."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            chunk = read_at(self.file, start, min(_MOST_AHEAD, stop - start))
            if (found := chunk.find(marker)) >= 0:
                return start + found
            if len(chunk) < len(marker):
                break
            start += len(chunk) - len(marker) + 1
        return -1

    def after_zeros(self, position: int) -> int:
        """Where the first byte from `position` on lies that is not 0, or `size`."""
        while position < self.size:
            chunk = read_at(self.file, position, 1 << 20)
            if rest := chunk.lstrip(b"\0"):
                return position + len(chunk) - len(rest)
            position += len(chunk) or self.size
        return self.size


class Cursor:
    """A place in a `Scan` that moves on: `peek`, `read` and `skip`, as of `streams.Peekable`."""

    def __init__(self, scan: Scan, position: int = 0) -> None:
        self.scan, self.position = scan, position

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, which stay to be read; fewer only at the end."""
        return self.scan.at(self.position, count)

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        found = self.peek(count)
        self.position += len(found)
        return found

    def skip(self, count: int) -> int:
        """Pass over `count` bytes; returns how many there were."""
        passed = max(0, min(count, self.scan.size - self.position))
        self.position += passed
        return passed

    def skip_zeros(self) -> int:
        """Pass over bytes of 0; returns how many there were."""
        before, self.position = self.position, self.scan.after_zeros(self.position)
        return self.position - before


class Pieces(io.RawIOBase):
    """Parts of a seekable binary file, and bytes, one after the other as a file to read.

    parts: (start, stop) in `file`, or bytes.
    """

    def __init__(self, file: Any, parts: Any) -> None:
        self._file = file
        self._parts = [part for part in parts if _length(part)]
        self._edges = [0, *itertools.accumulate(map(_length, self._parts))]
        self._position = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._edges[-1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if 0 <= base + offset < 2**63:  # otherwise it stays; see `Bytes`
            self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end; all that is left for -1. Without a copy of them."""
        left, found = self.size - self._position, []
        missing = left if size is None or size < 0 else size
        while missing > 0 and (some := self._some(missing)):
            found.append(some)
            missing -= len(some)
        return found[0] if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def _some(self, count):
        """At least one and at most `count` of the next bytes; b"" at the end."""
        which = bisect.bisect_right(self._edges, self._position) - 1
        if which >= len(self._parts):
            return b""
        part, offset = self._parts[which], self._position - self._edges[which]
        count = min(count, self._edges[which + 1] - self._position)
        if isinstance(part, bytes):
            found = part[offset : offset + count]
        else:
            found = read_at(self._file, part[0] + offset, count)
        self._position += len(found)
        return found


def _length(part):
    return len(part) if isinstance(part, bytes) else max(0, part[1] - part[0])


@dataclass(frozen=True)
class Link:
    """A sound in a file, where several may follow each other."""

    parts: tuple  # of the file, for `Pieces`: plain samples, or what a decoder is to read
    header: object = None  # the `wav.Header` of plain samples
    frames: int | None = None  # what was counted where a decoder only guesses
    is_untold: bool = False  # whether libsndfile would be wrong about lengths and places
    what: str = ""  # the format, if it is not one that libsndfile reads for sure
    is_foreign: bool = False  # whether libsndfile does not even have to try
