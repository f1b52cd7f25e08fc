"""Samples as folders of audio files: KEY/mix.wav, MUSDB's tracks, and plain audio files."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sepcli.audio import AUDIO_EXTENSIONS, Listing, split_track
from sepcli.cluster.objects import Remote
from sepcli.errors import SepcliError
from sepcli.files import entries, exists, explained, make_folder
from sepcli.samples.sample import Sample, parse_meta, split_audio_name, unreadable
from sepcli.samples.stems import MIXTURE, STEM_FILE, STEM_TRACKS, STEMS, stem_order
from sepcli.signals.checks import is_name
from sepcli.temporary import sweep, temporary

META = "sample.json"
_SIGNAL = re.compile(r"(ref|est)\..+|enroll", re.DOTALL)
_SPLITS = ("train", "test")  # the level above MUSDB's tracks, no part of their names


def read_folder(folder: str | Path) -> Iterator[Sample]:
    """Yield the samples in `folder` and below, sorted by key, without opening their audio.

    A folder with mix.* (or only ref.*, enroll.*, est.*, or a sample.json) is one sample with all
    its files, one with mixture.* (or only MUSDB's stems) is a track whose other audio files are
    its references, and so is a file *.stem.mp4 of MUSDB18; any other audio file is a sample with
    only a `mix`. Keys are paths below
    `folder` without extension. Files that look like audio but cannot be read are
    named on standard error. Raises SepcliError when there is nothing.
    """
    folder, listing = Path(folder), Listing(folder)
    makers = dict(_walk(folder, listing))
    listing.tell()
    if not makers:
        raise SepcliError(
            f"{folder}: no samples; expected KEY/mix.wav, TRACK/mixture.wav or audio files "
            f"({' '.join(sorted(AUDIO_EXTENSIONS))})"
        )
    keys = _keys(folder, makers)
    for path in sorted(makers, key=lambda path: os.fsencode(keys[path])):
        yield makers[path](keys[path], path)


def _walk(folder, listing, above=()):
    """Yield (path, function that makes its sample) for all samples in `folder` and below."""
    found, above = entries(folder, above)
    files = [e.name for e in found if not e.is_dir() and not listing.misses(e.path)]
    stems = {stem for stem, extension in map(split_audio_name, files) if extension}
    if META in files or "mix" in stems or (stems and all(map(_SIGNAL.fullmatch, stems))):
        yield Path(folder), sample_from_folder
    elif MIXTURE in stems or (stems and stems <= set(STEMS)):
        yield Path(folder), sample_from_track
    else:
        for name in files:
            if listing.takes(os.path.join(folder, name)):
                is_song = name.lower().endswith(STEM_FILE)
                yield Path(folder, name), sample_from_stems if is_song else sample_from_file
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, listing, above)


def _keys(folder, makers):
    """Path -> key: the path below `folder`, shortened where the keys stay distinct."""
    long = {
        path: folder.resolve().name if path == folder else path.relative_to(folder).as_posix()
        for path in makers
    }
    short = {path: _short_key(key, makers[path]) for path, key in long.items()}
    taken = Counter(short.values())
    mixed = {path: short[path] if taken[short[path]] == 1 else long[path] for path in makers}
    return mixed if len(set(mixed.values())) == len(makers) else long


def _short_key(key, maker):
    if maker is sample_from_file:
        return split_audio_name(key)[0]
    if maker is sample_from_stems:
        key = key[: -len(STEM_FILE)]
    split, _, track = key.partition("/")
    return track if split in _SPLITS and track else key


def sample_from_folder(key: str, folder: Path) -> Sample:
    """The sample in KEY/mix.wav, KEY/ref.speech.wav …, with the JSON of KEY/sample.json."""
    meta = {}
    members: dict[str, Any] = {path.name: path for path in folder.iterdir() if _is_member(path)}
    if (path := folder / META).is_file():
        try:
            with explained(path):
                meta = parse_meta(path.read_bytes(), str(path))
        except SepcliError as error:
            return unreadable(key, error)
        for name in meta.get("fields") or ():
            if is_name(name):  # one that is gone fails when it is read
                members.setdefault(name, folder / name)
    return Sample(key, meta, members)


def _is_member(path):
    return path.is_file() and path.name != META and not path.name.startswith(".")


def sample_from_track(key: str, folder: Path) -> Sample:
    """The sample in a track of MUSDB: its mixture, and its stems as references."""
    files = {}
    for path in sorted(folder.iterdir()):
        stem, extension = split_audio_name(path.name)
        if extension and _is_member(path):
            files.setdefault(stem, path)
    mixture = files.pop(MIXTURE, None)
    targets = sorted(files, key=stem_order)
    members = {f"mix{mixture.suffix}": mixture} if mixture else {}
    members |= {f"ref.{stem}{files[stem].suffix}": files[stem] for stem in targets}
    return Sample(key, {"targets": targets}, members)


def sample_from_stems(key: str, path: Path) -> Sample:
    """The sample in a file of MUSDB18, whose tracks are the mixture and its stems."""
    tracks = {stem: Path(f"{path}#{number}") for number, stem in enumerate(STEM_TRACKS)}
    members: dict[str, bytes | Path] = {"mix.wav": tracks.pop(MIXTURE)}
    members |= {f"ref.{stem}.wav": tracks[stem] for stem in sorted(tracks, key=stem_order)}
    return Sample(key, {"targets": sorted(tracks, key=stem_order)}, members)


def holds_mixture(content: Any) -> bool:
    """Whether a member of a sample is the mixture of a song of MUSDB, in a file of its own name."""
    return isinstance(content, Path | Remote) and (
        content.stem == MIXTURE or split_track(content)[1] == STEM_TRACKS.index(MIXTURE)
    )


def sample_from_file(key: str, path: Path | Remote) -> Sample:
    """The sample with nothing but a mix, from one audio file."""
    extension = split_audio_name(path.name)[1] or ".wav"
    return Sample(key, members={f"mix{extension}": path})


class FolderWriter:
    """Write each sample into a folder of its own, KEY/mix.wav …, complete or not at all."""

    def __init__(self, folder: str | Path, *, overwrite: bool | None = None) -> None:
        """overwrite: True replaces samples that exist, False keeps them, None is an error."""
        self.folder, self.overwrite = Path(folder), overwrite
        self.count = 0
        self._keys = set()
        make_folder(self.folder)

    def skips(self, key: str) -> bool:
        """Whether `write` would leave out the sample `key` because it is there already.

        Raises SepcliError for a key that is no path below the folder, that came before, or whose
        folder exists when neither replacing nor keeping was asked for.
        """
        if not all(is_name(part) for part in key.split("/")):
            raise SepcliError(f"{key!r} cannot be the name of a folder; write to a .tar")
        if key in self._keys:
            raise SepcliError(
                f"{self.folder / key}: two samples are called {key!r}; "
                "write each stream to a folder of its own"
            )
        target = self.folder / key
        if self.overwrite is False:
            return os.path.exists(target / META)
        if self.overwrite is None and os.path.exists(target):
            with explained(target):
                if any(path.is_file() for path in target.iterdir()):
                    raise exists(target)
        return False

    def claim(self, key: str) -> None:
        """Note that the sample `key` is written by somebody else."""
        self._keys.add(key)

    def write(self, sample: Sample) -> bool:
        """Write one sample, unless it is skipped; returns whether it was written."""
        if self.skips(sample.key):
            return False
        target = self.folder / sample.key
        part = temporary(target)
        with explained(target):
            try:
                sweep(part.parent)
                part.mkdir(parents=True)
                for name in sample.ordered():
                    if not is_name(name) or name == META:
                        raise SepcliError(
                            f"{sample.label(name)} cannot be the name of a file; write to a .tar"
                        )
                    _write_member(part / name, sample.content(name))
                (part / META).write_bytes(sample.json())
                _commit(part, target, sample.ordered())
            finally:
                shutil.rmtree(part, ignore_errors=True)
        self._keys.add(sample.key)
        self.count += 1
        return True


def _write_member(path, content):
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def _commit(part, target, names):
    """Move the sample in `part` to `target`: at once if that is new, else file by file."""
    if not target.exists():
        return part.rename(target)
    meta = target / META
    if meta.exists():
        old = parse_meta(meta.read_bytes(), str(meta)).get("fields") or ()
        meta.unlink()  # incomplete from here until the new one is in place
        for name in filter(is_name, set(old) - set(names)):
            (target / name).unlink(missing_ok=True)
    for name in (*names, META):
        (part / name).replace(target / name)
