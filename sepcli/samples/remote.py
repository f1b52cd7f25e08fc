"""Samples whose members are objects in a store: listed by name, fetched when their turn comes."""

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sepcli.audio import split_track
from sepcli.cluster import objects
from sepcli.cluster.objects import Remote
from sepcli.errors import SepcliError
from sepcli.samples.folders import META, FolderWriter, read_folder, sample_from_file
from sepcli.samples.sample import Sample, split_audio_name
from sepcli.samples.stems import STEM_FILE


def read_objects(url: str, read: Any) -> Iterator[Sample]:
    """Yield the samples in an object, or in those below a URL, which is like a folder.

    read: reads a local file, for tars, lists and packs, which are fetched whole; what a list names
    is seen from where the list is.
    """
    if not objects.is_object(url):
        yield from _read_below(url)
        return
    place = Remote(url)
    if split_audio_name(place.name)[1]:
        song = place.name.lower().endswith(STEM_FILE)
        key = place.name[: -len(STEM_FILE)] if song else place.stem
        yield sample_from_file(key, place)
        return
    with objects.fetched(place) as path:
        above = Remote(posixpath.dirname(url))
        for sample in read(path):
            members = {
                name: _seen_from(path.parent, above, content)
                for name, content in sample.members.items()
            }
            yield Sample(sample.key, sample.meta, members, sample.origin, sample.fault)


def _seen_from(folder, above, content):
    """A member of a sample that was read in `folder`, which stands for `above`."""
    if isinstance(content, Path) and content.is_relative_to(folder):
        return objects.below(above, content.relative_to(folder).as_posix())
    return content


def _read_below(url):
    """The samples below a URL: of empty files with the names of its objects, and their JSON."""
    found = objects.find(url)
    if not found:
        raise SepcliError(f"{url}: no such object, and none below it; check the address")
    base = url.rstrip("/")
    if "*" in base:  # of a glob, every object by itself
        for each in found:
            yield from read_objects(each, _not_nested)
        return
    meta = objects.contents([each for each in found if each.name == META])
    with tempfile.TemporaryDirectory(prefix="sepcli-") as scratch:
        mirror = Path(scratch, Remote(base).name or "objects")
        for each in found:
            path = mirror / each[len(base) + 1 :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(meta.get(each, b""))
        try:
            samples = list(read_folder(mirror))
        except SepcliError as error:
            raise SepcliError(str(error).replace(os.fspath(mirror), base)) from None
    for sample in samples:
        for name, content in sample.members.items():
            sample.members[name] = _seen_from(mirror, Remote(base), content)
        yield sample


def _not_nested(path):
    raise SepcliError(f"{path}: name a tar, list or pack by itself, not by a glob")


@contextmanager
def staged(sample: Sample) -> Iterator[Sample]:
    """The sample with its objects in files, for as long as the block takes."""
    remote = {n: c for n, c in sample.members.items() if isinstance(c, Remote)}
    if not remote:
        yield sample
        return
    with ExitStack() as stack:
        fetched, members = {}, {}
        for name, content in remote.items():
            url, track = split_track(content)
            if url not in fetched:
                fetched[url] = stack.enter_context(objects.fetched(Remote(url)))
            members[name] = Path(f"{fetched[url]}#{track}") if track is not None else fetched[url]
        yield Sample(sample.key, sample.meta, sample.members | members, sample.origin, sample.fault)


class ObjectWriter:
    """A `FolderWriter` below a URL; a sample is whole when its sample.json is there."""

    def __init__(self, url: str, *, overwrite: bool | None = None) -> None:
        """overwrite: True replaces samples that exist, False keeps them, None is an error."""
        self.folder, self.overwrite, self.count = url, overwrite, 0
        self._there = None
        self._scratch = tempfile.TemporaryDirectory(prefix="sepcli-")
        self._local = FolderWriter(self._scratch.name, overwrite=True)

    def skips(self, key: str) -> bool:
        """Whether `write` would leave out the sample `key`; see `FolderWriter.skips`."""
        self._local.skips(key)
        place = objects.below(Remote(self.folder), f"{key}/{META}")
        if self.overwrite or place not in self._existing():
            return False
        if self.overwrite is None:
            raise SepcliError(f"{place}: exists; use --overwrite or --skip-existing")
        return True

    def _existing(self):
        """The objects that were there at the start, listed once: that is quick for a million."""
        if self._there is None:
            self._there = set(objects.find(self.folder))
        return self._there

    def claim(self, key: str) -> None:
        """Note that the sample `key` is written by somebody else."""
        self._local.claim(key)

    def write(self, sample: Sample) -> bool:
        """Write one sample, unless it is skipped; returns whether it was written."""
        if self.skips(sample.key):
            return False
        with staged(sample) as local:
            self._local.write(local)
        path = Path(self._scratch.name, sample.key)
        objects.put_all(path, _folder(self.folder, sample.key), last=META)
        for each in path.iterdir():
            each.unlink()
        self.count += 1
        return True

    def close(self) -> None:
        """Remove what was local."""
        self._scratch.cleanup()


def _folder(url, key):
    place = objects.below(Remote(url), key)
    return place if isinstance(place, Remote) else Remote(place)


def write_sample(folder: str, sample: Sample) -> None:
    """Write one sample below a folder or URL, in place of any that is there."""
    if not objects.is_url(folder):
        FolderWriter(folder, overwrite=True).write(sample)
        return
    writer = ObjectWriter(folder, overwrite=True)
    try:
        writer.write(sample)
    finally:
        writer.close()
