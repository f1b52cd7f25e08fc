"""Samples as members of a tar archive: USTAR, in the WebDataset convention.

A sample is a few consecutive members that share their name up to the first dot: `KEY.json` first,
whose `fields` name the others, then `KEY.mix.wav` and so on. `__end__` closes the archive with the
number of samples, which tells a complete stream from one cut off by a crash upstream.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path

from sepcli.audio.streams import read_fully
from sepcli.data.sample import Sample, explained, json_line, parse_meta
from sepcli.errors import SepcliError

BLOCK = tarfile.BLOCKSIZE  # 512 bytes
END = "__end__"
_PIECE = 1 << 20  # bytes read at once, however much a header promises
_LONGEST_EXTRA = 1 << 20  # bytes of a GNU long name or a PAX header
_NAME = re.compile(r"(?!__[^/]*__/)((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_READ_ANYWAY = "read what is there with --no-strict"
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_BEFORE_ANOTHER = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_WITHOUT_DATA = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE,
    tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
)  # fmt: skip


def prefix_of(key):
    """The name of a sample's members up to the dot: `key` with its own dots as underscores."""
    return key.replace(".", "_")


class TarWriter:
    """Write samples to a binary stream; `close` marks the stream as complete."""

    def __init__(self, stream, name="standard output"):
        """stream: binary, need not seek; errors call it `name`."""
        self.stream, self.name = stream, name
        self.count = 0

    def skips(self, key):
        """Whether `write` would leave out the sample `key`: never."""
        return False

    def write(self, sample):
        """Write one sample, json first, and flush; the same sample gives the same bytes."""
        prefix = prefix_of(sample.key)
        with explained(self.name):
            self._member(f"{prefix}.json", sample.json())
            for name in sample.ordered():
                self._member(f"{prefix}.{name}", sample.members[name])
            self.stream.flush()
        self.count += 1
        return True

    def close(self):
        """Write the closing count and the two zero blocks that end a tar archive."""
        with explained(self.name):
            self._member(END, json_line({"count": self.count}))
            self.stream.write(bytes(2 * BLOCK))
            self.stream.flush()

    def _member(self, name, content):
        if isinstance(content, Path):
            self._file(name, content)
        else:
            self.stream.write(_header(name, len(content)))
            self.stream.write(content)
            self.stream.write(bytes(-len(content) % BLOCK))

    def _file(self, name, path):
        with path.open("rb") as file:
            size = path.stat().st_size
            self.stream.write(_header(name, size))
            shutil.copyfileobj(file, self.stream, _PIECE)
            if file.tell() != size:
                raise SepcliError(f"{path}: it changed while it was read; try again")
            self.stream.write(bytes(-size % BLOCK))


def _header(name, size):
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise SepcliError(
            f"{name}: does not fit into a tar stream ({error}); write to a folder with -o DIR"
        ) from None


class _CutError(SepcliError):
    """The stream ended before it was complete."""


def read_tar(stream, *, origin="standard input", strict=True):
    """Yield the samples of a tar archive, or of several one after the other, as they arrive.

    stream: binary, need not seek. A sample is handed on as soon as the last member that its
    `fields` name is there; without `fields`, when a member of another name begins.
    strict: whether a stream that ends early, a sample that lacks a field, and a closing count
    that is missing or wrong are a SepcliError, raised after all complete samples.
    Raises SepcliError in any case where the stream is damaged rather than short.
    """
    try:
        yield from _Reader(origin, strict).samples(_members(stream, origin))
    except _CutError:
        if strict:
            raise


class _Reader:
    """Groups members into samples, and counts."""

    def __init__(self, origin, strict):
        self.origin, self.strict = origin, strict
        self.read = 0  # samples so far
        self.counted = 0  # of these, in archives that are complete
        self.promised = None  # sum of the closing counts of this archive
        self.last = None  # prefix of the sample handed on last
        self.group = None

    def samples(self, members):
        """Yield a Sample whenever one is complete; `members` yields (name, bytes) or None."""
        try:
            for member in members:
                if member is None or member[0] == END:
                    yield from self._finish_group()
                    self._end_archive() if member is None else self._promise(member[1])
                elif match := _NAME.fullmatch(member[0]):
                    yield from self._add(*match.groups(), member[1])
        except _CutError as error:
            raise _CutError(
                f"{self.origin}: cut off {error} after {self._so_far()}; "
                f"the command upstream stopped early, see its message, or {_READ_ANYWAY}"
            ) from None

    def _so_far(self):
        return f"{self.read} sample{'' if self.read == 1 else 's'}"

    def _add(self, prefix, name, data):
        if self.group and self.group.prefix != prefix:
            yield from self._finish_group()
        if self.group is None:
            if prefix == self.last and name != "json" and self.strict:
                raise SepcliError(
                    f"{self.origin}: {prefix}.{name} follows its complete sample; add it to the "
                    f"fields in {prefix}.json, or {_READ_ANYWAY}"
                )
            self.group = _Group(prefix, self.origin)
        self.group.add(name, data)
        if self.group.complete():
            yield self._hand_on()

    def _finish_group(self):
        """Hand on what has no list of fields, or not all of them, before something else begins."""
        if self.group is None:
            return
        if self.strict and (missing := self.group.missing()):
            raise SepcliError(
                f"{self.origin}: {self.group.prefix} lacks {', '.join(missing)}, which its json "
                f"names; write it again, or {_READ_ANYWAY}"
            )
        yield self._hand_on()

    def _hand_on(self):
        sample, self.last, self.group = self.group.sample(), self.group.prefix, None
        self.read += 1
        return sample

    def _promise(self, data):
        try:
            count = json.loads(data)["count"]
            self.promised = (self.promised or 0) + count
        except (ValueError, TypeError, LookupError):
            if self.strict:
                raise SepcliError(
                    f"{self.origin}: the closing {END} holds {data[:20]!r} instead of a count; "
                    f"write it again, or {_READ_ANYWAY}"
                ) from None

    def _end_archive(self):
        here, self.counted = self.read - self.counted, self.read
        promised, self.promised, self.last = self.promised, None, None
        if not self.strict or promised == here:
            return
        if promised is None:
            raise SepcliError(
                f"{self.origin}: no closing {END} after {self._so_far()}; the command upstream "
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
        self.meta, self.members = None, {}

    def add(self, name, data):
        label = f"{self.origin}: {self.prefix}.{name}"
        if name in self.members or (name == "json" and self.meta is not None):
            raise SepcliError(f"{label} comes twice in one sample; remove one")
        if name == "json":
            self.meta = parse_meta(data, label)
        else:
            self.members[name] = data

    def missing(self):
        return [name for name in (self.meta or {}).get("fields") or () if name not in self.members]

    def complete(self):
        return self.meta is not None and self.meta.get("fields") is not None and not self.missing()

    def sample(self):
        meta = self.meta or {}
        key = meta.get("key")
        if not isinstance(key, str) or prefix_of(key) != self.prefix:
            key = self.prefix
        return Sample(
            key, {**meta, "key": key, "fields": list(self.members)}, self.members, self.origin
        )


def _members(stream, origin):
    """Yield (name, bytes) of each regular member, and None where an archive ends.

    Raises _CutError, saying where, if the stream ends too early; SepcliError if it is no tar.
    """
    zeros, last, extra = 0, None, {}
    while block := read_fully(stream, BLOCK):
        if len(block) < BLOCK:
            raise _CutError(f"in the header behind {last}" if last else "in its first header")
        if not block.strip(b"\0"):
            zeros += 1
            if zeros == 2:
                yield None
            continue
        zeros = 0
        member = _parse_header(block, last, origin)
        if member.type in _BEFORE_ANOTHER:
            if member.size > _LONGEST_EXTRA:
                raise _damaged(last, origin)
            data = _read_data(stream, member.size, member.name)
            extra |= _parse_extra(member.type, data, last, origin)
            continue
        name, size = extra.get("path", member.name), extra.get("size", member.size)
        if member.type == tarfile.GNUTYPE_SPARSE or extra.get("sparse"):
            raise SepcliError(f"{origin}: {name} is a sparse member; write the tar without -S")
        extra = {}
        if member.type in tarfile.REGULAR_TYPES:
            yield name.removeprefix("./"), _read_data(stream, size, name)
            last = name
        elif member.type not in _WITHOUT_DATA:
            _read_data(stream, size, name)
    if zeros < 2:
        raise _CutError(f"behind {last}" if last else "before its first member")


def _parse_header(block, last, origin):
    """The TarInfo in 512 bytes."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise _damaged(last, origin) from None
    if member.size < 0:
        raise _damaged(last, origin)
    return member


def _damaged(last, origin):
    if last is None:
        return SepcliError(
            f"{origin}: not a tar archive; if it is compressed, unpack it first: "
            "zcat FILE.tar.gz | sepcli …"
        )
    return SepcliError(f"{origin}: damaged behind {last}; copy or write it again")


def _parse_extra(kind, data, last, origin):
    """What a long name or PAX header says about the next member: its path, size, sparse."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    found = {}
    while kind in _PAX and data:
        record = re.match(rb"(\d{1,7}) ([^=\n]+)=", data)
        length = int(record[1]) if record else 0
        if not record or not record.end() < length <= len(data):
            raise _damaged(last, origin)
        name, value = record[2], data[record.end() : length - 1]
        if name == b"path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif name == b"size" and value.isdigit():
            found["size"] = int(value)
        elif name.startswith(b"GNU.sparse."):
            found["sparse"] = True
        data = data[length:]
    return found


def _read_data(stream, size, name):
    """A member's bytes, without its padding; takes memory for what is there, not for `size`."""
    data = read_fully(stream, min(size, _PIECE))
    if len(data) < size and len(data) == _PIECE:
        pieces, missing = [data], size - len(data)
        while missing and (data := read_fully(stream, min(missing, _PIECE))):
            pieces.append(data)
            missing -= len(data)
        data = b"".join(pieces)
    padding = -size % BLOCK
    if len(data) < size or len(read_fully(stream, padding)) < padding:
        raise _CutError(f"inside {name}")
    return data
