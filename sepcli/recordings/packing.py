"""Make packs: find the inputs, encode them one by one, survive being killed at any point."""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.errors import SepcliError
from sepcli.files import explained
from sepcli.recordings.journal import Part, fingerprint
from sepcli.recordings.pools import find_audio
from sepcli.samples.packwriting import BYTES, JSON, Item, encode, itemsize, write_pack
from sepcli.samples.sample import split_audio_name, unreadable
from sepcli.samples.streams import read_samples
from sepcli.samples.workers import in_order


@dataclass(frozen=True)
class PackSpec:
    """How inputs are kept.

    dtype: int16, float32 or flac; None means int16, and float32 for room impulse responses, whose
        tails are quiet. sample_rate: Hz; None means that of a source's first recording.
    keep_channels: of speech and noise, whose mean is kept otherwise.
    speaker_regex: its first group (or all of its match) in a recording's path below its source is
        the speaker; None means the first folder of that path.
    val_fraction: how much of each source's sorted speakers (of its sorted names where there are
        none), from the end, is for validation.
    """

    dtype: str | None = None
    sample_rate: int | None = None
    keep_channels: bool = False
    speaker_regex: str | None = None
    val_fraction: float = 0.05


@dataclass(frozen=True)
class Source:
    """Recordings of one kind that belong together, in the order in which they are packed."""

    kind: str
    name: str
    paths: list[str]
    names: list[str]  # below the source, one for each path


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


def find_sources(kind: str, inputs: Sequence[str]) -> list[Any]:
    """The `Source` of every folder, glob, list or file in `inputs`, under distinct names."""
    sources = []
    for given in inputs:
        paths = find_audio(given)
        root = given if os.path.isdir(given) else os.path.commonpath(list(map(_folder, paths)))
        names = [os.path.relpath(path, root) for path in paths]
        base = os.path.basename(os.path.realpath(root)).encode(errors="replace").decode() or kind
        taken = {source.name for source in sources}
        free = (f"{base}-{n}" if n > 1 else base for n in range(1, len(inputs) + 1))
        sources.append(Source(kind, next(n for n in free if n not in taken), paths, names))
    return sources


def _folder(path):
    return os.path.dirname(os.path.abspath(path))


def speaker_of(name: str, regex: str | None) -> str:
    """Who speaks in the recording `name`, a path below its source; "" when that is unknown."""
    if regex is None:
        return name.partition(os.sep)[0] if os.sep in name else ""
    match = re.search(regex, name)
    return (match[1 if match.re.groups else 0] or "") if match else ""


def validation(ids: Sequence[str], fraction: float) -> set[str]:
    """The ids, out of a set, that are for validation: the last of them when they are sorted.

    One at least when there are two or more, and `fraction` is not 0; never all of them.
    """
    ordered = sorted(ids)
    count = max(1, round(len(ordered) * fraction)) if fraction else 0
    return set(ordered[len(ordered) - min(count, len(ordered) - 1) :])


class Packing:
    """One run of `sepcli pack`: what it finds, does, and leaves.

    sources: list of `Source`. samples: whatever `read_samples` takes, each. spec: `PackSpec`.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        samples: Sequence[str] = (),
        spec: Any = None,
        form: Any = None,
        **reading: Any,
    ) -> None:
        """form: `H5Form` (the default) or `TarForm`. reading: settings of `read_samples`."""
        self.sources, self.samples, self.spec = sources, list(samples), spec or PackSpec()
        self.form, self._reading = form or H5Form(), reading
        self.packed = self.skipped = self.clipped = 0  # inputs, inputs, and samples, in the end

    def run(
        self, output: Any, *, resume: bool = False, overwrite: bool | None = None, jobs: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Yield a record of every input as it is packed or skipped, and write the pack at last.

        A record has a "name", and "skipped", the reason, where the input is damaged. What a
        killed run did is not done, nor yielded, again when `resume` is set.
        """
        with Part(output, self._plan(), resume=resume, overwrite=overwrite) as part:
            kept = [record for record in part.records if "parts" in record]
            if not part.finished:
                for record, contents in in_order(_encode, self._tasks(part.records), jobs=jobs):
                    if contents:
                        self.form.keep(part, record, contents, len(kept))
                        kept.append(record)
                    part.commit(record)
                    yield record
                if not kept:
                    raise SepcliError(f"{output}: nothing to pack could be read, see above")
                self.form.assemble(part, kept, for_validation(kept, self.spec.val_fraction))
            self.packed, self.skipped = len(kept), len(part.records) - len(kept)
            self.clipped = sum(about["clipped"] for record in kept for about in record["parts"])
            part.publish(self.form.result)

    @property
    def count(self) -> int | None:
        """How many inputs there are, or None when only reading them tells."""
        return None if self.samples else sum(len(source.paths) for source in self.sources)

    def _plan(self):
        """What must be the same when an interrupted run goes on."""
        return {
            "spec": asdict(self.spec),
            "form": [type(self.form).__name__, vars(self.form)],
            "sources": [
                [s.kind, s.name, len(s.paths), fingerprint(map(_state, s.paths, s.names))]
                for s in self.sources
            ],
            "samples": list(map(str, self.samples)),
        }

    def _tasks(self, done):
        """What is left to encode after the records in `done`."""
        position = 0
        for source in self.sources:
            begun = max(0, len(done) - position)
            position += len(source.paths)
            if begun < len(source.paths):
                yield from islice(self._recordings(source), begun, None)
        yield from self._left_samples(done[position:])

    def _recordings(self, source):
        spec = self.spec
        dtype = spec.dtype or ("float32" if source.kind == "rir" else "int16")
        keep = spec.keep_channels or source.kind == "rir"
        rate = spec.sample_rate or _first_rate(source.paths)
        for path, name in zip(source.paths, source.names, strict=True):
            speaker = speaker_of(name, spec.speaker_regex) if source.kind == "speech" else ""
            group = f"{source.kind}/{source.name}"
            yield Recording(group, path, name, speaker, dtype, rate, keep)

    def _left_samples(self, done):
        """(sample, dtype, rate) for all samples behind those that `done` has."""
        dtype, rate = self.spec.dtype or "int16", self.spec.sample_rate or _rate_of(done)
        left = iter(done)
        for source in self.samples:
            for sample in self._read(source):
                if (record := next(left, None)) is None:
                    rate = rate or _rate_of_sample(sample)
                    yield sample, dtype, rate
                elif record["name"] != sample.key:
                    raise SepcliError(
                        f"{source}: sample {sample.key} comes where {record['name']} came before; "
                        "start again with --overwrite, or repeat the original command"
                    )

    def _read(self, source):
        """The samples of a source; one that is not there, or is none, is left out like a sample."""
        some = False
        try:
            for sample in read_samples(source, **self._reading):
                some = True
                yield sample
        except SepcliError as error:
            if some:  # a stream that was cut off is an error, never a shorter result
                raise
            yield unreadable(str(source), error)


def _state(path, name):
    """A line that changes when the file does."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{name} {error.strerror}"
    return f"{name} {status.st_size} {status.st_mtime_ns}"


def _first_rate(paths):
    """The rate of the first recording that can be opened; any if there is none, as all fail."""
    for path in paths:
        try:
            with audio.open_blocks(path) as reader:
                return reader.sample_rate
        except SepcliError:
            pass
    return 16000


def _rate_of(records):
    """The rate at which audio was kept so far, or None."""
    parts = (part for record in records for part in record.get("parts", ()))
    return next((part["sample_rate"] for part in parts if part["sample_rate"]), None)


def _rate_of_sample(sample):
    """The rate of a sample's audio, or None: it has none, or nobody can read it."""
    try:
        return sample.sample_rate
    except SepcliError:
        return None


def _encode(task):
    """(record, contents): JSON with one of "parts" for each of `contents`, or with "skipped"."""
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
    signal, _ = audio.read(task.path, sample_rate=task.sample_rate)
    if not task.keep_channels:
        signal = signal.mean(axis=0, keepdims=True)
    yield _encode_signal(signal, task.group, task.sample_rate, task.dtype)


def _encode_sample(sample, dtype, rate):
    """Yield (part, content) for the JSON of a sample and for all of its members."""
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


class H5Form:
    """How a `Packing` makes an HDF5 file: sound is gathered by group, then put together."""

    result = "pack.h5"

    def keep(self, part: Any, record: dict[str, Any], contents: Any, _number: int) -> None:
        """Append what was encoded to the bytes of its groups."""
        for about, content in zip(record["parts"], contents, strict=True):
            part.append(_file_of(about["group"]), content)

    def assemble(self, part: Any, kept: Any, for_validation: Any) -> None:
        """Write the pack from the records of all items and the numbers that are for validation."""
        groups = {}  # name -> list of (number, record, part)
        for number, record in enumerate(kept):
            for about in record["parts"]:
                groups.setdefault(about["group"], []).append((number, record, about))
        packed = {
            name: (
                _attributes(name, [about for _, _, about in members]),
                [_item(n, entry, about, n in for_validation) for n, entry, about in members],
                _contents(part.folder / _file_of(name), members),
            )
            for name, members in sorted(groups.items())
        }
        skipped = [record for record in part.records if "skipped" in record]
        write_pack(part.folder / self.result, packed, skipped)


def for_validation(kept: Any, fraction: float) -> set[Any]:
    """The numbers, among the records `kept`, of what is for validation: a share of each source."""
    ids = {}  # source -> {id: numbers}
    for number, record in enumerate(kept):
        of_source = ids.setdefault(record["parts"][0]["group"], {})
        of_source.setdefault(record["speaker"] or record["name"], []).append(number)
    return {
        number
        for of_source in ids.values()
        for chosen in validation(of_source, fraction)
        for number in of_source[chosen]
    }


def _file_of(group):
    """A file name for the bytes of a group."""
    return f"{fingerprint([group])}.raw"


def _attributes(name, parts):
    return {
        "source": name.partition("/")[2],
        "sample_rate": parts[0]["sample_rate"],
        "dtype": parts[0]["dtype"],
        "clipped": sum(part["clipped"] for part in parts),
    }


def _item(number, record, about, validation):
    return Item(
        record["name"],
        record["speaker"],
        about["size"],
        about["frames"],
        about["channels"],
        number,
        about["crc32"],
        validation,
    )


def _contents(path, members):
    with path.open("rb") as file:
        for _, _, about in members:
            yield file.read(about["size"] * itemsize(about["dtype"]))
