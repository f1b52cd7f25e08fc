"""Make packs: find the inputs, encode them one by one, survive being killed at any point."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sepcli import audio
from sepcli.cluster import objects
from sepcli.cluster.shard import WHOLE
from sepcli.cluster.spread import ALONE, Spread
from sepcli.errors import SepcliError
from sepcli.recordings.encoding import Recording, encode_input
from sepcli.recordings.journal import Part, fingerprint
from sepcli.recordings.pools import find_audio
from sepcli.recordings.stored import BadLine
from sepcli.samples.packwriting import JSON, Item, itemsize, write_pack
from sepcli.samples.remote import staged
from sepcli.samples.sample import split_audio_name, unreadable
from sepcli.samples.streams import read_samples, to_the_end


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


def find_sources(kind: str, inputs: Sequence[str]) -> list[Any]:
    """The `Source` of every folder, glob, list or file in `inputs`, under distinct names."""
    sources = []
    for given in inputs:
        if objects.is_url(given):
            root, paths, names = _below_url(given)
        else:
            root, paths, names = _on_disk(given)
        base = root.encode(errors="replace").decode() or kind
        taken = {source.name for source in sources}
        free = (f"{base}-{n}" if n > 1 else base for n in range(1, len(inputs) + 1))
        sources.append(Source(kind, next(n for n in free if n not in taken), paths, names))
    return sources


def _on_disk(given):
    """(name of the folder, paths, names below it) of recordings in files."""
    paths = find_audio(given)
    good = [path for path in paths if not isinstance(path, BadLine)] or [given]
    root = given if os.path.isdir(given) else os.path.commonpath(list(map(_folder, good)))
    names = [
        os.path.basename(p) if isinstance(p, BadLine) else os.path.relpath(p, root) for p in paths
    ]
    return os.path.basename(os.path.realpath(root)), paths, names


def _below(path, root):
    """The name of a path below its source; of a line that is no path, where it is."""
    return os.path.basename(path) if isinstance(path, BadLine) else os.path.relpath(path, root)


def _below_url(given):
    """The same of recordings in a store."""
    paths = [str(url) for url in objects.find(given) if split_audio_name(url.name)[1]]
    if not paths:
        raise SepcliError(f"{given}: no audio files in it; name another place")
    root = given.rstrip("/")
    if any(not path.startswith(f"{root}/") for path in paths):  # a glob, or one object
        root = os.path.commonpath(list(map(os.path.dirname, paths))).replace(":/", "://", 1)
    return os.path.basename(root), paths, [path[len(root) + 1 :] for path in paths]


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
        self._ids: dict[str, set[str]] = {}  # of all shares, by source
        self.packed = self.skipped = self.clipped = 0  # inputs, inputs, and samples, in the end

    def run(
        self,
        output: Any,
        *,
        resume: bool = False,
        overwrite: bool | None = None,
        spread: Spread = ALONE,
    ) -> Iterator[dict[str, Any]]:
        """Yield a record of every input as it is packed or skipped, and write the pack at last.

        A record has a "name", and "skipped", the reason, where the input is damaged. What a
        killed run did is not done, nor yielded, again when `resume` is set. The packs of all shares
        have the items of an undivided run, for training and validation as there, unless some
        input cannot be read: of a share, those count for the fraction that is for validation.
        """
        self._spread = spread
        with Part(output, self._plan(), resume=resume, overwrite=overwrite) as part:
            kept = [record for record in part.records if "parts" in record]
            if not part.finished:
                for record, contents in spread.each(encode_input, self._tasks(part.records)):
                    if contents:
                        if spread.shard != WHOLE:
                            record["number"] = spread.shard.number(len(part.records))
                        self.form.keep(part, record, contents, len(kept))
                        kept.append(record)
                    part.commit(record)
                    yield record
                if not kept:
                    raise SepcliError(f"{output}: {self._nothing(part)}")
                chosen = for_validation(kept, self.spec.val_fraction, self._ids)
                self.form.assemble(part, kept, chosen)
            self.packed, self.skipped = len(kept), len(part.records) - len(kept)
            self.clipped = sum(about["clipped"] for record in kept for about in record["parts"])
            part.publish(self.form.result)

    def _nothing(self, part):
        shard = self._spread.shard
        if not part.records and shard != WHOLE:
            return f"nothing is left for shard {shard.index}/{shard.count}; name fewer shards"
        return "nothing to pack could be read, see above"

    def count(self, spread: Spread = ALONE) -> int | None:
        """How many inputs there are, or None when only reading them tells."""
        total = sum(len(source.paths) for source in self.sources)
        return None if self.samples else spread.shard.size(total)

    def _plan(self):
        """What must be the same when an interrupted run goes on."""
        shard = self._spread.shard
        return ({} if shard == WHOLE else {"shard": [shard.index, shard.count]}) | {
            "spec": asdict(self.spec),
            "form": [type(self.form).__name__, vars(self.form)],
            "sources": [
                [s.kind, s.name, len(s.paths), fingerprint(map(_state, s.paths, s.names))]
                for s in self.sources
            ],
            "samples": list(map(str, self.samples)),
        }

    def _tasks(self, done):
        """What is left to encode, of this share, after the records in `done`."""
        shard, place, number = self._spread.shard, 0, 0
        for source in self.sources:
            own = [n for n in range(len(source.paths)) if shard.has(number + n)]
            begun = max(0, len(done) - place)
            place, number = place + len(own), number + len(source.paths)
            self._note_speakers(source)
            if begun < len(own):
                yield from self._recordings(source, own[begun:])
        yield from self._left_samples(done[place:], number)

    def _note_speakers(self, source):
        """Keep, of a run that is one share of several, who speaks in all of a source."""
        if self._spread.shard != WHOLE:
            ids = (self._speaker(source, name) or name for name in source.names)
            self._ids[_group(source)] = set(ids)

    def _speaker(self, source, name):
        return speaker_of(name, self.spec.speaker_regex) if source.kind == "speech" else ""

    def _recordings(self, source, numbers):
        spec = self.spec
        dtype = spec.dtype or ("float32" if source.kind == "rir" else "int16")
        keep = spec.keep_channels or source.kind == "rir"
        rate = spec.sample_rate or _first_rate(source.paths)
        for number in numbers:
            path, name = source.paths[number], source.names[number]
            speaker = self._speaker(source, name)
            yield Recording(_group(source), path, name, speaker, dtype, rate, keep)

    def _left_samples(self, done, number):
        """(sample, dtype, rate) for all samples of this share behind those that `done` has.

        number: how many items come before the samples.
        """
        dtype, rate = self.spec.dtype or "int16", self.spec.sample_rate or _rate_of(done)
        left, shard = iter(done), self._spread.shard
        for place, (source, sample) in enumerate(self._all_samples()):
            rate = rate or _rate_of_sample(sample)
            if shard != WHOLE:
                self._ids.setdefault(JSON, set()).add(sample.key)
            if not shard.has(number + place):
                continue
            if (record := next(left, None)) is None:
                yield sample, dtype, rate
            elif record["name"] != sample.key:
                raise SepcliError(
                    f"{source}: sample {sample.key} is where {record['name']} was before; "
                    "start again with --overwrite, or repeat the original command"
                )

    def _all_samples(self):
        return ((source, sample) for source in self.samples for sample in self._read(source))

    def _read(self, source):
        """The samples of a source; what is missing of a file is left out like a sample.

        Standard input that ends too early ends the run, which goes on when it comes again.
        """
        some = False
        try:
            samples = read_samples(source, **self._reading)
            for sample in samples if source == "-" else to_the_end(samples, source):
                some = True
                yield sample
        except SepcliError as error:
            if some:
                raise SepcliError(f"{error}; or send all again, with --resume") from None
            yield unreadable(str(source), error)


def _group(source):
    return f"{source.kind}/{source.name}"


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
            with objects.fetched(objects.place(path)) as local, audio.open_blocks(local) as reader:
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
        with staged(sample) as local:
            return local.sample_rate
    except SepcliError:
        return None


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


def for_validation(
    kept: Any, fraction: float, all_ids: Mapping[str, set[str]] | None = None
) -> set[Any]:
    """The numbers, among the records `kept`, of what is for validation: a share of each source.

    all_ids: of sources of which `kept` has only some, the speakers, or names, of all.
    """
    known = all_ids or {}
    ids = {}  # source -> {id: numbers}
    for number, record in enumerate(kept):
        of_source = ids.setdefault(record["parts"][0]["group"], {})
        of_source.setdefault(record["speaker"] or record["name"], []).append(number)
    return {
        number
        for source, of_source in ids.items()
        for chosen in validation(list(known.get(source) or of_source), fraction)
        for number in of_source.get(chosen, ())
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
