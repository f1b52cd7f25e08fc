"""Packs: thousands of recordings or samples in one HDF5 file, any stretch of them read at once.

A group per source, `speech/NAME`, `noise/NAME`, `rir/NAME`, or per member of samples,
`samples/MEMBER` for its audio and `files/MEMBER` for the rest, `files/json` above all. A group has
the attributes sample_rate (Hz), source, dtype, clipped (samples beyond full scale) and

    pcm         all items end to end, in one contiguous piece: int16 or float32 samples, channels
                interleaved, or bytes (uint8) of FLAC files or of members that are no audio
    offsets     where an item begins in pcm, and
    sizes       how many elements of pcm it has
    lengths     its frames; channels, their channels
    names       paths below the source, or keys of samples; speakers, "" where there is none
    validation  1 for items that training leaves out
    numbers     what was packed first has 0; members of one sample share their number
    crc32       of the item's bytes
    blocks      crc32 of each 64 KiB of pcm, of which the last may be shorter

Any HDF5 library reads this. The block that HDF5 leaves to its users, before its own first byte,
says how long the file is, where pcm lies, and what everything else hashes to. So opening a pack
refuses a file that was cut off or damaged outside pcm. Items are checked when they are read as a
whole; where only a stretch is, the blocks that it lies in are checked when they are first met.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.errors import SepcliError
from sepcli.files import explained
from sepcli.samples.packwriting import BLOCK, BYTES, JSON, STORED, as_file, itemsize
from sepcli.samples.sample import Sample, parse_meta, split_audio_name
from sepcli.samples.seal import MAKE_AGAIN, read_seal
from sepcli.signals.checks import HIGHEST_RATE, MOST_CHANNELS


@dataclass(frozen=True)
class Group:
    """The items of one source, or of one member of samples; arrays over the items."""

    name: str
    sample_rate: int  # Hz; 0 for members that are no audio
    source: str
    dtype: str
    clipped: int  # samples beyond full scale, which int16 does not keep
    start: int  # of pcm in the file, bytes
    offsets: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray
    channels: np.ndarray
    numbers: np.ndarray
    crc32: np.ndarray
    blocks: np.ndarray  # one for each, not for each item
    validation: np.ndarray
    names: np.ndarray
    speakers: np.ndarray

    @property
    def kind(self) -> str:
        """speech, noise, rir, samples or files."""
        return self.name.partition("/")[0]

    @property
    def role(self) -> str:
        """The source's name, or that of the member of samples."""
        return self.name.partition("/")[2]

    @cached_property
    def bytes(self) -> int:
        """Bytes of pcm."""
        return int(self.sizes.sum()) * itemsize(self.dtype)

    def label(self, index: int) -> str:
        """GROUP/NAME of an item."""
        return f"{self.name}/{os.fsdecode(self.names[index])}"


_COLUMNS = tuple(f.name for f in fields(Group) if f.type is np.ndarray)


class Pack:
    """A pack open for reading: cheap to send to other processes, which open it for themselves.

    Raises SepcliError for a file that is no pack, was cut off, or is damaged; pcm is checked where
    it is read, and by `verify`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)
        self._digest = self._seal["digest"]

    @cached_property
    def _met(self):
        """Per group, which blocks of its pcm have been checked here."""
        return {name: np.zeros(group.blocks.size, bool) for name, group in self.groups.items()}

    def __getstate__(self):
        return {"path": self.path, "_digest": self._digest}

    def __eq__(self, other):
        return isinstance(other, Pack) and self.__getstate__() == other.__getstate__()

    def __hash__(self):
        return hash((self.path, self._digest))

    @cached_property
    def _seal(self):
        seal = read_seal(self.path)
        if seal["digest"] != getattr(self, "_digest", seal["digest"]):
            raise SepcliError(f"{self.path}: replaced while it was in use; start again")
        return seal

    @cached_property
    def _file(self):
        """The descriptor's owner. Its position is never used, so that forked processes share it."""
        with explained(self.path):
            return _Descriptor(self.path)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """{name: Group}, sorted by name."""
        import h5py

        names = []

        def visit(name, thing):
            if isinstance(thing, h5py.Group) and "pcm" in thing:
                names.append(name)

        _ = self._seal  # before HDF5 meets what may be damaged
        with self._sound("its index"), h5py.File(self.path) as file:
            file.visititems(visit)
            groups = [self._load(file[name]) for name in names]
        return {group.name: group for group in groups}

    @contextlib.contextmanager
    def _sound(self, what):
        """Turn whatever HDF5 and NumPy make of a file of other people into one line."""
        try:
            with explained(self.path):
                yield
        except (
            KeyError,
            ValueError,
            TypeError,
            RuntimeError,
            LookupError,
            AttributeError,
        ) as error:
            reason = str(error) or type(error).__name__
            raise SepcliError(f"{self.path}: {what} is damaged ({reason}); {MAKE_AGAIN}") from None

    def _load(self, group):
        columns = {name: self._stored_in(group, name)[()] for name in _COLUMNS}
        attributes = {name: str(group.attrs[name]) for name in ("source", "dtype")}
        attributes |= {name: int(group.attrs[name]) for name in ("sample_rate", "clipped")}
        pcm = self._stored_in(group, "pcm")
        start = pcm.id.get_offset() or 0
        loaded = Group(group.name[1:], start=start, **attributes, **columns)
        _check_numbers(loaded, pcm)
        return loaded

    def _stored_in(self, group, name):
        """The dataset `name`, which has to lie in the file itself, in one piece."""
        import h5py

        link, data = group.get(name, getlink=True), group[name]
        if not isinstance(link, h5py.HardLink) or data.external or data.is_virtual:
            raise ValueError(f"{name} lies elsewhere")
        if data.chunks or data.nbytes > self._seal["bytes"] or len(data.shape) != 1:
            raise ValueError(f"{name} is not one piece of the file")
        return data

    @cached_property
    def skipped(self) -> list[Any]:
        """JSON objects about inputs that could not be packed."""
        import h5py

        with self._sound("its list of what is not in it"), h5py.File(self.path) as file:
            there = "skipped" in file
            lines = self._stored_in(file, "skipped")[()].tobytes().splitlines() if there else ()
            return [parse_meta(line, self.path) for line in lines]

    def read(
        self, group: Any, index: int, *, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Item `index` of a `Group`, or its frames [start, stop): float32 (C, T).

        Raises SepcliError for one that is damaged, or lies in a block that is.
        """
        if group.dtype == "flac":
            data = self.stored(group, index)
            return audio.decode(data, self.label(group, index), start=start, stop=stop)[0]
        frames, channels = int(group.lengths[index]), int(group.channels[index])
        stop = frames if stop is None else min(stop, frames)
        samples = np.empty(max(0, stop - start) * channels, STORED[group.dtype])
        offset = int(group.offsets[index]) + start * channels
        if samples.size == group.sizes[index]:
            self._read_into(samples, group, offset)
            self._check(samples, group, index)
        else:
            self._check_blocks(group, offset * samples.itemsize, samples.nbytes)
            self._read_into(samples, group, offset)
        signal = samples.reshape(-1, channels).T  # (T·C,) -> (C, T)
        scaled = signal.astype(np.float32, order="C", copy=False)
        if group.dtype == "int16":
            scaled *= np.float32(2**-15)
        return scaled

    def stored(self, group: Any, index: int) -> bytes:
        """The bytes of an item as they are kept; SepcliError if they are damaged."""
        data = np.empty(group.sizes[index], STORED[group.dtype])
        self._read_into(data, group, int(group.offsets[index]))
        self._check(data, group, index)
        return data.tobytes()

    def label(self, group: Any, index: int) -> str:
        """What messages call an item."""
        return f"{self.path}: {group.label(index)}"

    def verify(self) -> None:
        """Read everything; raises SepcliError naming the first item that is damaged."""
        for group in self.groups.values():
            for index in range(len(group.names)):
                self.stored(group, index)

    @cached_property
    def count(self) -> int:
        """How many recordings and samples there are; members of a sample count once."""
        return len(set().union(*(group.numbers.tolist() for group in self.groups.values())))

    def stats(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON object for every source and every audio member of samples."""
        for group in self.groups.values():
            if group.dtype == BYTES:
                continue
            yield {
                "kind": group.kind,
                "source": group.role,
                "items": len(group.names),
                "validation": int(group.validation.sum()),
                "speakers": len(set(group.speakers.tolist()) - {b""}),
                "seconds": int(group.lengths.sum()) / group.sample_rate,
                "sample_rate": group.sample_rate,
                "dtype": group.dtype,
                "bytes": group.bytes,
                "clipped": group.clipped,
            }

    def manifest(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON object for every item, group by group."""
        for group in self.groups.values():
            if group.dtype == BYTES:
                continue
            for index in range(len(group.names)):
                yield {
                    "kind": group.kind,
                    "source": group.role,
                    "name": os.fsdecode(group.names[index]),
                    "speaker": os.fsdecode(group.speakers[index]) or None,
                    "split": "validation" if group.validation[index] else "train",
                    "sample_rate": group.sample_rate,
                    "frames": int(group.lengths[index]),
                    "channels": int(group.channels[index]),
                }

    def _read_into(self, array, group, offset):
        """Fill `array` with the elements of pcm from `offset` on."""
        self._read_bytes(array, group.start + offset * array.itemsize)

    def _read_bytes(self, array, place):
        """Fill `array` with the bytes of the file from `place` on."""
        view = memoryview(array).cast("B") if array.size else memoryview(b"")
        with explained(self.path):
            while len(view):
                count = os.preadv(self._file.number, [view], place)
                if not count:
                    raise SepcliError(f"{self.path}: cut off while it was in use; {MAKE_AGAIN}")
                view, place = view[count:], place + count

    def _check_blocks(self, group, start, size):
        """Check the blocks in which bytes [start, start + size) of pcm lie, each once."""
        first, last = start // BLOCK, -(-(start + size) // BLOCK)
        met = self._met[group.name][first:last]
        for block in np.flatnonzero(~met) if not met.all() else ():
            begin = (first + int(block)) * BLOCK
            data = np.empty(min(BLOCK, group.bytes - begin), np.uint8)
            self._read_bytes(data, group.start + begin)
            if zlib.crc32(data.data) != group.blocks[first + block]:
                self._name_damaged(group, begin)
            met[block] = True

    def _name_damaged(self, group, begin):
        """Raise SepcliError for a damaged item in the block that begins at byte `begin` of pcm."""
        starts = group.offsets * itemsize(group.dtype)
        stops = starts + group.sizes * itemsize(group.dtype)
        for index in np.flatnonzero((stops > begin) & (starts < begin + BLOCK)):
            self.stored(group, int(index))
        raise SepcliError(f"{self.path}: {group.name}: damaged; {MAKE_AGAIN}")

    def _check(self, data, group, index):
        if zlib.crc32(data) != group.crc32[index]:
            raise SepcliError(f"{self.label(group, index)}: damaged; {MAKE_AGAIN}")


def _check_numbers(group, pcm):
    """Raise ValueError unless the columns of a group fit each other, and its pcm."""
    counts = {getattr(group, name).size for name in _COLUMNS if name != "blocks"}
    kinds = {n: "S" if n in ("names", "speakers") else "iu" for n in _COLUMNS}
    if len(counts) != 1 or any(getattr(group, n).dtype.kind not in kinds[n] for n in _COLUMNS):
        raise ValueError(f"the columns of {group.name} do not fit each other")
    if group.dtype not in STORED or pcm.dtype != STORED[group.dtype]:
        raise ValueError(f"{group.name} has a dtype that does not match its pcm")
    offsets, sizes = group.offsets, group.sizes
    inside = ((sizes >= 0) & (sizes <= pcm.size)).all()
    if not inside or (offsets != np.cumsum(sizes) - sizes).any() or sizes.sum() != pcm.size:
        raise ValueError(f"the items of {group.name} are not contiguous")
    if group.blocks.size != -(-group.bytes // BLOCK):
        raise ValueError(f"{group.name} lacks checksums")
    audio_rate = range(0 if group.dtype == BYTES else 1, HIGHEST_RATE + 1)
    if group.sample_rate not in audio_rate or (group.lengths < 0).any():
        raise ValueError(f"{group.name} has an impossible sample rate or length")
    if group.dtype == BYTES:
        return
    if not ((group.channels >= 1) & (group.channels <= MOST_CHANNELS)).all():
        raise ValueError(f"{group.name} has 0 or over {MOST_CHANNELS} channels")
    if group.dtype != "flac" and (group.lengths != sizes / group.channels).any():
        raise ValueError(f"{group.name} has items of other lengths than it says")


class _Descriptor:
    """A file open for reading, closed when nobody refers to it."""

    def __init__(self, path):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


def read_pack(path: str | Path) -> Iterator[Sample]:
    """Yield the samples in a pack; a recording is a sample with nothing but a mix."""
    pack = Pack(path)
    parts = [(g, i) for g in pack.groups.values() for i in range(len(g.names))]
    members = {}
    for group, index in parts:
        members.setdefault(int(group.numbers[index]), []).append((group, index))
    for number in sorted(members):
        yield _sample(pack, members[number])


def _sample(pack, parts):
    """The sample whose members are `parts`, pairs of a group and an index."""
    group, index = parts[0]
    name = os.fsdecode(group.names[index])
    if group.kind not in ("samples", "files"):
        extension, data = as_file(*_stored_layout(pack, group, index))
        return Sample(
            split_audio_name(group.label(index))[0], {}, {f"mix{extension}": data}, pack.path
        )
    meta, contents = {}, {}
    for group, index in parts:
        if group.name == JSON:
            meta = parse_meta(pack.stored(group, index), pack.label(group, index))
        elif group.dtype == BYTES:
            contents[group.role] = pack.stored(group, index)
        else:
            extension, data = as_file(*_stored_layout(pack, group, index))
            contents[group.role + extension] = data
            meta["sample_rate"] = group.sample_rate
    return Sample(name, meta, contents, pack.path)


def _stored_layout(pack, group, index):
    return pack.stored(group, index), group.dtype, group.sample_rate, int(group.channels[index])
