"""Samples as folders of audio files: KEY/mix.wav, MUSDB's tracks, and plain audio files."""

import os
import secrets
import shutil
from collections import Counter
from pathlib import Path

from sepcli.audio import AUDIO_EXTENSIONS
from sepcli.data.sample import ROLES, Sample, explained, parse_meta, split_audio_name
from sepcli.errors import SepcliError

META = "sample.json"
MUSDB_STEMS = ("vocals", "drums", "bass", "other", "accompaniment")
_SPLITS = ("train", "test")  # the level above MUSDB's tracks, no part of their names


def read_folder(folder):
    """Yield the samples in `folder` and below, sorted by key, without opening their audio.

    A folder with mix.* (or only ref.*, enroll.*, est.*, or a sample.json) is one sample with all
    its files, one with mixture.* (or only MUSDB's stems) is a track whose other audio files are
    its references; any other audio file is a sample with only a `mix`. Keys are paths below
    `folder` without extension. Raises SepcliError when there is nothing.
    """
    folder = Path(folder)
    found = {}
    for path, kind in _walk(folder):
        found[path] = kind
    keys = _unique_keys(folder, found)
    if not keys:
        raise SepcliError(
            f"{folder}: no samples; expected KEY/mix.wav, TRACK/mixture.wav or audio files "
            f"({' '.join(sorted(AUDIO_EXTENSIONS))})"
        )
    for key, path in sorted(keys.items(), key=lambda entry: os.fsencode(entry[0])):
        yield found[path](key, path)


def _walk(folder, above=()):
    """Yield (path, function that makes its sample) for all samples in `folder` and below."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        status = os.stat(folder)
    except OSError as error:
        raise SepcliError(f"{folder}: {error.strerror}; check that it can be read") from None
    here = (status.st_dev, status.st_ino)
    if here in above:  # a symbolic link to a folder above
        return
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry.name for entry in entries if entry.is_file()]
    stems = {stem for stem, extension in map(split_audio_name, files) if extension}
    if META in files or "mix" in stems or (stems and all(_has_role(stem) for stem in stems)):
        yield Path(folder), sample_from_folder
    elif "mixture" in stems or (stems and stems <= set(MUSDB_STEMS)):
        yield Path(folder), sample_from_track
    else:
        for name in files:
            if split_audio_name(name)[1]:
                yield Path(folder, name), sample_from_file
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, here))


def _has_role(stem):
    return stem.split(".", 1)[0] in ROLES


def _unique_keys(folder, found):
    """Key -> path: the path below `folder`, as short as it can be without two being the same."""
    long = {path: _long_key(folder, path) for path in found}
    short = {path: _short_key(key, found[path]) for path, key in long.items()}
    taken = Counter(short.values())
    return {short[path] if taken[short[path]] == 1 else long[path]: path for path in found}


def _long_key(folder, path):
    return folder.resolve().name if path == folder else path.relative_to(folder).as_posix()


def _short_key(key, kind):
    if kind is sample_from_file:
        return os.path.splitext(key)[0]
    split, _, track = key.partition("/")
    return track if split in _SPLITS and track else key


def sample_from_folder(key, folder):
    """The sample in KEY/mix.wav, KEY/ref.speech.wav …, with the JSON of KEY/sample.json."""
    meta = {}
    members = {path.name: path for path in folder.iterdir() if _is_member(path)}
    if (path := folder / META).is_file():
        with explained(path):
            meta = parse_meta(path.read_bytes(), str(path))
        for name in meta.get("fields") or ():
            if os.path.basename(name) == name:  # one that is gone fails when it is read
                members.setdefault(name, folder / name)
    sample = Sample(key, {**meta, "key": key}, members)
    sample.meta["fields"] = sample.ordered()
    return sample


def _is_member(path):
    return path.is_file() and path.name != META and not path.name.startswith(".")


def sample_from_track(key, folder):
    """The sample in a track of MUSDB: its mixture, and its stems as references."""
    files = {}
    for path in sorted(folder.iterdir()):
        stem, extension = split_audio_name(path.name)
        if extension and _is_member(path):
            files.setdefault(stem, path)
    mixture = files.pop("mixture", None)
    targets = sorted(files, key=_stem_order)
    members = {f"mix{mixture.suffix}": mixture} if mixture else {}
    members |= {f"ref.{stem}{files[stem].suffix}": files[stem] for stem in targets}
    return Sample(key, {"key": key, "fields": list(members), "targets": targets}, members)


def _stem_order(stem):
    return MUSDB_STEMS.index(stem) if stem in MUSDB_STEMS else len(MUSDB_STEMS), stem


def sample_from_file(key, path):
    """The sample with nothing but a mix, from one audio file."""
    extension = split_audio_name(path.name)[1] or ".wav"
    return Sample(key, {"key": key, "fields": [f"mix{extension}"]}, {f"mix{extension}": path})


class FolderWriter:
    """Write each sample into a folder of its own, KEY/mix.wav …, complete or not at all."""

    def __init__(self, folder, *, overwrite=None):
        """overwrite: True replaces samples that exist, False keeps them, None is an error."""
        self.folder, self.overwrite = Path(folder), overwrite
        self.count = 0
        self._keys = set()
        with explained(folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def skips(self, key):
        """Whether `write` would leave out the sample `key` because it is there already.

        Raises SepcliError for a key that is no path below the folder, that came before, or whose
        folder exists when neither replacing nor keeping was asked for.
        """
        if not all(_is_file_name(part) for part in key.split("/")):
            raise SepcliError(f"{key!r} cannot be the name of a folder; write to a .tar instead")
        if key in self._keys:
            raise SepcliError(
                f"{self.folder / key}: two samples are called {key!r}; "
                "write each stream to a folder of its own"
            )
        target = self.folder / key
        if self.overwrite is False:
            return (target / META).exists()
        if self.overwrite is None and target.exists() and any(map(_is_member, target.iterdir())):
            raise SepcliError(f"{target}: exists; use --overwrite or --skip-existing")
        return False

    def write(self, sample):
        """Write one sample, unless it is skipped; returns whether it was written."""
        if self.skips(sample.key):
            return False
        target = self.folder / sample.key
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        with explained(target):
            try:
                part.mkdir(parents=True)
                for name in sample.ordered():
                    _write_member(part / name, sample.members[name], sample.label(name))
                (part / META).write_bytes(sample.json())
                _commit(part, target, sample.ordered())
            finally:
                shutil.rmtree(part, ignore_errors=True)
        self._keys.add(sample.key)
        self.count += 1
        return True


def _is_file_name(name):
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _write_member(path, content, label):
    if not _is_file_name(path.name) or path.name == META:
        raise SepcliError(f"{label} cannot be the name of a file; write to a .tar instead")
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def _commit(part, target, names):
    """Move the sample in `part` to `target`: at once if that is new, else file by file."""
    if not target.exists():
        return part.rename(target)
    meta = target / META
    stale = set(sample_from_folder("", target).meta["fields"] if meta.exists() else ()) - set(names)
    meta.unlink(missing_ok=True)  # incomplete from here until the new one is in place
    for name in stale:
        (target / name).unlink(missing_ok=True)
    for name in (*names, META):
        (part / name).replace(target / name)
