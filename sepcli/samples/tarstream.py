"""Samples as members of a tar archive: USTAR, in the WebDataset convention.

A sample is a few consecutive members that share their name up to the first dot: `KEY.json` first,
whose `fields` name the others, then `KEY.mix.wav` and so on. `__end__` closes the archive with the
number of samples, which tells a complete stream from one cut off by a crash upstream.
"""

import json
import os
import re
from pathlib import Path

from sepcli.errors import OutputError, SepcliError
from sepcli.files import explained
from sepcli.samples.sample import Sample, json_line, parse_meta, unreadable
from sepcli.samples.tarblocks import END_OF_ARCHIVE, CutError, header, padding, read_members

END = "__end__"
_NAME = re.compile(r"(?!__[^/]*__/)((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # WebDataset's rule
_PIECE = 1 << 20  # bytes copied at once
_READ_ANYWAY = "read what is there with --no-strict"


def prefix_of(key):
    """The name of a sample's members up to the dot: `key`, with underscores for its own dots."""
    return key.replace(".", "_")


def split_member_name(name):
    """(prefix, name within the sample) of a member, or None for one that is part of no sample."""
    match = _NAME.fullmatch(name.removeprefix("./"))
    return match and match.groups()


class TarWriter:
    """Write samples to a binary stream; `close` marks the stream as complete."""

    def __init__(self, stream, name="standard output"):
        """stream: binary, need not seek; errors call it `name`."""
        self.count = 0
        self._stream, self._name = stream, name
        self._whole = True  # ends behind a sample

    def skips(self, key):
        """Whether `write` would leave out the sample `key`: never."""
        return False

    def write(self, sample):
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
        contents |= {name: sample.members[name] for name in sample.ordered()}
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

    def close(self):
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


def read_tar(stream, *, origin="standard input", strict=True):
    """Yield the samples of a tar archive, or of several one after the other, as they arrive.

    stream: binary, need not seek. A sample is handed on as soon as the last member that its
    `fields` name is there; without `fields`, when another sample begins.
    strict: whether a stream that ends early, a sample that lacks a field, and a closing count
    that is missing or wrong are a SepcliError, raised after all samples before it. Otherwise
    what is there is read, but for a sample in which the stream ends.
    Raises SepcliError in any case for a stream that is damaged. A sample whose JSON is none, or
    that has a member twice, is an `unreadable` one.
    """
    reader = _Reader(origin, strict)
    try:
        for member in read_members(stream, origin):
            yield from reader.take(member)
    except CutError as error:
        if strict:
            raise SepcliError(
                f"{origin}: cut off {error} after {reader.so_far()}; the command upstream stopped "
                f"early, see its message, or {_READ_ANYWAY}"
            ) from None
        yield from reader.last_sample(error)


class _Reader:
    """Groups members into samples, and counts."""

    def __init__(self, origin, strict):
        self.origin, self.strict = origin, strict
        self.group = None  # the sample whose members arrive
        self.count = 0  # samples so far
        self.before = 0  # of these, in archives that are complete
        self.promised = None  # the closing count of this archive
        self.last = None  # prefix of the sample handed on last

    def so_far(self):
        return f"{self.count} sample{'' if self.count == 1 else 's'}"

    def take(self, member):
        """Yield the sample that `member`, (name, bytes) or None at an archive's end, completes."""
        name, data = member or (None, None)
        while name and name.startswith("./"):  # as `tar cf - .` writes them
            name = name[2:]
        if name is None or name == END:
            yield from self._finish()
            self._end_archive() if name is None else self._add_promise(data)
        elif match := _NAME.fullmatch(name):
            yield from self._add(*match.groups(), data)

    def _add(self, prefix, name, data):
        if self.group and self.group.prefix != prefix:
            yield from self._finish()
        if self.group is None:
            if self.strict and prefix == self.last and name != "json":
                raise SepcliError(
                    f"{self.origin}: {prefix}.{name} follows its complete sample; name it in the "
                    f"fields of {prefix}.json, or {_READ_ANYWAY}"
                )
            self.group = _Group(prefix, self.origin)
        self.group.add(name, data)
        if self.group.complete():
            yield self._hand_on()

    def _finish(self):
        """Yield the sample whose end only what follows it shows."""
        if self.group is None:
            return
        if self.strict and (missing := self.group.missing()):
            raise SepcliError(
                f"{self.origin}: sample {self.group.prefix} lacks {', '.join(missing)}, which its "
                f"JSON names; write it again, or {_READ_ANYWAY}"
            )
        yield self._hand_on()

    def last_sample(self, error):
        """Yield the sample before the place where the stream was cut, if it may be complete."""
        if self.group and not error.inside and not self.group.missing():
            yield self._hand_on()

    def _hand_on(self):
        sample, self.last, self.group = self.group.sample(), self.group.prefix, None
        self.count += 1
        return sample

    def _add_promise(self, data):
        try:
            self.promised = (self.promised or 0) + json.loads(data)["count"]
        except (ValueError, TypeError, LookupError, RecursionError):
            if self.strict:
                raise SepcliError(
                    f"{self.origin}: the closing {END} holds {data[:20]!r} instead of a count; "
                    f"write it again, or {_READ_ANYWAY}"
                ) from None

    def _end_archive(self):
        here, self.before = self.count - self.before, self.count
        promised, self.promised, self.last = self.promised, None, None
        if not self.strict or promised == here:
            return
        if promised is None:
            raise SepcliError(
                f"{self.origin}: no closing {END} after {self.so_far()}; the command upstream "
                f"stopped early, or another program wrote this tar: then {_READ_ANYWAY}"
            )
        raise SepcliError(
            f"{self.origin}: {here} samples arrived but its closing count says {promised}; "
            f"write it again, or {_READ_ANYWAY}"
        )


class _Group:
    """Members of one sample, until it is complete."""

    def __init__(self, prefix, origin):
        self.prefix, self.origin = prefix, origin
        self.meta, self.members, self.fault = None, {}, None

    def add(self, name, data):
        label = f"{self.origin}: {self.prefix}.{name}"
        if name in self.members or (name == "json" and self.meta is not None):
            self.fault = f"{label} comes twice in one sample; remove one"
        elif name != "json":
            self.members[name] = data
        else:
            try:
                self.meta = parse_meta(data, label)
            except SepcliError as error:
                self.meta, self.fault = {}, str(error)

    def missing(self):
        fields = (self.meta or {}).get("fields") or ()
        return [name for name in fields if name not in self.members]

    def complete(self):
        return bool(self.meta) and self.meta.get("fields") is not None and not self.missing()

    def sample(self):
        meta = self.meta or {}
        key = meta.get("key")
        if not isinstance(key, str) or prefix_of(key) != self.prefix:
            key = self.prefix
        if self.fault:
            return unreadable(key, self.fault, self.origin)
        return Sample(key, meta, self.members, self.origin)
