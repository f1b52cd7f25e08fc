"""Where the FLAC streams in a file begin and end; layout: RFC 9639."""

from collections.abc import Callable

from sepcli.audio import tags
from sepcli.audio.pieces import Link, Scan

_START = b"fLaC\0\0\0\x22"  # the magic, and the header of STREAMINFO, which always comes first


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The FLAC that begins at `start` of a `pieces.Scan`; returns ([`Link`], where it ends).

    A decoder stops where the header says, so the next stream has to be looked for.
    """
    frames = int.from_bytes(scan.at(start + 18, 8), "big") & (1 << 36) - 1
    again = scan.find(_START, _after_metadata(scan, start))
    end = scan.size if again < 0 else again
    if not frames:  # not told: then it ends where the tags begin, or the decoder trips over them
        end = tags.start_of_last(scan, start) if again < 0 else end
    return [Link(((start, end),))], end


def _after_metadata(scan, start):
    """Where the frames begin; a picture among the metadata may hold anything."""
    position, last = start + 4, False
    while not last and len(head := scan.at(position, 4)) == 4:
        last = head[0] & 0x80
        position += 4 + int.from_bytes(head[1:], "big")
    return position
