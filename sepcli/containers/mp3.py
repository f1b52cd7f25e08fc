"""MP3 and MP2: where their frames are, and what they say about their own length.

libsndfile believes the length that the first frame tells, or guesses one from its bit rate, and
everything beyond is lost. So where the file does not end as the first frame says, all frames are
looked at, and what follows is given a first frame that tells how many they are. Frame layout:
ISO/IEC 11172-3 section 2.4.1.3 and 13818-3; its tags: LAME's VbrTag.c and Fraunhofer's VBRI.
"""

import functools
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sepcli.containers import tags
from sepcli.containers.pieces import Link, Scan
from sepcli.errors import SepcliError
from sepcli.signals.checks import cut_off, damaged, too_short

FRAME = 1152  # samples per frame, 576 of layer III below 32 kHz
_BIT_RATES = {  # kbit/s by (lower sampling frequency, layer)
    (False, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (True, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)  # Hz; MPEG-2 halves them, MPEG-2.5 quarters them
_FARTHEST = 1 << 17  # bytes without a frame, before the first or between two
_GAP = 4096  # bytes between two frames that nobody asks about
_LOOKED_AT = 100  # frames whose sizes are taken for those of all
_SURE = 4  # frames in a row that are no accident
_SLACK = 2  # frames by which counts are off at times


@dataclass(frozen=True)
class _Frame:
    """What a frame's header says."""

    size: int  # bytes
    bit_rate: int  # kbit/s
    kind: tuple  # layer, Hz, mono: what a decoder cannot change on its way
    side: int  # bytes of side information, behind which a tag lies


def is_mp3(head: bytes) -> bool:
    """Whether the first bytes are an ID3 tag or a frame of MPEG layer II or III."""
    return head[:3] == b"ID3" or _parse(head) is not None


def _parse(head):
    """The `_Frame` whose header `head` starts with, or None."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    return _frame(head[1], head[2], head[3] >> 6)


@functools.lru_cache(4096)
def _frame(first, second, mode):
    version, layer = first >> 3 & 3, 4 - (first >> 1 & 3)  # version: 3 is 1, 2 is 2, 0 is 2.5
    rate_index, rate = second >> 4, second >> 2 & 3
    if version == 1 or layer not in (2, 3) or rate == 3 or not 1 <= rate_index <= 14:
        return None
    low, mono = version != 3, mode == 3
    bit_rate = _BIT_RATES[low, layer][rate_index - 1]
    sample_rate = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    per_frame = 72 if low and layer == 3 else 144  # bytes per (kbit/s) / (kHz)
    size = per_frame * bit_rate * 1000 // sample_rate + (second >> 1 & 1)
    side = (9 if mono else 17) if low else (17 if mono else 32)
    return _Frame(size, bit_rate, (layer, sample_rate, mono), side)


@dataclass
class _Tag:
    """A first frame that holds no sound but a length; 0 where it does not tell one."""

    start: int
    stop: int
    frames: int = 0  # without this one
    size: int = 0  # bytes of all of them


def _tag_at(scan, start, frame):
    """The `_Tag` in the frame at `start`, or None."""
    head = scan.at(start, 64).ljust(64, b"\0")
    tag = _Tag(start, start + frame.size)
    if head[36:40] == b"VBRI":
        tag.size, tag.frames = struct.unpack_from(">II", head, 46)
        return tag
    place = 4 + frame.side
    if head[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, *counts = struct.unpack_from(">III", head, place + 4)
    tag.frames = counts.pop(0) if flags & 1 else 0
    tag.size = counts[0] if flags & 2 else 0
    return tag


@dataclass
class _Run:
    """Frames of one kind that follow each other."""

    head: bytes  # the first one's header
    frame: _Frame
    tag: _Tag | None
    count: int = 0
    bit_rates: set = field(default_factory=set)
    parts: list = field(default_factory=list)  # [start, stop] of frames without gaps

    def add(self, start, frame):
        if self.parts and self.parts[-1][1] == start:
            self.parts[-1][1] += frame.size
        else:
            self.parts.append([start, start + frame.size])
        self.bit_rates.add(frame.bit_rate)
        self.count += 1


def find_sounds(
    scan: Scan, start: int, name: str, complain: Callable[[Exception], None]
) -> tuple[list[Link], int]:
    """The MP3s that begin at `start` of a `pieces.Scan`; returns ([`Link`], where they end).

    `complain` is called with an error for frames that are missing.
    """
    stop = tags.start_of_last(scan, start)
    begin = find_run(scan, start, stop)
    if begin < 0:  # of an oddity, libmpg123 finds the frames by itself
        return [Link(((start, scan.size),))], scan.size
    frame: Any = _parse(scan.at(begin, 4))
    if begin + frame.size > scan.size:
        raise cut_off(name, f"{scan.size} bytes are there")
    tag = _tag_at(scan, begin, frame)
    if tag and tag.frames:
        is_whole = stop - begin in (tag.size, tag.size + frame.size)
        if is_whole and _is_likely(scan, tag, stop):
            return [Link(((begin, stop),))], stop
    if tag and begin + tag.size > stop + tag.size // 100:
        complain(too_short(name, stop, begin + tag.size, "bytes"))
    runs = [run for run in _runs(scan, begin, stop, name, complain) if run.count]
    if not runs:
        raise damaged(name, "an MP3 without a frame of sound")
    return [_link(run, name, complain) for run in runs], runs[-1].parts[-1][1]


def _is_likely(scan, tag, stop):
    """Whether as many frames as a tag tells have, at the size of the first ones, about its size."""
    first = itertools.islice(_frames(scan, tag.stop, stop, "", lambda error: None), _LOOKED_AT)
    sizes = [frame.size for _, frame in first]
    return bool(sizes) and 0.5 < tag.frames * sum(sizes) / len(sizes) / tag.size < 2


def find_run(scan: Scan, start: int, stop: int | None = None) -> int:
    """Where the first frame from `start` on is, for what follows it are frames; or -1."""
    stop = scan.size if stop is None else stop
    if _parse(scan.at(start, 4)):
        return start
    data = scan.at(start, min(_FARTHEST, max(0, stop - start)))
    place = data.find(b"\xff")
    while place >= 0:
        if _parse(data[place : place + 4]) and is_run(scan, start + place, stop):
            return start + place
        place = data.find(b"\xff", place + 1)
    return -1


def is_run(scan: Scan, start: int, stop: int) -> bool:
    """Whether frames of one kind follow each other from `start` on."""
    first: Any = _parse(scan.at(start, 4))
    kind = first.kind
    for count in range(_SURE):
        if start == stop:
            return count > 1
        frame = _parse(scan.at(start, 4))
        if frame is None or frame.kind != kind:
            return False
        start += frame.size
    return True


def _frames(scan, start, stop, name, complain):
    """Yield (place, `_Frame`) of all whole frames; tags and padding are passed over."""
    while start < stop:
        frame = _parse(scan.at(start, 4))
        if frame and start + frame.size <= stop:
            yield start, frame
            start += frame.size
        elif frame:
            return
        elif length := tags.length(scan.at(start, 32)):
            start += length
        else:
            gap = scan.after_zeros(start)
            if (start := find_run(scan, gap, stop)) < 0:
                return
            if start - gap > _GAP:
                complain(damaged(name, f"{start - gap} bytes at {gap} that are not MP3"))


def _runs(scan, start, stop, name, complain):
    """Yield a `_Run` for every sound, also when the next one has no tag but another layout."""
    run = None
    for place, frame in _frames(scan, start, stop, name, complain):
        tag = _tag_at(scan, place, frame)
        if run is None or tag or frame.kind != run.frame.kind:
            if run:
                yield run
            run = _Run(scan.at(place, 4), frame, tag)
        if not tag:
            run.add(place, frame)
    if run:
        yield run


def _link(run, name, complain):
    """The `Link` of a `_Run`, whose length its first frame tells."""
    parts, told = tuple(map(tuple, run.parts)), run.tag.frames if run.tag else 0
    is_cut = told > run.count + _SLACK
    if is_cut:
        complain(too_short(name, run.count, told, "frames"))
    if is_cut or told in (run.count, run.count + 1):
        return Link(((run.tag.start, run.tag.stop), *parts))
    if run.frame.kind[0] == 3:
        return Link((_made_tag(run), *parts))
    if len(run.bit_rates) > 1:
        raise SepcliError(
            f"{name}: an MP2 of varying bit rate, whose length is not known; convert it: "
            "ffmpeg -i IN.mp2 OUT.wav"
        )
    return Link(parts, frames=run.count * FRAME)


def _made_tag(run):
    """A frame that tells how many frames follow: 64 kbit/s leave enough room in it."""
    rate = 8 if run.frame.side in (9, 17) and run.frame.kind[1] < 32000 else 5
    head = bytes([0xFF, run.head[1] | 1, rate << 4 | run.head[2] & 0x0C, run.head[3]])
    frame: Any = _parse(head)
    size = frame.size + sum(stop - start for start, stop in run.parts)
    counts = struct.pack(">4sIII", b"Xing", 3, run.count, size)
    return (head + bytes(frame.side) + counts).ljust(frame.size, b"\0")
