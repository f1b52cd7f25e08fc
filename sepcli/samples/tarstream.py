"""Samples as members of a tar archive: USTAR, in the WebDataset convention.

A sample is a few consecutive members that share their name up to the first dot: `KEY.json` first,
whose `fields` name the others, then `KEY.mix.wav` and so on. `__end__` closes the archive with the
number of samples, which tells a complete stream from one cut off by a crash upstream.

Other programs' tars are read as well: samples that are folders, `KEY/mix.wav`, names with further
dots, and, where the tar is a file, members in any order.
"""

import os
import re
from pathlib import Path
from typing import Any

from sepcli.errors import OutputError, SepcliError
from sepcli.files import explained
from sepcli.samples.sample import Sample, json_line, split_audio_name
from sepcli.samples.tarblocks import END_OF_ARCHIVE, header, padding

END = "__end__"
_NAME = re.compile(r"(?!__[^/]*__/)((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # WebDataset's rule
_SIGNAL = re.compile(r"(mix|enroll|(ref|est)\..+)", re.DOTALL)  # names, before the extension
IN_FOLDER = "sample.json"  # the JSON of a sample that is a folder
_PIECE = 1 << 20  # bytes copied at once


def prefix_of(key: str) -> str:
    """The name of a sample's members up to the dot: `key`, with underscores for its own dots."""
    return key.replace(".", "_")


def split_member_name(name: str) -> tuple[str, str] | None:
    """(prefix, name within the sample) of a member, or None for one that is part of no sample."""
    name = bare(name)
    folder, _, base = name.rpartition("/")
    if folder and (base == IN_FOLDER or is_signal(base)):
        return folder, "json" if base == IN_FOLDER else base
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def bare(name: str) -> str:
    """The name of a member without what `tar cf - .` puts in front."""
    while name.startswith("./"):
        name = name[2:]
    return name


def is_signal(name: str) -> bool:
    stem, extension = split_audio_name(name)
    return bool(extension and _SIGNAL.fullmatch(stem))


class TarWriter:
    """Write samples to a binary stream; `close` marks the stream as complete."""

    def __init__(self, stream: Any, name: str = "standard output") -> None:
        """stream: binary, need not seek; errors call it `name`."""
        self.count = 0
        self._stream, self._name = stream, name
        self._whole = True  # ends behind a sample

    def skips(self, key: str) -> bool:
        """Whether `write` would leave out the sample `key`: never."""
        return False

    def write(self, sample: Sample) -> bool:
        """Write one sample, json first, and flush; returns True. Same sample, same bytes.

        Raises SepcliError before anything is written, so that other samples can follow, for a
        name that does not fit into a tar and a file that cannot be read; OutputError when the
        stream ends within this sample.
        """
        self._check_whole()
        prefix = prefix_of(sample.key)
        if not (match := _NAME.fullmatch(f"{prefix}.json")) or match[1] != prefix:
            raise SepcliError(f"{sample.key!r} cannot be a name in a tar; give the sample another")
        contents = {"json": sample.json()}
        contents |= {name: sample.content(name) for name in sample.ordered()}
        with explained(self._name):
            sizes = [_size(content) for content in contents.values()]
        headers = [header(f"{prefix}.{n}", s) for n, s in zip(contents, sizes, strict=True)]
        with explained(self._name, OutputError):
            self._whole = False
            for head, size, content in zip(headers, sizes, contents.values(), strict=True):
                self._member(head, size, content)
            self._stream.flush()
        self._whole = True
        self.count += 1
        return True

    def close(self) -> None:
        """Write the closing count and the two zero blocks that end a tar archive."""
        self._check_whole()
        count = json_line({"count": self.count})
        with explained(self._name, OutputError):
            self._member(header(END, len(count)), len(count), count)
            self._put(END_OF_ARCHIVE)
            self._stream.flush()

    def _check_whole(self):
        if not self._whole:
            raise OutputError(f"{self._name}: ends within a sample that could not be written")

    def _member(self, head, size, content):
        self._put(head)
        if isinstance(content, Path):
            self._copy(content, size)
        else:
            self._put(content)
        self._put(padding(size))

    def _copy(self, path, size):
        with path.open("rb") as file:
            while size and (piece := file.read(min(size, _PIECE))):
                self._put(piece)
                size -= len(piece)
        if size:
            raise OutputError(f"{path}: it became shorter while it was read; try again")

    def _put(self, data):
        while (count := self._stream.write(data)) < len(data):  # an unbuffered pipe may take less
            data = data[count:]


def _size(content):
    """Bytes in a member; OSError for a file that cannot be read."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    return len(content)
