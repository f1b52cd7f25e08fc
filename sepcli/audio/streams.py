"""Byte streams that cannot seek: look ahead, read what is there."""

from typing import Any

from sepcli.containers.sniffing import SNIFFED, sniff


class Peekable:
    """A readable binary stream whose first bytes can be looked at before they are read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ahead = b""
        self._kept = None  # what was read since `record`

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes (fewer only at the end) and leave them to be read."""
        while len(self._ahead) < count:
            more = read_some(self._stream, count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def sniff(self) -> str | None:
        """`sniff` the stream, waiting for no more bytes than the answer takes."""
        return "wav" if sniff(self.peek(12)) == "wav" else sniff(self.peek(SNIFFED))

    def record(self) -> None:
        """Keep a copy of what is read from now on, for `rewind`, until that or `forget`."""
        self._kept = []

    def rewind(self) -> None:
        """Go back to where `record` was called."""
        self._ahead, self._kept = b"".join((*(self._kept or ()), self._ahead)), None

    def forget(self) -> None:
        """Stop keeping a copy."""
        self._kept = None

    def skip(self, count: int) -> int:
        """Pass over `count` bytes; returns how many there were."""
        passed = 0
        while passed < count and (some := self.read1(int(min(count - passed, 1 << 16)))):
            passed += len(some)
        return passed

    def skip_zeros(self) -> int:
        """Pass over bytes of 0; returns how many there were."""
        passed = 0
        while (head := self.peek(4096)) and (zeros := len(head) - len(head.lstrip(b"\0"))):
            passed += self.skip(zeros)
        return passed

    def read1(self, count: int = 1 << 16) -> bytes:
        """Return what is there, at least 1 byte and at most `count`; b"" only at the end."""
        if not self._ahead:
            return self._taken(read_some(self._stream, count))
        some, self._ahead = self._ahead[:count], self._ahead[count:]
        return self._taken(some)

    def read(self, count: int = -1) -> bytes:
        """Return `count` bytes, fewer only at the end; all that is left for -1."""
        ahead = self._ahead if count < 0 else self._ahead[:count]
        self._ahead = self._ahead[len(ahead) :]
        if len(ahead) == count:
            return self._taken(ahead)
        rest = self._stream.read() if count < 0 else read_fully(self._stream, count - len(ahead))
        return self._taken(ahead + rest if ahead else rest)

    def _taken(self, data):
        if self._kept is not None:
            self._kept.append(data)
        return data


def read_some(stream: Any, count: int) -> Any:
    """Return at least 1 and at most `count` bytes, without waiting for more; b"" at the end."""
    read1 = getattr(stream, "read1", None)
    return read1(count) if read1 else stream.read(count)


def read_fully(stream: Any, count: int) -> bytes:
    """Return `count` bytes, fewer only at the end; an unbuffered pipe gives what it has."""
    pieces, missing = [], count
    while missing and (data := stream.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
