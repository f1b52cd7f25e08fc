"""How long the rarer sound files should be by their own headers, which libsndfile does not check.

It shortens AVR, IRCAM, MATLAB, MPC, PAF, PVF, VOC, WVE and XI files that are cut off, and fills up
a MIDI sample dump with silence, all without a word. Formats whose headers tell no length (IRCAM,
PAF, PVF) have whole frames at least. The layouts are those that libsndfile writes and reads.
"""

import itertools
import re
import struct
from collections.abc import Callable

from sepcli.containers.pieces import Link, Scan
from sepcli.signals.checks import cut_off, damaged, too_short

_PVF = re.compile(rb"PVF1\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s")
_MAT4_WIDTHS = (8, 4, 4, 2, 2, 1)  # bytes of a number, by the digit that tells its type
_MATRIX = 14  # type of an element of a MAT5 file
_LONGEST_VOC = 1 << 24  # bytes that the sizes of its blocks can tell
_MOST_BLOCKS = 100_000  # of a VOC
_DUMP = b"\xf0\x7e"  # a message of System Exclusive that is no realtime one
_PACKET = 127  # bytes of a MIDI sample dump


def link_of(
    scan: Scan, start: int, end: int, name: str, complain: Callable[[Exception], None]
) -> Link:
    """The `Link` of what libsndfile is to read in [start, end) of a `pieces.Scan`.

    `complain` is called with an error where its header promises more.
    """
    head = scan.at(start, 128)
    if head[:2] == _DUMP and head[3:4] == b"\1":
        return _link_of_dump(scan, start, end, name, complain)
    if (find_end := _of(_ENDS, head)) and (promised := find_end(scan, start, head) or end) > end:
        complain(too_short(name, end - start, promised - start, "bytes"))
    if (find_frames := _of(_FRAMES, head)) and (layout := find_frames(head)):
        begin, size = layout
        if partial := max(0, end - start - begin) % size:
            complain(cut_off(name, f"{partial} of {size} bytes of its last frame are there"))
    return Link(((start, end),))


def _link_of_dump(scan, start, end, name, complain):
    """The packets of a MIDI sample dump up to the first that is none, of which libsndfile prints
    every byte that it does not expect on standard output.
    """
    if end - start < 21 + _PACKET:
        raise cut_off(name, f"{end - start} bytes are there")
    samples, each = _dump(scan.at(start, 21))
    if (promised := 21 + -(-samples // each) * _PACKET) > end - start:
        complain(too_short(name, end - start, promised, "bytes"))
    count = min(-(-samples // each), (end - start - 21) // _PACKET)
    places = range(start + 21, start + 21 + count * _PACKET, _PACKET)
    good = sum(1 for _ in itertools.takewhile(lambda at: _is_packet(scan.at(at, _PACKET)), places))
    if good < count or not good:
        error = damaged(name, f"packet {good + 1} of {len(places)} is none")
        if not good:
            raise error
        complain(error)
    stop = start + 21 + good * _PACKET
    return Link(((start, stop if good < count else end),), frames=min(samples, good * each))


def _is_packet(data):
    is_marked = data[:2] == b"\xf0\x7e" and data[3] == 2 and data[-1] == 0xF7
    return is_marked and max(data[2:-1]) < 128


def _of(table, head):
    """What a table has for a file that begins like this, or None."""
    for magic, (least, find) in table.items():
        if head.startswith(magic) and len(head) >= least:
            return find
    return None


def _end_of_avr(_scan, start, head):
    is_stereo, bits, frames = struct.unpack_from(">HH10xI", head, 12)
    return _unless_empty(start + 128, frames * (1 + (is_stereo > 0)) * (bits // 8))


def _end_of_mpc(_scan, start, head):
    is_stereo, frames = struct.unpack_from("<B8xI", head, 21)
    return _unless_empty(start + 42, frames * (1 + (is_stereo > 0)) * 2)


def _end_of_wve(_scan, start, head):
    return _unless_empty(start + 32, int.from_bytes(head[18:22], "big"))


def _end_of_mat4(scan, start, head):
    order, place = ("<" if head[:4] == bytes(4) else ">"), start
    for _ in range(2):  # the sample rate and the samples
        matrix = scan.at(place, 20)
        if len(matrix) < 20:
            return place + 20
        kind, rows, columns, _, length = struct.unpack(f"{order}5I", matrix)
        if kind // 10 % 10 >= len(_MAT4_WIDTHS):
            return None
        place += 20 + length + rows * columns * _MAT4_WIDTHS[kind // 10 % 10]
    return place


def _end_of_mat5(scan, start, head):
    order = "little" if head[126:128] == b"IM" else "big"
    place, matrix = start + 128, scan.at(start + 128, 8)
    if int.from_bytes(matrix[:4], order) != _MATRIX:
        return None
    place += 16 + int.from_bytes(matrix[4:], order)  # behind the sample rate, and a second tag
    for _ in range(3):  # flags, dimensions and the name of the samples
        place += -(-_element(scan, place, order) // 8) * 8
    return place + _element(scan, place, order)  # whose matrix may claim 8 bytes too many


def _element(scan, place, order):
    """Bytes of an element of a MAT5 file with its tag, without padding."""
    tag = scan.at(place, 8)
    is_small = int.from_bytes(tag[:4], order) >> 16
    return 8 if is_small else 8 + int.from_bytes(tag[4:], order)


def _dump(head):
    """(samples, samples in a packet) of a MIDI sample dump: 120 bytes of 7 bits each."""
    samples = head[10] | head[11] << 7 | head[12] << 14
    return samples, 120 // max(2, min(4, -(-head[6] // 7)))


def _end_of_voc(scan, start, head):
    place = start + int.from_bytes(head[20:22], "little")
    if scan.size - start >= _LONGEST_VOC:
        return None
    for _ in range(_MOST_BLOCKS):
        block = scan.at(place, 4)
        if not block or not 1 <= block[0] <= 9:
            return place
        place += 4 + int.from_bytes(block[1:], "little")
    return None


def _end_of_xi(scan, start, _head):
    count = int.from_bytes(scan.at(start + 296, 2), "little")
    sizes = [scan.at(start + 298 + 40 * number, 4) for number in range(min(count, 128))]
    return _unless_empty(
        start + 298 + 40 * count, sum(int.from_bytes(size, "little") for size in sizes)
    )


def _unless_empty(begin, length):
    """Where it ends; None where its length was never filled in."""
    return begin + length if length else None


def _frames_of_paf(head):
    order = ">" if head[:4] == b" paf" else "<"
    kind, channels = struct.unpack_from(f"{order}II", head, 16)
    width = {0: 2, 1: 32, 2: 1}.get(kind)  # 24 bits: blocks of ten samples
    return (2048, width * channels) if width and channels else None


def _frames_of_pvf(head):
    if not (match := _PVF.match(head)):
        return None
    channels, _, bits = map(int, match.groups())
    return match.end(), max(1, channels * (bits // 8))


def _frames_of_ircam(head):
    order = "<" if head[:2] == b"\x64\xa3" else ">"
    for each in (order, "<", ">"):  # the magic number does not always tell
        channels, kind = struct.unpack_from(f"{each}II", head, 8)
        if 1 <= channels <= 256 and 1 <= kind & 0xFFFF <= 8:
            return 1024, channels * (kind & 0xFFFF)
    return None


_ENDS = {  # what it begins with: bytes of the header, and where the file ends
    b"2BIT": (30, _end_of_avr),
    b"\x01\x04": (42, _end_of_mpc),
    b"ALawSoundFile": (32, _end_of_wve),
    b"\0\0\0\0\1\0\0\0\1\0\0\0": (20, _end_of_mat4),
    b"\0\0\x03\xe8\0\0\0\1\0\0\0\1": (20, _end_of_mat4),
    b"MATLAB 5": (128, _end_of_mat5),
    b"Creative Voice File\x1a": (24, _end_of_voc),
    b"Extended Instrument: ": (64, _end_of_xi),
}
_FRAMES = {  # bytes of the header, and (where samples begin, bytes of a frame)
    b" paf": (28, _frames_of_paf),
    b"fap ": (28, _frames_of_paf),
    b"PVF1": (12, _frames_of_pvf),
    **{bytes((0x64, 0xA3, kind, 0)): (16, _frames_of_ircam) for kind in range(5)},
    **{bytes((0, kind, 0xA3, 0x64)): (16, _frames_of_ircam) for kind in range(5)},
}
