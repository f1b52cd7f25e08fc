"""What of a recording or a sample goes into a pack."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.cluster.objects import fetched, place
from sepcli.errors import SepcliError
from sepcli.files import explained
from sepcli.recordings.stored import checked
from sepcli.samples.packwriting import BYTES, JSON, encode, itemsize
from sepcli.samples.remote import staged
from sepcli.samples.sample import split_audio_name


@dataclass(frozen=True)
class Recording:
    """One recording to encode."""

    group: str
    path: str
    name: str
    speaker: str
    dtype: str
    sample_rate: int
    keep_channels: bool


def encode_input(task: Any) -> tuple[dict[str, Any], Any]:
    """(record, contents): JSON with one of "parts" for each of `contents`, or with "skipped".

    task: a `Recording`, or (sample, dtype, sample rate in Hz).
    """
    if isinstance(task, Recording):
        name, speaker, encoder = task.name, task.speaker, _encode_recording(task)
    else:
        name, speaker, encoder = task[0].key, "", _encode_sample(*task)
    try:
        parts, contents = zip(*encoder, strict=True)
    except SepcliError as error:
        return {"name": name, "skipped": str(error)}, []
    return {"name": name, "speaker": speaker, "parts": parts}, contents


def _encode_recording(task):
    """Yield the only (part, content) of a recording."""
    with fetched(place(checked(task.path))) as path:
        signal, _ = audio.read(path, sample_rate=task.sample_rate)
    if not task.keep_channels:
        signal = signal.mean(axis=0, keepdims=True)
    yield _encode_signal(signal, task.group, task.sample_rate, task.dtype)


def _encode_sample(sample, dtype, rate):
    """Yield (part, content) for the JSON of a sample and for all of its members."""
    with staged(sample) as local:
        yield from _encode_members(local, dtype, rate)


def _encode_members(sample, dtype, rate):
    yield _encode_bytes(sample.json(), JSON)
    stems = {split_audio_name(member)[0]: None for member in sample.ordered() if _is_audio(member)}
    for stem in stems:
        stem = stem or "mix"  # of a tar of plain audio files
        _check_name(sample, stem)
        signal = audio.resample(sample.audio(stem), sample.sample_rate, rate)
        yield _encode_signal(signal, f"samples/{stem}", rate, dtype)
    for member in sample.ordered():
        if not _is_audio(member):
            _check_name(sample, member)
            content = sample.members[member]
            content = content if isinstance(content, bytes) else _read_bytes(content)
            yield _encode_bytes(content, f"files/{member}")


def _is_audio(member):
    return bool(split_audio_name(member)[1])


def _check_name(sample, name):
    if name in (".", "..") or not name.isprintable():
        raise SepcliError(f"{sample.label(name)} cannot be a name in a pack; give it another")


def _read_bytes(path):
    with explained(path):
        return path.read_bytes()


def _encode_signal(signal, group, rate, dtype):
    content = encode(signal, rate, dtype)
    clipped = 0 if dtype == "float32" else int(np.count_nonzero(np.abs(signal) > 1))
    part = {"group": group, "dtype": dtype, "sample_rate": rate, "frames": signal.shape[1]}
    part |= {"channels": len(signal), "clipped": clipped, "crc32": zlib.crc32(content)}
    return part | {"size": len(content) // itemsize(dtype)}, content


def _encode_bytes(content, group):
    part = {"group": group, "dtype": BYTES, "sample_rate": 0, "frames": 0, "channels": 0}
    return part | {"clipped": 0, "crc32": zlib.crc32(content), "size": len(content)}, content
