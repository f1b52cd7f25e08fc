"""The sounds in a file, one after the other, so that no decoder leaves one out in silence."""

import re
from collections.abc import Callable
from typing import Any

from sepcli.containers import boxes, chunks, flac, iff, mp3, ogg, promises, tags, wav
from sepcli.containers.formats import format_of
from sepcli.containers.pieces import Link, Scan
from sepcli.containers.sniffing import sniff
from sepcli.signals.checks import cut_off, told_too_little, too_short


def find_links(file: Any, size: int, name: str, complain: Callable[[Exception], None]) -> list[Any]:
    """The `Link`s in a seekable binary file of `size` bytes, in their order.

    `complain` is called with an error for what is missing or would not be read; when it does not
    raise, the rest counts. Raises SepcliError when there is no sound to begin with.
    """
    scan, links = Scan(file, size), []
    position = tags.skip(scan, 0)
    if position >= size:
        raise cut_off(name, f"{size} bytes are there")
    while position is not None:
        has_frames = scan.at(position, 4) not in (*wav.MAGICS, *iff.MAGICS)
        found, end = _find(scan, position, name, complain)
        links += found
        position, rest = _next(scan, end)
        if rest > chunks.JUNK and not has_frames:  # a frame would have been seen
            complain(told_too_little(name, end))
    return links


def _find(scan, start, name, complain):
    """The `Link`s of the format that begins at `start`, and where they end."""
    head = scan.at(start, 64)
    for magics, find_sounds in _CONTAINERS:
        if head[:4] in magics:
            return find_sounds(scan, start, name, complain)
    if what := format_of(head):
        end = boxes.end_of(scan, start)
        if end > scan.size:
            complain(too_short(name, scan.size - start, end - start, "bytes"))
        return [Link(((start, scan.size),), what=what, is_foreign=True)], scan.size
    if mp3.find_run(scan, start) >= 0:
        return mp3.find_sounds(scan, start, name, complain)
    if (place := ogg.first_page(scan, start)) > start:
        return ogg.find_sounds(scan, place, name, complain)
    links = []
    while start < scan.size:  # libsndfile's business
        end = iff.until_again(scan, start)
        links.append(promises.link_of(scan, start, end, name, complain))
        start = end
    return links, scan.size


_MAGIC = re.compile(rb"RIFF|RF64|BW64|RIFX|FORM|\.snd|dns\.|caff|riff|NIST|fLaC|OggS")
_CONTAINERS = (
    (wav.MAGICS, chunks.find_sounds),
    (iff.MAGICS, iff.find_sounds),
    ((b"fLaC",), flac.find_sounds),
    ((b"OggS",), ogg.find_sounds),
)


def _next(scan, end):
    """Where the next sound begins behind `end`, or None; and how many bytes are unexplained."""
    if end >= scan.size:
        return None, 0
    stop = tags.start_of_last(scan, end)
    position = scan.after_zeros(end)
    while position < stop and (length := tags.length(scan.at(position, 32))):
        position = scan.after_zeros(position + length)
    if position >= stop:
        return None, 0
    rest = scan.at(position, chunks.JUNK)
    for match in _MAGIC.finditer(rest):
        if sniff(rest[match.start() : match.start() + 64]) in ("wav", "audio"):
            return position + match.start(), 0
    run = mp3.find_run(scan, position, stop)
    if run >= 0 and mp3.is_run(scan, run, stop):
        return run, 0
    return None, stop - position
