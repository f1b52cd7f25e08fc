"""The decoders of the sounds in a seekable file."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import soundfile

from sepcli.audio import coded
from sepcli.audio.decoders import CodedDecoder, PcmDecoder
from sepcli.audio.foreign import open_foreign
from sepcli.containers import formats
from sepcli.containers.links import find_links
from sepcli.containers.pieces import Pieces
from sepcli.errors import SepcliError
from sepcli.signals import pcm

_FOUND = {}  # what `find_links` found in files that have not changed since
_MOST_FOUND = 4096
_SETTLED_S = 2.0  # younger files may change without a new time


def open_sounds(
    file: Any, size: int, name: str, complain: Callable[[Exception], None]
) -> tuple[Iterator[Any], int | None]:
    """Open a seekable file of `size` bytes; returns (iterator of its `Decoder`s, frames of all).

    Each decoder is opened when it is asked for. The frames are None when one does not tell its own.
    Raises SepcliError for what is no sound, or cannot be read as one. `complain` is called with an
    error for what is missing or would be left out.
    """
    openers = [
        functools.partial(_open_link, file, size, link, name, complain)
        for link in _links_in(file, size, name, complain)
    ]
    if len(openers) > 1:
        return (open_link() for open_link in openers), _survey(openers)
    decoder = openers[0]()
    return iter((decoder,)), decoder.frames


def _links_in(file, size, name, complain):
    """`find_links`, which looks at every page or frame of some formats: once for each file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # bytes in memory
        return find_links(file, size, name, complain)
    key = (name, complain, status.st_dev, status.st_ino, size, status.st_mtime_ns)
    if key not in _FOUND:
        found = find_links(file, size, name, complain)
        if time.time() - status.st_mtime < _SETTLED_S:
            return found
        if len(_FOUND) >= _MOST_FOUND:
            _FOUND.clear()
        _FOUND[key] = found
    return _FOUND[key]


def _survey(openers):
    """Frames of all links, None if one does not tell; SepcliError if they differ in layout."""
    total, first = 0, None
    for open_link in openers:
        with contextlib.closing(open_link()) as decoder:
            first = first or decoder
            check_same(first, decoder)
            total = None if None in (total, decoder.frames) else total + decoder.frames
    return total


def check_same(first: Any, other: Any) -> None:
    """Refuse a sound that cannot go on another one."""
    if (first.sample_rate, first.channels) != (other.sample_rate, other.channels):
        raise SepcliError(
            f"{first.name}: several recordings of different layouts in one file, "
            f"first {_layout(first)}, then {_layout(other)}; save each to a file of its own"
        )


def _layout(sound):
    return f"{sound.channels} channels at {sound.sample_rate} Hz"


def _open_link(file, size, link, name, complain):
    """A `Decoder` of one of the sounds in a file."""
    if link.header:
        return _open_plain(file, link, name, complain)
    view, what = file if link.parts == ((0, size),) else Pieces(file, link.parts), link.what
    if not link.is_foreign:
        try:
            length = {"frames": link.frames, "is_untold": link.is_untold}
            return CodedDecoder(name, view, complain, **length)
        except soundfile.LibsndfileError as error:
            view.seek(0)
            head = view.read(64)
            what = what or formats.codec_of(head)
            if not what:
                raise coded.not_opened(head, size, name, error) from None
    return open_foreign(name, view, what, complain)


def _open_plain(file, link, name, complain):
    header, gain = link.header, 1
    if header.wide:
        header, gain = _settle_width(header, Pieces(file, link.parts))
    lengths = [(stop - start) // header.frame_bytes for start, stop in link.parts]
    parts = [
        (start, start + frames * header.frame_bytes)
        for frames, (start, _) in zip(lengths, link.parts, strict=True)
    ]
    layout = (header.encoding, header.sample_rate, header.channels)
    return PcmDecoder(
        name,
        Pieces(file, parts),
        *layout,
        complain,
        frames=sum(lengths),
        container=header.container,
        can_seek=True,
        gain=gain,
    )


def _settle_width(header, samples):
    """(header, factor for its samples), where its bits and the size of its frames disagree."""
    width, valid = pcm.WIDTHS[header.wide], pcm.WIDTHS[header.encoding]
    place = pcm.place_of(iter(lambda: samples.read(width << 18), b""), width, valid)
    if place is None and not (valid == 3 and width == 4):
        return replace(header, wide=None), 1
    gain = 256 ** (width - valid) if place == "lower" else 1
    return replace(header, encoding=header.wide, wide=None), gain
