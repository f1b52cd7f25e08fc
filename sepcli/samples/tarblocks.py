"""Tar archives as a stream of members: 512-byte blocks in and out, without a seek.

tarfile itself reads a pipe in pieces that wait for what comes after a member, takes blocks that
are no header for the end or skips them, and keeps every header; so only its header code is used.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from sepcli.audio.streams import read_fully
from sepcli.errors import SepcliError

BLOCK = tarfile.BLOCKSIZE  # 512 bytes
END_OF_ARCHIVE = bytes(2 * BLOCK)
_PIECE = 1 << 20  # bytes read at once, however much a header promises
_LONGEST_EXTRA = 1 << 20  # bytes of a GNU long name or a PAX header
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_BEFORE_ANOTHER = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_WITHOUT_DATA = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE,
    tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
)  # fmt: skip


class CutError(Exception):
    """The stream ended before it was complete: where, and whether `inside` something."""

    def __init__(self, where: str, inside: bool = True) -> None:
        super().__init__(where)
        self.inside = inside


def header(name: str, size: int) -> bytes:
    """The header of a member: mode 0644, no owner, no time.

    512 bytes of USTAR; for names over 100 bytes (255 with a `/` in the right place) and 8 GiB or
    more, a PAX header before that.
    """
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, "utf-8")
    except ValueError:
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8")


def padding(size: int) -> bytes:
    """The zeros that fill a member's last block."""
    return bytes(-size % BLOCK)


def read_members(
    stream: Any, origin: str, *, index: bool = False
) -> Iterator[tuple[Any, bytes | tuple[Any, Any]] | None]:
    """Yield (name, bytes) of each regular member, and None where an archive ends.

    index: instead of bytes, yield (offset, size), where they are in a stream that can seek.

    Archives may follow one another; links, folders and devices are passed over. Raises CutError
    if the stream ends without two blocks of zeros, SepcliError, naming `origin`, if it is no tar.
    """
    zeros, last, extra = 0, None, {}
    while block := read_fully(stream, BLOCK):
        if len(block) < BLOCK:
            raise CutError(f"inside the header after {last}" if last else "inside its header")
        if not block.strip(b"\0"):
            zeros += 1
            if zeros == 2:
                yield None
            continue
        zeros = 0
        member = _parse_header(block, last, origin)
        if member.type in _BEFORE_ANOTHER:
            extra |= _read_extra(stream, member, last, origin)
            continue
        name, size = extra.get("path", member.name), extra.get("size", member.size)
        if member.type == tarfile.GNUTYPE_SPARSE or extra.get("sparse"):
            raise SepcliError(f"{origin}: {name} is a sparse member; write the tar without -S")
        extra = {}
        if member.type in tarfile.REGULAR_TYPES:
            yield name, (_pass_data if index else _read_data)(stream, size, name)
            last = name
        elif member.type not in _WITHOUT_DATA:
            _read_data(stream, size, name)
    if zeros < 2:
        raise CutError(f"after {last}" if last else "before its first member", inside=False)


def _parse_header(block, last, origin):
    """The TarInfo in 512 bytes."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise _damaged(last, origin) from None
    if member.size < 0:
        raise _damaged(last, origin)
    return member


def _damaged(last, origin):
    if last is None:
        return SepcliError(
            f"{origin}: not a tar archive; if it is compressed, unpack it first: "
            "zcat FILE.tar.gz | sepcli …"
        )
    return SepcliError(f"{origin}: damaged after {last}; copy or write it again")


def _read_extra(stream, member, last, origin):
    """What a long name or a PAX header says about the next member: its path, size, sparse."""
    if member.size > _LONGEST_EXTRA:
        raise _damaged(last, origin)
    data = _read_data(stream, member.size, member.name)
    if member.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    found = {}
    while member.type in _PAX and data:  # records such as b"18 path=some/name\n"
        record = re.match(rb"(\d{1,7}) ([^=\n]+)=", data)
        length = int(record[1]) if record else 0
        if not record or not record.end() < length <= len(data):
            raise _damaged(last, origin)
        name, value = record[2], data[record.end() : length - 1]
        if name == b"path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif name == b"size" and re.fullmatch(rb"\d{1,19}", value):
            found["size"] = int(value)
        elif name.startswith(b"GNU.sparse."):
            found["sparse"] = True
        data = data[length:]
    return found


def _read_data(stream, size, name):
    """A member's bytes without its padding; takes memory for what is there, not for `size`."""
    pieces, missing = [], size
    while missing and (piece := read_fully(stream, min(missing, _PIECE))):
        pieces.append(piece)
        missing -= len(piece)
    if missing:
        raise CutError(f"inside {name}")
    read_fully(stream, -size % BLOCK)
    return b"".join(pieces)


def _pass_data(stream, size, name):
    """(offset, size) of a member's bytes, which are not read."""
    offset = stream.tell()
    if offset + size > stream.seek(0, os.SEEK_END):
        raise CutError(f"inside {name}")
    stream.seek(offset + size + -size % BLOCK)
    return offset, size
