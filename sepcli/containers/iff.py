"""Where AIFF, RIFX, AU, Core Audio, Wave64 and NIST files end by their own headers.

libsndfile shortens what is cut off and leaves out what follows, both without a word.
"""

import re
import struct
from collections.abc import Callable
from typing import Any

from sepcli.containers.pieces import Link, Scan
from sepcli.containers.sniffing import sniff
from sepcli.signals.checks import damaged, told_too_little, too_short

_WRAP = 1 << 32  # what sizes of 32 bits lose
_STEP = 1 << 30  # bytes of samples that are shown to libsndfile at once, where these are more
_LONGEST_HEAD = 1 << 16  # bytes before the samples of such a file
_PLAIN = (b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
_CAF_CHUNKS = (b"desc", b"data", b"pakt", b"kuki", b"chan", b"free", b"info", b"uuid")
_UNKNOWN = b"\xff" * 4  # of an AU
_NIST = re.compile(rb"(channel_count|sample_count|sample_n_bytes) -(?:i|s\d+) (\d+)")


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The sound that begins at `start` of a `pieces.Scan`; returns ([`Link`], where it ends).

    `complain` is called with an error for what would not be read.
    """
    magic: Any = scan.at(start, 4)
    if magic == b"NIST" and not scan.at(start + 8, 8).strip().isdigit():
        complain(damaged(name, "a NIST header without its size"))
    end = told = _ENDS[magic](scan, start)
    if end is None:
        end = until_again(scan, start)
    if end > scan.size:
        complain(too_short(name, scan.size - start, end - start, "bytes"))
        end = scan.size
        told = None
    parts, wrapped = ((start, end),), (scan.size - end) // _WRAP * _WRAP
    if magic == b"caff" and told is None:  # libsndfile takes nothing but the right size
        place = _size_of_caf_data(scan, start)
        size = struct.pack(">q", end - place - 8)
        parts = (start, place), size, (place + 8, end)
    if wrapped and sniff(scan.at(end, 64)) is None:
        if magic in (b".snd", b"dns."):
            end += wrapped
            parts = (start, start + 8), _UNKNOWN, (start + 12, end)
        elif links := _split(scan, start):
            return links, end + wrapped
        else:
            complain(told_too_little(name, end))
    return [Link(parts)], end


def _split(scan, start):
    """The `Link`s of an AIFF or RIFX whose sizes wrapped around, each a file of its own to see.

    None where its samples are compressed, or what it tells does not fit what is there.
    """
    place, frame, promised = start + 12, 0, None
    while len(head := scan.at(place, 8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "big")
        if kind in (b"COMM", b"fmt "):
            frame, promised = _layout(kind, scan.at(place + 8, 26), size)
        if kind in (b"SSND", b"data") or place > start + _LONGEST_HEAD:
            break
        place += 8 + size + size % 2
    if kind not in (b"SSND", b"data") or not frame:
        return None
    begin = place + 8
    if kind == b"SSND":
        begin, size = place + 16 + int.from_bytes(scan.at(place + 8, 4), "big"), size - 8
    total = size + (scan.size - begin - size) // _WRAP * _WRAP
    if total <= 0 or promised not in (None, total // frame % _WRAP):
        return None
    step = _STEP // frame * frame
    pieces = ((begin + at, begin + min(at + step, total)) for at in range(0, total, step))
    before = scan.at(start, place - start)
    return [Link((_head(before, kind, b - a, frame), (a, b))) for a, b in pieces]


def _layout(kind, about, size):
    """(bytes of a frame, 0 where it is compressed; frames, None where it does not tell)."""
    if kind == b"fmt ":
        codec, _, _, _, frame, _ = struct.unpack(">HHIIHH", about[:16].ljust(16, b"\0"))
        return (frame if codec in (1, 3) else 0), None
    channels, frames, bits = struct.unpack(">HIH", about[:8].ljust(8, b"\0"))
    is_plain = size < 22 or about[18:22] in _PLAIN
    return (channels * -(-bits // 8) if is_plain else 0), frames


def _head(before, kind, size, frame):
    """What comes before `size` bytes of samples, with the sizes that they have."""
    head = bytearray(before)
    if kind == b"SSND":
        place = before.index(b"COMM", 12) + 10
        head[place : place + 4] = struct.pack(">I", size // frame)
        head += struct.pack(">4sIII", kind, size + 8, 0, 0)
    else:
        head += struct.pack(">4sI", kind, size)
    head[4:8] = struct.pack(">I", len(head) - 8 + size)
    return bytes(head)


def until_again(scan: Scan, start: int) -> int:
    """Where the header at `start` comes once more, or the end of the file."""
    again = scan.find(scan.at(start, 24), start + 24)
    return scan.size if again < 0 else again


def _end_of_chunks(scan, start):
    """Of AIFF, and of WAV in its order of bytes, RIFX."""
    end = _known(int.from_bytes(scan.at(start + 4, 4), "big"), start + 8)
    while end and scan.at(end, 4) == b"ID3 ":  # some programs put their tags behind the end
        size = int.from_bytes(scan.at(end + 4, 4), "big")
        end = min(end + 8 + size + size % 2, max(end + 8, scan.size))
    return end


def _end_of_au(scan, start):
    order = "<" if scan.at(start, 1) == b"d" else ">"
    offset, length = struct.unpack(order + "II", scan.at(start + 4, 8).ljust(8, b"\0"))
    return _known(length, start + offset)


def _known(length, start):
    """End of a chunk, or None for the lengths that mean "unknown"."""
    unknown = length == 0 or 0x7F000000 <= length <= 0x80000000 or length >= 0xFFFFF000
    return None if unknown else start + length


def _caf_chunks(scan, start):
    """Yield (kind, bytes, where it begins behind these) of the chunks of a Core Audio file."""
    position = start + 8
    while len(head := scan.at(position, 12)) == 12:
        kind, length = struct.unpack(">4sq", head)
        position += 12
        if kind not in _CAF_CHUNKS and (
            not kind.isalnum() or not 0 <= length <= scan.size - position
        ):
            break  # padding, a tag, or another file
        yield kind, length, position
        position += max(0, length)


def _end_of_caf(scan, start):
    end = start + 8
    for _, length, begin in _caf_chunks(scan, start):
        end = begin + length
        if length < 0:  # -1: audio data until the end of the file
            return None
    return end


def _size_of_caf_data(scan, start):
    """Where the size of the samples is."""
    chunks = _caf_chunks(scan, start)
    return next((begin - 8 for kind, _, begin in chunks if kind == b"data"), scan.size)


def _end_of_w64(scan, start):
    size = int.from_bytes(scan.at(start + 16, 8), "little")  # behind a GUID of 16 bytes
    return None if size == 0 or size >= 1 << 63 else start + size


def _end_of_nist(scan, start):
    """Samples are counted in text; None where one count is missing, or they are compressed."""
    head = scan.at(start, 1024)
    counts = [int(count) for _, count in sorted(set(_NIST.findall(head)))]
    begin = head[8:16].strip()
    if len(counts) != 3 or b"shorten" in head or not begin.isdigit():
        return None
    channels, samples, width = counts
    return start + int(begin) + channels * samples * width


_ENDS = {
    b"FORM": _end_of_chunks,
    b"RIFX": _end_of_chunks,
    b".snd": _end_of_au,
    b"dns.": _end_of_au,  # AU with the other order of bytes
    b"caff": _end_of_caf,
    b"riff": _end_of_w64,  # in small letters
    b"NIST": _end_of_nist,
}
MAGICS = tuple(_ENDS)
