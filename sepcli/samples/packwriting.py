"""Write packs: HDF5 files of recordings or samples, whole or not at all; see `samples/pack.py`."""

import io
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.containers import wav
from sepcli.errors import SepcliError
from sepcli.files import explained
from sepcli.samples.seal import VERSION, write_seal
from sepcli.signals import pcm

FORMAT = "sepcli pack"
BLOCK = 1 << 16  # bytes of pcm that have a checksum of their own
DTYPES = ("int16", "float32", "flac")
JSON = "files/json"  # the group of the samples' JSON
BYTES = "bytes"  # the dtype of members that are no audio
STORED = {"int16": "<i2", "float32": "<f4", "flac": "u1", BYTES: "u1"}
_ENCODINGS = {"int16": "s16le", "float32": "f32le"}


@dataclass(frozen=True)
class Item:
    """What is stored of one recording, beside its bytes."""

    name: str
    speaker: str
    size: int  # elements of pcm
    frames: int
    channels: int
    number: int
    crc32: int
    validation: bool = False


def encode(signal: np.ndarray, sample_rate: int, dtype: Any) -> bytes:
    """The bytes that a pack keeps of float (C, T): int16 is rounded and clamped."""
    if dtype != "flac":
        return pcm.pack(signal, _ENCODINGS[dtype])
    stream = io.BytesIO()
    with audio.Writer(stream, sample_rate, len(signal), format="flac", subtype="PCM_16") as writer:
        writer.write(signal)
    return stream.getvalue()


def as_file(data: bytes, dtype: Any, sample_rate: int, channels: int) -> tuple[str, bytes]:
    """(extension, bytes) of a sound file with the stored bytes `data`: ".wav" or ".flac"."""
    if dtype == "flac":
        return ".flac", data
    return ".wav", wav.header_bytes(_ENCODINGS[dtype], sample_rate, channels, len(data)) + data


def itemsize(dtype: Any) -> int:
    """Bytes of an element of pcm."""
    return np.dtype(STORED[dtype]).itemsize


def write_pack(path: str | Path, groups: dict[str, Any], skipped: Any = ()) -> None:
    """Write a pack to `path`, which nobody reads meanwhile.

    groups: {name: (attributes, list of Item, iterable of the items' bytes in order)}; the
        attributes are "sample_rate", "source", "dtype" and "clipped".
    skipped: JSON objects about what is not in it.
    Raises SepcliError where an item's bytes are not those of its crc32.
    """
    import h5py

    block = 512
    while block < 256 + 64 * len(groups):
        block *= 2
    with explained(path):
        with h5py.File(path, "w", userblock_size=block) as file:
            file.attrs.update(format=FORMAT, version=VERSION)
            if skipped:
                lines = "".join(json.dumps(record) + "\n" for record in skipped)
                file.create_dataset("skipped", data=np.frombuffer(lines.encode(), np.uint8))
            places = [_write_group(file, name, *group[:2]) for name, group in groups.items()]
        with open(path, "r+b") as file:
            for place, (name, (_, items, contents)) in zip(places, groups.items(), strict=True):
                _fill(file, *place, items, contents, f"{path}: {name}")
            write_seal(file, block, [pcm for pcm, _ in places])


def _write_group(file, name, attributes, items):
    """Create a group without the contents of pcm and blocks; returns (offset, bytes) of both."""

    group = file.create_group(name)
    group.attrs.update(attributes)
    sizes = np.array([item.size for item in items], np.int64)
    columns = {
        "offsets": np.cumsum(sizes) - sizes,
        "sizes": sizes,
        "lengths": np.array([item.frames for item in items], np.int64),
        "channels": np.array([item.channels for item in items], np.int32),
        "numbers": np.array([item.number for item in items], np.int64),
        "crc32": np.array([item.crc32 for item in items], np.uint32),
        "validation": np.array([item.validation for item in items], np.uint8),
        "names": np.array([os.fsencode(item.name) for item in items], "S"),
        "speakers": np.array([os.fsencode(item.speaker) for item in items], "S"),
    }
    for column, values in columns.items():
        group.create_dataset(column, data=values)
    stored = np.dtype(STORED[attributes["dtype"]])
    size = int(sizes.sum()) * stored.itemsize
    return _room(group, "pcm", stored, size), _room(group, "blocks", "<u4", -(-size // BLOCK) * 4)


def _room(group, name, dtype, size):
    """Create a dataset of `size` bytes in one piece, filled afterwards; (offset, bytes)."""
    import h5py

    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    dtype = np.dtype(dtype)
    space = h5py.h5s.create_simple((size // dtype.itemsize,))
    created = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), space, settings)
    return created.get_offset() or 0, size


def _fill(file, pcm, blocks, items, contents, label):
    """Write the bytes of all items, and the checksums of their blocks, where they belong."""
    sums = []

    def checked():
        for item, data in zip(items, contents, strict=True):
            if zlib.crc32(data) != item.crc32:
                raise SepcliError(
                    f"{label}/{item.name}: damaged on the disk; start again with --overwrite"
                )
            yield data

    file.seek(pcm[0])
    for block in _blocks(checked()):
        sums.append(zlib.crc32(block))
        file.write(block)
    file.seek(blocks[0])
    file.write(np.array(sums, "<u4").tobytes())


def _blocks(pieces):
    """Yield the bytes of `pieces`, end to end, in blocks of which the last may be shorter."""
    block = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            missing = BLOCK - len(block)
            block += view[:missing]
            view = view[missing:]
            if len(block) == BLOCK:
                yield block
                block = bytearray()
    if block:
        yield block
