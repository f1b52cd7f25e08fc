"""Recordings wherever they are: files, items of packs, members of tars; read alike."""

import contextlib
import glob
import hashlib
import io
import os
import re
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.cluster.objects import Remote, fetch, is_url
from sepcli.errors import SepcliError
from sepcli.files import explained, lines_of, read_text
from sepcli.samples.pack import Pack
from sepcli.samples.packwriting import BYTES
from sepcli.samples.sample import parse_meta, split_audio_name
from sepcli.samples.shards import MANIFEST
from sepcli.samples.tarblocks import CutError, read_members
from sepcli.samples.tarstream import prefix_of, split_member_name


class BadLine(str):
    """A line in a list of recordings that makes no sense: where it is. All uses of it fail.

    reason: why, a whole sentence, which begins with where it is.
    """

    reason: str

    def __new__(cls, where: str, reason: str) -> "BadLine":
        line = super().__new__(cls, where)
        line.reason = reason
        return line

    def __getnewargs__(self):
        return str(self), self.reason


def checked(recording: Any) -> Any:
    """The recording; SepcliError where it is a line that makes no sense."""
    if isinstance(recording, BadLine):
        raise SepcliError(recording.reason)
    return recording


class Fetched:
    """Objects of stores as files of this process, the last ones that were asked for.

    most_bytes: of all of them together; one alone may have more.
    """

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        self.most_bytes, self._sizes = most_bytes, {}
        self._folder, self._owner = "", os.getpid()

    def __call__(self, url: Remote) -> Path:
        """The file of an object; SepcliError where it cannot be fetched."""
        if not self._folder or self._owner != os.getpid():  # or a fork of who made it
            self._folder, self._owner, self._sizes = _scratch(), os.getpid(), {}
            weakref.finalize(self, _remove, self._folder, self._owner)
        path = Path(self._folder, _file_of(url))
        size = self._sizes.pop(url, None)
        if size is None:
            fetch(url, path)
            size = path.stat().st_size
            while self._sizes and sum(self._sizes.values()) + size > self.most_bytes:
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                Path(self._folder, _file_of(oldest)).unlink()
        self._sizes[url] = size
        return path


def _scratch():
    import tempfile  # not when a command starts

    return tempfile.mkdtemp(prefix="sepcli-")


def _remove(folder, owner):
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _file_of(url):
    """A name that no other URL has, with the ending of this one."""
    return hashlib.sha256(url.encode()).hexdigest()[:32] + PurePosixPath(url).suffix


_fetched = Fetched()


@contextlib.contextmanager
def on_disk(recording: Any) -> Iterator[Any]:
    """A path, or that of a fetched object, which errors in the block still call by its URL."""
    if not isinstance(recording, Remote):
        yield checked(recording)
        return
    path = _fetched(recording)
    try:
        yield path
    except SepcliError as error:
        raise type(error)(str(error).replace(os.fspath(path), recording)) from None


_SPLIT = re.compile(r"(.*?)(?::(train|validation|all))?", re.DOTALL)


def in_archive(source: str, what: str) -> "PackRecordings | list[Any] | None":
    """The recordings of kind `what` in a pack or a tar, a sequence; None for any other source.

    source: FILE.h5, or a folder of shards that sepcli pack wrote, for those that are not for
        validation, FILE.h5:validation or FILE.h5:all; FILE.tar, or a glob of those.
    what: "speech", "noise" or "rir"; in packs and tars of samples, their references of that name,
        or their mixes where there are no references. Anything else stands for all.
    Raises SepcliError for a file that is damaged, cut off, or has no such recordings.
    """
    matched = _SPLIT.fullmatch(source)
    assert matched is not None  # it matches everything
    path, split = matched.groups()
    if is_url(path) and path.endswith((".h5", ".tar")):
        path = os.fspath(_fetched(Remote(path)))
    if path.endswith(".h5"):
        return PackRecordings(path, what, split or "train")
    if path and os.path.isfile(os.path.join(path, MANIFEST)):
        return _shard_recordings(path, what, split or "train")
    tars = sorted(glob.glob(source)) if source.endswith(".tar") else []
    if os.path.isfile(source) and source.endswith(".tar"):
        tars = [source]
    return _tar_recordings(source, tars, what) if tars else None


def header(recording: Any) -> tuple[int, int]:
    """(frames, sample rate) of a recording, as `in_archive` holds them, or of a file."""
    if isinstance(recording, str | os.PathLike):
        with on_disk(recording) as path:
            about = audio.info(path)
        return about.frames, about.sample_rate
    return recording.header()


def state(recording: Any) -> tuple[int, int, int, int] | None:
    """What changes when another file takes the place of a recording that is one, else None."""
    if not isinstance(recording, str | os.PathLike):
        return None
    with contextlib.suppress(OSError):
        status = os.stat(recording)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Headers:
    """The headers of recordings, of which each is read once unless its file changes."""

    def __init__(self) -> None:
        self._known = {}  # recording -> its state, its header

    def __getitem__(self, recording):
        """(frames, sample rate); a pack has all of them at hand."""
        if isinstance(recording, PackRecording):
            return recording.header()
        now = state(recording)
        before, found = self._known.get(recording, (None, None))
        if found is None or now != before:
            found = header(recording)
            self._known[recording] = now, found
        return found


def read(
    recording: Any, *, start: int = 0, stop: int | None = None, sample_rate: int | None = None
) -> tuple[np.ndarray, int]:
    """What `audio.read` does for files: (float32 (C, T), sample rate)."""
    if isinstance(recording, str | os.PathLike):
        with on_disk(recording) as path:
            return audio.read(path, start=start, stop=stop, sample_rate=sample_rate)
    signal, rate = recording.read(start, stop)
    if sample_rate is None:
        return signal, rate
    return audio.resample(signal, rate, sample_rate), sample_rate


@dataclass(frozen=True)
class PackRecording:
    """An item of a pack."""

    pack: Pack
    group: str
    index: int

    def __str__(self):
        return self.pack.label(self._group, self.index)

    @property
    def _group(self):
        return self.pack.groups[self.group]

    @property
    def speaker(self) -> str:
        """Who speaks, or "" when that is unknown."""
        return os.fsdecode(self._group.speakers[self.index])

    def header(self) -> tuple[int, int]:
        """(frames, sample rate)."""
        return int(self._group.lengths[self.index]), self._group.sample_rate

    def read(self, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
        """Frames [start, stop), or all: (float32 (C, T), sample rate)."""
        signal = self.pack.read(self._group, self.index, start=start, stop=stop)
        return signal, self._group.sample_rate


class PackRecordings:
    """The recordings of one kind and split in a pack, a sequence of `PackRecording`.

    Small when it is sent to another process: the index is read anew there.
    """

    def __init__(self, path: str | Path, what: str, split: str) -> None:
        self.pack = Pack(path)
        self.groups = self._choose(what)
        self.split = split
        if not len(self):
            raise SepcliError(f"{path}: no {what} for {split}; use {path}:all for all recordings")

    def _choose(self, what):
        """Names of the groups to draw from."""
        groups = [group for group in self.pack.groups.values() if group.dtype != BYTES]
        by_kind = [group.name for group in groups if group.kind == what]
        by_role = [group.name for group in groups if group.name == f"samples/ref.{what}"]
        names = [group.name for group in groups]
        mixes = names if names == ["samples/mix"] else []
        chosen = by_kind or by_role or mixes or (names if what == "audio" else [])
        if not chosen:
            raise SepcliError(f"{self.pack.path}: no {what} in it, but {', '.join(names)}")
        return chosen

    @cached_property
    def _chosen(self):
        """Per group, the indices of its items that are in the split; and where they begin here."""
        groups = [self.pack.groups[name] for name in self.groups]
        if self.split == "all":
            indices = [np.arange(len(group.names)) for group in groups]
        else:
            wanted = self.split == "validation"
            indices = [np.flatnonzero(group.validation == wanted) for group in groups]
        return indices, np.cumsum([0, *map(len, indices)])

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_chosen"}

    def __len__(self):
        return int(self._chosen[1][-1])

    def __getitem__(self, number):
        indices, begins = self._chosen
        if not 0 <= number < len(self):
            raise IndexError(number)
        which = int(np.searchsorted(begins, number, side="right")) - 1
        index = int(indices[which][number - begins[which]])
        return PackRecording(self.pack, self.groups[which], index)


@dataclass(frozen=True)
class TarRecording:
    """A member of a tar."""

    path: str
    name: str
    offset: int
    size: int

    def __str__(self):
        return f"{self.path}: {self.name}"

    def header(self) -> tuple[int, int]:
        """(frames, sample rate)."""
        with audio.open_blocks(io.BytesIO(self._bytes()), name=str(self)) as reader:
            if reader.frames is not None:
                return reader.frames, reader.sample_rate
        signal, rate = self.read()
        return signal.shape[1], rate

    def read(self, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
        """Frames [start, stop), or all: (float32 (C, T), sample rate)."""
        return audio.decode(self._bytes(), str(self), start=start, stop=stop)

    def _bytes(self):
        with explained(self.path), open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def _prefix(name):
    """The prefix of a member's name, None for one that is part of no sample."""
    return (split_member_name(name) or (None, ""))[0]


def _shard_recordings(folder, what, split):
    """Those of the recordings in a folder of shards that its manifest says are of a split."""
    text = read_text(os.path.join(folder, MANIFEST))
    lines = [parse_meta(line, f"{folder}/{MANIFEST}") for line in lines_of(text) if line]
    wanted = {
        (line.get("shard"), prefix_of(str(line.get("key"))))
        for line in lines
        if split in ("all", line.get("split"))
    }
    tars = [os.path.join(folder, name) for name in sorted({str(line["shard"]) for line in lines})]
    every = _tar_recordings(folder, tars, what)
    found = [r for r in every if (os.path.basename(r.path), _prefix(r.name)) in wanted]
    if not found:
        raise SepcliError(f"{folder}: no {what} for {split}; use {folder}:all for all recordings")
    return found


def _tar_recordings(source, paths, what):
    """The recordings of one kind in tars of samples, a list of `TarRecording`."""
    found = {}  # signal -> its members
    for path in paths:
        for stem, recording in _signals(path):
            found.setdefault(stem, []).append(recording)
    chosen = found.get(f"ref.{what}") or (found.get("mix") if list(found) == ["mix"] else None)
    if not chosen:
        there = ", ".join(found) or "no sound at all"
        raise SepcliError(f"{source}: no ref.{what} in it, but {there}; name another source")
    return chosen


def _signals(path):
    """Yield (signal, `TarRecording`) for all members of a tar that are sound."""
    with explained(path), open(path, "rb") as file:
        try:
            for member, place in filter(None, read_members(file, path, index=True)):
                _, name = split_member_name(member) or ("", "")
                stem, extension = split_audio_name(name)
                if extension:
                    yield stem or "mix", TarRecording(path, member, *place)
        except CutError as error:
            raise SepcliError(f"{path}: cut off {error}; copy it again, or make it again") from None
