"""Where the FLAC streams in a file begin and end; layout: RFC 9639."""

from collections.abc import Callable

from sepcli.audio import tags
from sepcli.audio.pieces import Link, Scan

_STARTS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")  # with STREAMINFO, which may be the only block


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The FLAC that begins at `start` of a `pieces.Scan`; returns ([`Link`], where it ends).

    A decoder stops where the header says, so the next stream has to be looked for.
    """
    frames = int.from_bytes(scan.at(start + 18, 8), "big") & (1 << 36) - 1
    end = _next_start(scan, _after_metadata(scan, start))
    if not frames and end == scan.size:  # then it ends before the tags, over which it would trip
        end = tags.start_of_last(scan, start)
    return [Link(((start, end),))], end


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
