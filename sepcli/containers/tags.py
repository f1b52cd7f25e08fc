"""Tags before and behind sound: ID3v1, ID3v2, APE and Lyrics3, as far as their lengths.

Layouts: id3.org's "ID3 tag version 2.4.0 - Main Structure", sections 3.1 and 3.4, and "Lyrics3
v2.00"; hydrogenaud.io's "APEv2 specification".
"""

import struct

from sepcli.containers.pieces import Scan

_ID3V1 = 128  # bytes


def is_id3(head: bytes) -> bool:
    """Whether an ID3v2 tag begins here; a chunk called `ID3 ` is none."""
    return head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0x10


def _id3_length(head):
    """Bytes of an ID3v2 tag: its size has 7 bits a byte, a footer repeats the header."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if head[5] & 0x10 else 0)


def length(head: bytes) -> int:
    """Bytes of the tag that begins with the 32 bytes `head`, or 0 if none does."""
    if is_id3(head):
        return _id3_length(head)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + struct.unpack_from("<I", head, 12)[0]
    if head[:4] == b"TAG+":
        return 227
    return _ID3V1 if head[:3] == b"TAG" else 0


def skip(scan: Scan, position: int) -> int:
    """Where the sound or whatever begins behind the ID3v2 tags at `position`."""
    while is_id3(head := scan.at(position, 10)):
        position += _id3_length(head)
    return position


def start_of_last(scan: Scan, floor: int) -> int:
    """Where the tags at the end of a file begin, but not before `floor`."""
    stop = scan.size
    while size := _length_before(scan, stop):
        if stop - size < floor:
            break
        stop -= size
    return stop


def _length_before(scan, stop):
    """Bytes of the tag that ends at `stop`, or 0."""
    if scan.at(max(0, stop - _ID3V1), 3) == b"TAG":
        return _ID3V1
    footer = scan.at(max(0, stop - 32), 32)
    if footer[:8] == b"APETAGEX" and len(footer) == 32:
        size, flags = struct.unpack_from("<I4xI", footer, 12)
        return size + (32 if flags & 1 << 31 else 0)
    if footer[-9:] == b"LYRICS200" and footer[-15:-9].isdigit():
        return int(footer[-15:-9]) + 15
    if footer[-10:-7] == b"3DI":
        return _id3_length(footer[-10:])
    return 0
