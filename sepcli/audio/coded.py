"""Compressed and other formats through libsndfile: its quirks, and what it did not like."""

import os
from typing import Any

import soundfile

from sepcli.containers.sniffing import sniff
from sepcli.errors import SepcliError
from sepcli.files import stand_in
from sepcli.signals.checks import cut_off, damaged

LONGEST = 2**62  # frames; libsndfile says more than this when a FLAC does not tell its length


class SoundFile(soundfile.SoundFile):
    """soundfile's, without its seek after every read and write.

    That seek resets the decoder of an MP3 below 32 kHz (wrong samples at every block), fails at
    the end of a FLAC of unknown length, and makes reading FLAC in blocks five times slower.
    """

    def seekable(self) -> bool:
        return False


def open_sound(file: Any) -> SoundFile:
    """Open a seekable binary file for decoding; raises soundfile.LibsndfileError."""
    file.seek(0)
    try:
        source = file.fileno()
        os.lseek(source, 0, os.SEEK_SET)  # libsndfile starts where the descriptor stands
    except OSError:
        source = file  # bytes in memory, or pieces of a file
    return SoundFile(source, closefd=False)


def reason(error: Any) -> str:
    """libsndfile's words for what it did not like."""
    return error.error_string.removeprefix("Error : ").rstrip(". ")


_CONTROL = set(range(32)) - set(b"\t\n\r")  # bytes that no text has


def not_opened(head: bytes, size: int, name: str, error: Exception) -> SepcliError:
    """The error for content that libsndfile refuses, as helpful as the first bytes allow."""
    if size < 12:
        return cut_off(name, f"{size} bytes are there")
    if sniff(head) in ("wav", "audio"):
        return damaged(name, f"in its header: {reason(error)}")
    what = "unknown data" if set(head) & _CONTROL else "text"
    if other := stand_in(head):
        return SepcliError(f"{name}: {'text, not sound: ' if what == 'text' else ''}{other}")
    return SepcliError(
        f"{name}: {what}, not audio in a supported format; "
        f"convert it to WAV, or check that it is the right file"
    )
