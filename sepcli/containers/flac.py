"""Where the FLAC streams in a file begin and end; layout: RFC 9639."""

from collections.abc import Callable

from sepcli.containers import tags
from sepcli.containers.checksums import remainder
from sepcli.containers.pieces import Link, Scan

_STARTS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")  # with STREAMINFO, which may be the only block
_SYNC = b"\xff\xf8"  # of frames that all have as many samples, but for the last
_LONGEST_FRAME = 1 << 16  # bytes, by far
_MOST = (1 << 36) - 1  # samples that a header can tell


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The FLAC that begins at `start` of a `pieces.Scan`; returns ([`Link`], where it ends).

    A decoder stops where the header says, so the next stream has to be looked for.
    """
    layout = scan.at(start + 8, 34)
    frames, begin = int.from_bytes(layout[10:18], "big") & _MOST, _after_metadata(scan, start)
    end = _next_start(scan, begin)
    if end < scan.size:
        return [Link(((start, end),))], end
    stop = tags.start_of_last(scan, begin)
    if not frames:  # then it ends before the tags, over which the decoder would trip
        return [Link(((start, stop),))], stop
    if _has_more(scan, begin, stop, frames, int.from_bytes(layout[:2], "big")):
        place = start + 18  # 28 bits of layout, and 36 of frames: as if they were not told
        told = int.from_bytes(scan.at(place, 8), "big") & ~_MOST
        return [Link(((start, place), told.to_bytes(8, "big"), (place + 8, stop)))], stop
    return [Link(((start, end),))], end


def _has_more(scan, begin, stop, frames, block):
    """Whether the last frame, which is whole, lies behind the samples that the header declares.

    block: samples in a frame but the last, as the header says.
    """
    start = max(begin, stop - _LONGEST_FRAME)
    tail = scan.at(start, stop - start)
    place = tail.rfind(_SYNC)
    while place >= 0:
        number, samples = _counted(tail[place : place + 16])
        if samples:
            if number * block + samples <= frames:
                return False
            if not remainder(tail[place:], 0x8005, 16):
                return True
        place = tail.rfind(_SYNC, 0, place)
    return False


def _counted(head):
    """(number of a frame, samples in it) by its first 16 bytes; (0, 0) if these are none."""
    if len(head) < 16:
        return 0, 0
    size, rate = head[2] >> 4, head[2] & 15
    length = max(1, 8 - (head[4] ^ 0xFF).bit_length())  # of the number, as in UTF-8
    number = head[4] & 0x7F >> (length if length > 1 else 0)
    for byte in head[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    place = 4 + length
    more = {6: 1, 7: 2}.get(size, 0)
    end = place + more + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if remainder(head[: end + 1], 0x07, 8):
        return 0, 0
    if more:
        return number, int.from_bytes(head[place : place + more], "big") + 1
    return number, 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8


def _after_metadata(scan, start):
    """Where the frames begin; a picture among the metadata may hold anything."""
    position, last = start + 4, False
    while not last and len(head := scan.at(position, 4)) == 4:
        last = head[0] & 0x80
        position += 4 + int.from_bytes(head[1:], "big")
    return position


def _next_start(scan, position):
    """Where the next stream begins from `position` on, or `scan.size`."""
    while (position := scan.find(b"fLaC", position)) >= 0:
        if scan.at(position, 8) in _STARTS:
            return position
        position += 4
    return scan.size
