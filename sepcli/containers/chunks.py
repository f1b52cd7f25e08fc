"""The sounds in a WAV: its samples, and what follows them, be it chunks, padding or more sound."""

import itertools
from collections.abc import Callable
from typing import Any

from sepcli.containers import formats, mp3, tags, wav
from sepcli.containers.pieces import Cursor, Link, Scan
from sepcli.containers.sniffing import sniff
from sepcli.errors import SepcliError
from sepcli.signals.checks import told_too_little, too_short

JUNK = 4096  # bytes at the end that nobody asks about: a block of a disk
_WRAP = 1 << 32  # what sizes of 32 bits lose
_NAMES = frozenset(
    b"LIST list JUNK junk PAD FLLR bext iXML axml chna fact cue plst smpl inst note labl ltxt "
    b"PEAK _PMX id3 ID3 ID32 cart umid levl acid strc afsp DISP DGDA minf elm1 regn ovwf "
    b"LGWV Cr8r SAUR AFAn CDif RLND SyLp MARK".split()
)
_MPEG = (0x50, 0x55)  # codecs, numbers of Microsoft's list
_NEXT = (*wav.MAGICS, b"data")


def next_sound(stream: Any, *, odd: bool) -> str | None:
    """Pass over what follows the samples; returns what comes then, or None at the end.

    "wav" or "data" are more samples, "audio" is sound of another format, "junk" is unexplained.

    stream: a `streams.Peekable` or a `pieces.Cursor` that stands behind an even or `odd` number of
        bytes of samples, and then before a RIFF header or a data chunk.
    """
    while True:
        _skip_pad(stream, odd)
        head = stream.peek(32)
        tag, odd = head[:4], False
        if tag in _NEXT:
            return "data" if tag == b"data" else "wav"
        if sniff(head) == "audio" and not tags.length(head):
            return "audio"
        if length := tags.length(head):
            stream.skip(length)
        elif not any(tag):
            if stream.skip_zeros() >= _WRAP // 2:
                return "junk"  # this much is no padding
        elif len(head) < 8 or not all(32 <= byte < 127 for byte in tag):
            if _skip_to_header(stream) > JUNK:
                return "junk"
        else:
            size = int.from_bytes(head[4:8], "little")
            passed = stream.skip(8 + size)
            if passed < 8 + size:  # cut off, or no chunk at all
                return "junk" if passed > JUNK and not _is_known(tag) else None
            odd = size % 2 == 1
        if not head:
            return None


def _is_known(tag):
    return tag in _NEXT or tag.strip() in _NAMES


def _skip_to_header(stream):
    """Pass over bytes up to the next WAV, or to the end; returns how many they were."""
    passed = 0
    while head := stream.peek(1 << 16):
        found = head.find(b"WAVE", 8)
        while found >= 0 and head[found - 8 : found - 4] not in wav.MAGICS:
            found = head.find(b"WAVE", found + 1)
        passed += stream.skip(found - 8 if found >= 0 else max(1, len(head) - 11))
        if found >= 0:
            break
    return passed


def _skip_pad(stream, odd):
    """Pass over the byte that makes an odd length even; some programs leave it out."""
    if odd:
        head = stream.peek(5)
        if _is_known(head[1:5]) or not _is_known(head[:4]):
            stream.skip(1)


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The WAV that begins at `start` of a `pieces.Scan`; returns ([`Link`], where it ends).

    Its samples may be in several data chunks, and sizes that wrapped around at 4 GiB are put right.
    `complain` is called with an error for what would not be read.
    """
    header = wav.read_header(Cursor(scan, start), name)
    cursor, length, parts = Cursor(scan, start + header.data_offset), header.data_bytes, []
    while True:
        begin = cursor.position
        end, follows = _pass_samples(cursor, length, name, complain)
        parts.append((begin, end))
        if follows != "data":
            break
        length = read_length(cursor)
    if end > scan.size:
        complain(_cut_off(header, parts, scan.size, name))
        parts[-1] = begin, scan.size
    if header.encoding is not None:
        return [Link(tuple(parts), header)], cursor.position
    if header.codec in _MPEG:
        scans = [(Scan(scan.file, min(stop, scan.size)), begin) for begin, stop in parts]
        found = [mp3.find_sounds(*each, name, complain)[0] for each in scans]
        return list(itertools.chain(*found)), cursor.position
    if len(parts) > 1:
        raise SepcliError(
            f"{name}: compressed samples in {len(parts)} chunks; convert it: ffmpeg -i IN OUT.wav"
        )
    if header.data_bytes not in (None, end - begin):  # a size that wrapped around
        complain(told_too_little(name, begin + header.data_bytes))
    what = formats.wav_codec(header.codec)
    return [Link(((start, cursor.position),), what=what)], cursor.position


def read_length(stream: Any) -> int | None:
    """Read the header of a data chunk; returns its bytes, None when they are not known."""
    size = int.from_bytes(stream.read(8)[4:], "little")
    return None if wav.is_placeholder(size) else size


def _pass_samples(cursor, length, name, complain):
    """Move behind samples and what follows them; returns (where the samples end, what is next)."""
    scan, end = cursor.scan, cursor.position + (length or 0)
    if length is None:
        _skip_to_header(cursor)
        return cursor.position, None
    cursor.position = min(end, scan.size)
    if end >= scan.size:
        return end, None
    if not any(_is_known(scan.at(end + pad, 4)) for pad in (0, 1)):
        end += (scan.size - end) // _WRAP * _WRAP  # what the size lost when it wrapped around
        cursor.position = end
    follows = next_sound(cursor, odd=length % 2 == 1)
    if follows == "junk":
        complain(told_too_little(name, end))
    return end, follows


def _cut_off(header, parts, size, name):
    """The error for samples that are promised but are not there."""
    promised = sum(stop - start for start, stop in parts)
    present = promised - (parts[-1][1] - size)
    if header.encoding is None:
        return too_short(name, present, promised, "bytes")
    return too_short(name, present // header.frame_bytes, promised // header.frame_bytes)
