"""Where MP4, Matroska and Windows Media files end by their own headers.

FFmpeg decodes what is there and says nothing of the rest. Layouts: ISO/IEC 14496-12 section 4.2,
RFC 8794 sections 4 and 5, and Microsoft's "Advanced Systems Format" section 3.2.
"""

import struct

from sepcli.containers.pieces import Scan

_SEGMENT = b"\x18\x53\x80\x67"  # of Matroska: all but its header
_PROPERTIES = bytes.fromhex(
    "a1dcab8c47a9cf118ee400c00c205365"
)  # of ASF: the file's size is in them


def end_of(scan: Scan, start: int) -> int:
    """Where the file that begins at `start` of a `pieces.Scan` ends, as far as it tells."""
    head = scan.at(start, 1024)
    if head[4:8] == b"ftyp":
        return _end_of_mp4(scan, start)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _end_of_matroska(head, start)
    place = head.find(_PROPERTIES) if head[:4] == b"0&\xb2u" else -1
    return start + int.from_bytes(head[place + 40 : place + 48], "little") if place > 0 else 0


def _end_of_mp4(scan, position):
    while len(head := scan.at(position, 16)) >= 8:
        size, kind = struct.unpack_from(">I4s", head)
        if size == 1:  # a size of 64 bits follows
            size = int.from_bytes(head[8:], "big")
        if size < 8 or not kind.strip(b"\0"):  # 0: until the end of the file
            break
        position += size
    return position


def _end_of_matroska(head, start):
    length, first = _number(head, 4)
    body = first + (length or 0)
    if head[body : body + 4] != _SEGMENT:
        return 0
    size, first = _number(head, body + 4)
    return 0 if size is None else start + first + size


def _number(head, place):
    """(the number of variable size at `place`, None for "unknown"; where it ends)."""
    if place >= len(head) or not head[place]:
        return None, place + 1
    length = 9 - head[place].bit_length()
    value = int.from_bytes(head[place : place + length], "big")
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value, place + length
