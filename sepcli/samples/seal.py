"""The seal of a pack: HDF5's block for its users, which tells whether the file is whole.

It comes before HDF5's first byte and says how long the file is, where the pcm of each group lies,
and what everything else hashes to. See `samples/pack.py`.
"""

import hashlib
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError
from sepcli.files import explained, stand_in

VERSION = 2  # of the format
MAKE_AGAIN = "copy it again, or make it again with sepcli pack"
_FIRST_LINE = re.compile(rb"sepcli pack (\d{1,9}) (\d{1,9}) ([0-9a-f]{8})\n")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PIECE = 1 << 22  # bytes hashed at once


def write_seal(file: Any, block: int, places: Any) -> None:
    """Write the user's block of `block` bytes into a pack that is complete but for it.

    places: (offset, bytes) of each pcm.
    """
    size = file.seek(0, os.SEEK_END)
    digest = _digest(file, block, places, size)
    text = json.dumps({"bytes": size, "pcm": places, "digest": digest}).encode()
    file.seek(0)
    head = b"sepcli pack %d %d %08x\n" % (VERSION, block, zlib.crc32(text))
    file.write((head + text).ljust(block, b"\0"))


def _digest(file, block, places, size):
    """The hash of everything in a pack but its user's block and the contents of pcm."""
    digest, position = hashlib.blake2b(digest_size=16), block
    for start, length in [*sorted(place for place in places if place[1]), (size, 0)]:
        file.seek(position)
        missing = start - position
        while missing > 0 and (piece := file.read(min(missing, _PIECE))):
            digest.update(piece)
            missing -= len(piece)
        position = start + length
    return digest.hexdigest()


def read_seal(path: str | Path) -> Any:
    """Check that a file is a whole pack; returns what its user's block says."""
    with explained(path), open(path, "rb") as file:
        head = file.read(512)
        if not (match := _FIRST_LINE.match(head)):
            if other := stand_in(head):
                raise SepcliError(f"{path}: {other}")
            what = "HDF5, but not a pack" if _HDF5 in head else "no pack"
            raise SepcliError(f"{path}: {what}, or its start is damaged; make one with sepcli pack")
        version, block, crc = int(match[1]), int(match[2]), int(match[3], 16)
        size = file.seek(0, os.SEEK_END)
        if version != VERSION:
            advice = "make the pack again" if version < VERSION else "update the program"
            raise SepcliError(
                f"{path}: a pack of version {version}, but this program reads {VERSION}; {advice}"
            )
        file.seek(0)
        text = file.read(block if 512 <= block <= size else 512)[match.end() :].rstrip(b"\0")
        if zlib.crc32(text) != crc:
            raise SepcliError(f"{path}: damaged in its first {block} bytes; {MAKE_AGAIN}")
        seal = _parsed(text)
        if seal is None:
            raise SepcliError(f"{path}: its seal is not valid; {MAKE_AGAIN}")
        if size != seal["bytes"]:
            fault = "cut off" if size < seal["bytes"] else "longer than when it was written"
            raise SepcliError(
                f"{path}: {fault}, {size} bytes instead of {seal['bytes']}; {MAKE_AGAIN}"
            )
        if _digest(file, block, seal["pcm"], size) != seal["digest"]:
            raise SepcliError(f"{path}: damaged in its index; {MAKE_AGAIN}")
    return seal


def _parsed(text):
    """What a seal says, or None where that is not what `write_seal` writes."""
    try:
        seal = json.loads(text)
        counts = [seal["bytes"], *(number for place in seal["pcm"] for number in place)]
        pairs = all(len(place) == 2 for place in seal["pcm"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    whole = all(type(number) is int and number >= 0 for number in counts)
    return seal if pairs and whole and isinstance(seal.get("digest"), str) else None
