"""The pages of an Ogg file: its links, their codecs, and whether all pages are there (RFC 3533)."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sepcli.containers.checksums import remainder
from sepcli.containers.pieces import Link, Scan
from sepcli.containers.sniffing import sniff
from sepcli.errors import Notes
from sepcli.signals.checks import cut_off, damaged

_FIRST, _LAST = 2, 4  # flags of a page
_FARTHEST = 1 << 16  # bytes before the first page
_HEAD = struct.Struct("<4sBBqIIIB")
_READ = (b"\x01vorbis", b"OpusHead")  # what the first packet of a stream begins with
_OTHERS = {b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"PCM     ": "PCM", b"CELT    ": "CELT"}
_LONGEST_PACKET = 5760  # samples, of Opus; Vorbis has 4096
_UNMARKED = Notes("Ogg files without an end-of-stream mark")


@dataclass
class _Page:
    start: int
    stop: int
    flags: int
    granule: int  # 0 until the first packet of sound is complete
    serial: int
    number: int
    packets: int  # that end on it
    goes_on: bool  # whether its last packet ends on another page
    codec: bytes  # how its first packet begins


def _page_at(scan, start):
    """The page at `start`, or None; it may end behind the end of the file."""
    head = scan.at(start, _HEAD.size)
    if head[:4] != b"OggS" or len(head) < _HEAD.size:
        return None
    _, _, flags, granule, serial, number, _, count = _HEAD.unpack(head)
    lengths = scan.at(start + _HEAD.size, count)
    body = start + _HEAD.size + count
    packets, goes_on = count - lengths.count(b"\xff"), lengths[-1:] == b"\xff"
    stop = body + sum(lengths) + (count - len(lengths))
    return _Page(start, stop, flags, granule, serial, number, packets, goes_on, scan.at(body, 8))


def _pages(scan, start):
    """Yield the pages from `start` on; what lies between them is passed over, if it is no sound."""
    while start < scan.size:
        if page := _page_at(scan, start):
            yield page
            start = page.stop
        else:
            is_sound = sniff(scan.at(start, 64)) in ("wav", "audio")
            start = -1 if is_sound else scan.find(b"OggS", start + 1)
            if start < 0:
                return


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Any], int]:
    """The links of the Ogg that begins at `start` of a `pieces.Scan`; returns ([`Link`], its end).

    `complain` is called with an error for pages that are missing. A last page that is whole but
    not marked as the last, as recorders and live streams leave it, gets its mark and a note: a
    file that was cut off between two pages is no different.
    """
    links, end, link = [], start, _Pages()
    for page in _pages(scan, start):
        if page.stop > scan.size:
            break
        if page.flags & _FIRST and link.has_begun:
            links.append(_link(scan, start, end, link, name, complain))
            start, link = page.start, _Pages()
        if link.add(page):
            complain(damaged(name, "Ogg pages are missing within"))
        end = page.stop
    is_cut = end < scan.size and b"OggS".startswith(scan.at(end, 4))
    if is_cut:
        complain(cut_off(name, "its last Ogg page is missing"))
    links.append(_link(scan, start, end, link, name, complain))
    return links, scan.size if is_cut else end


def first_page(scan: Scan, start: int) -> int:
    """Where the first page begins behind something else, such as what a server said; or -1."""
    place = scan.find(b"OggS\0\2", start, start + _FARTHEST)
    while place >= 0:
        if page := _page_at(scan, place):
            data = bytearray(scan.at(place, page.stop - place))
            told, data[22:26] = data[22:26], bytes(4)
            if _crc(data) == told:
                return place
        place = scan.find(b"OggS\0\2", place + 1, start + _FARTHEST)
    return -1


class _Pages:
    """What the pages of a link tell."""

    def __init__(self):
        self.codecs, self.last = {}, {}  # by serial number: codec, and the last page
        self.has_begun = False  # whether the first pages of all its streams are over
        self.is_late = False  # whether it begins in the middle, as recordings of live streams do

    def add(self, page):
        """Take the next page; returns whether some are missing before it."""
        self.has_begun = not page.flags & _FIRST
        self.codecs.setdefault(page.serial, page.codec)
        before, self.last[page.serial] = self.last.get(page.serial), page
        is_gap = before is not None and (
            page.number != before.number + 1 or bool(before.flags & _LAST)
        )
        if before is None or before.granule:
            return is_gap
        self.is_late |= is_gap or page.granule > page.packets * _LONGEST_PACKET
        return False


def _link(scan, start, stop, link, name, complain):
    """The `Link` of the pages in [start, stop)."""
    read = [serial for serial, codec in link.codecs.items() if codec.startswith(_READ)]
    if not read:
        found = (_OTHERS[known] for known in _OTHERS for c in link.codecs.values() if known in c)
        what = f"{next(found, 'another codec')} in Ogg"
        return Link(((start, stop),), what=what, is_foreign=True)
    parts = []
    for page in sorted((link.last[serial] for serial in read), key=lambda page: page.start):
        if page.goes_on:
            complain(cut_off(name, "its last Ogg page is missing"))
        elif not page.flags & _LAST:
            what = "its last Ogg page is not marked as the last; its end may be missing"
            _UNMARKED(f"{name}: {what}")
            parts += [(start, page.start), _marked(scan, page)]
            start = page.stop
    return Link((*parts, (start, stop)), is_untold=link.is_late)


def _marked(scan, page):
    """The bytes of a page, marked as the last of its stream."""
    data = bytearray(scan.at(page.start, page.stop - page.start))
    data[5] |= _LAST
    data[22:26] = bytes(4)
    data[22:26] = _crc(data)
    return bytes(data)


def _crc(page):
    """The checksum of a page whose own checksum is 0 (RFC 3533 section 6)."""
    return struct.pack("<I", remainder(page, 0x04C11DB7, 32))
