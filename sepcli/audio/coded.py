"""Compressed and other formats through libsndfile: its quirks, and the checks it leaves out.

libsndfile shortens a cut-off AIFF, AU, CAF, W64, Ogg or MP3 without a word, so what those
formats' own headers promise is compared with what is there first.
"""

import contextlib
import io
import os
import shlex
import struct

import soundfile

from sepcli.audio import mp3
from sepcli.audio.checks import cut_off, damaged, too_short
from sepcli.audio.streams import sniff
from sepcli.errors import SepcliError
from sepcli.files import stand_in

LONGEST = 2**62  # frames; libsndfile says more than this when a FLAC does not tell its length
_LARGEST_PAGE = 65307  # bytes of an Ogg page, RFC 3533 section 6


class SoundFile(soundfile.SoundFile):
    """soundfile's, without its seek after every read and write.

    That seek resets the decoder of an MP3 below 32 kHz (wrong samples at every block), fails at
    the end of a FLAC of unknown length, and makes reading FLAC in blocks five times slower.
    """

    def seekable(self):
        return False


class Bytes(io.BytesIO):
    """Bytes as a file for libsndfile, which seeks to before the start of some damaged ones.

    An exception in its callbacks would be printed on stderr; it notices by itself that the
    position did not change.
    """

    def seek(self, offset, whence=os.SEEK_SET):
        with contextlib.suppress(ValueError, OverflowError):
            super().seek(offset, whence)
        return self.tell()


def open_coded(file, size, name):
    """Open a seekable binary file of `size` bytes for decoding; returns a `SoundFile`.

    Raises SepcliError when it is cut off or nothing that can be decoded.
    """
    file.seek(0)
    head = file.read(64)
    check_complete(file, size, head, name)
    file.seek(0)
    try:
        source = file.fileno()
        os.lseek(source, 0, os.SEEK_SET)  # libsndfile starts where the descriptor stands
    except OSError:
        source = file  # bytes in memory
    try:
        return SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise _not_opened(head, size, name, error) from None


def reason(error):
    """libsndfile's words for what it did not like."""
    return error.error_string.removeprefix("Error : ").rstrip(". ")


def check_complete(file, size, head, name):
    """Refuse a file that is shorter than its own header says."""
    promised = None
    if head[:4] == b"FORM":
        promised = _known(int.from_bytes(head[4:8], "big"), 8 - 1)  # the last pad byte may miss
    elif head[:4] == b".snd":
        offset, length = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        promised = _known(length, offset)
    elif head[:4] == b"caff":
        promised = _end_of_caf(file, size)
    elif head[:4] == b"riff":  # Sony Wave64: its size follows a GUID of 16 bytes
        promised = int.from_bytes(head[16:24], "little")
    elif head[:4] == b"OggS":
        _check_ogg(file, size, name)
    elif mp3.is_mp3(head):
        mp3.check(file, size, name)
    if promised is not None and promised > size:
        raise too_short(name, size, promised, "bytes")


def _known(length, before):
    """End of a chunk, or None for the lengths that mean "unknown"."""
    return None if length == 0 or length >= 0x7F000000 else before + length


def _end_of_caf(file, size):
    """Where the last chunk of a Core Audio file ends."""
    position, kind = 8, None
    while position + 12 <= size and kind != b"\0\0\0\0":
        file.seek(position)
        kind, length = struct.unpack(">4sq", file.read(12))
        if length < 0:  # -1: audio data until the end of the file
            return None
        position += 12 + length
    return position


def _check_ogg(file, size, name):
    """The last page must be whole and marked as the last (RFC 3533)."""
    file.seek(max(0, size - 2 * _LARGEST_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(segments) or not page[5] & 4:
        raise cut_off(name, "its last Ogg page is missing")


_CONTROL = set(range(32)) - set(b"\t\n\r")  # bytes that no text has
_FOREIGN = (  # (offset, bytes there, what it is)
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"0&\xb2u", "WMA or WMV"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"#!AMR", "AMR"),
)


def _not_opened(head, size, name, error):
    """The error for content that libsndfile refuses, as helpful as the first bytes allow."""
    if size < 12:
        return cut_off(name, f"{size} bytes are there")
    if sniff(head) == "audio":
        return damaged(name, f"in its header: {reason(error)}")
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            file = shlex.quote(name) if os.path.exists(name) else "FILE"  # not a pipe's name
            return SepcliError(
                f"{name}: {what}, which is not read here; convert it: ffmpeg -i {file} out.wav, "
                f"or pipe it in: ffmpeg -i {file} -f wav - | sepcli ... -"
            )
    if other := stand_in(head):
        return SepcliError(f"{name}: {other}")
    what = "unknown data" if set(head) & _CONTROL else "text"
    return SepcliError(
        f"{name}: {what}, not sound in a format that is read here; "
        f"convert it to WAV, or check that it is the file you meant"
    )
