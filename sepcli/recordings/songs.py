"""Songs: which recordings are the stems of one, in folders and packs."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sepcli.errors import SepcliError
from sepcli.files import composed
from sepcli.recordings import stored
from sepcli.recordings.pools import find_audio
from sepcli.samples.sample import split_audio_name
from sepcli.samples.stems import ACCOMPANIMENT, MIXTURE, SAME, STEMS, VOCALS, stem_name, stem_order

_ARCHIVE = re.compile(r"\.(h5(:(train|validation|all))?|tar)$")
_REFERENCE = "samples/ref."  # groups of packs that are stems


@dataclass(frozen=True)
class Song:
    """A song's name, and where its stems are: {stem: [recording, …]}, of which it is the sum."""

    name: str
    stems: dict[str, list]

    @property
    def is_single(self) -> bool:
        """Whether it is one stem, whose song is not known."""
        return len(self.stems) == 1


def find_songs(folder: str | Path, *, singles: bool = False) -> list[Song]:
    """The songs in a folder or pack as `StemSpec` describes it, sorted by name.

    singles: where recordings in folders of stems do not belong together by their names, each of
        them is a song by itself, of one stem.
    Raises SepcliError where there are none, and for one that has less than two stems.
    """
    packed = bool(_ARCHIVE.search(str(folder)))
    songs = _packed_songs(folder) if packed else _songs_in_folder(folder)
    for song, stems in songs.items():
        if len(stems) < 2:
            path = next(iter(stems.values()))[0]
            apart = not packed and _stem_folder(folder, path)
            if apart and singles and len(set().union(*songs.values())) > 1:
                return _singles(folder, songs)
            raise SepcliError(
                f"{path}: the only stem of {song or folder}; expected "
                "SONG/STEM.wav, or vocals/SONG.wav and accomp/SONG.wav"
                + "; stems of unrelated names need the augmentation remix"
                * bool(apart)
            )
    return [Song(os.path.join(folder, song), songs[song]) for song in sorted(songs)]


def _singles(folder, songs):
    """Every stem of the songs as a song of its own, by stem and name."""
    parted = [(stem, song, paths) for song, stems in songs.items() for stem, paths in stems.items()]
    return [
        Song(os.path.join(folder, stem, song), {stem: paths})
        for stem, song, paths in sorted(parted)
    ]


def _packed_songs(source):
    """{name: {stem: [recording]}} of the references of samples in a pack."""
    if ".tar" in source:
        raise SepcliError(f"{source}: stems are in folders or packs; make one with sepcli pack")
    songs = {}
    for recording in stored.in_archive(source, "audio") or ():
        member, group = recording.group, recording.pack.groups[recording.group]
        if member.startswith(_REFERENCE):
            song = os.fsdecode(group.names[recording.index])
            stems = songs.setdefault(song, {})
            stems.setdefault(stem_name(member.removeprefix(_REFERENCE)), []).append(recording)
    if not songs:
        raise SepcliError(f"{source}: no stems in it; pack folders of SONG/STEM.wav")
    return songs


def _songs_in_folder(folder):
    """{name: {stem: [path, …]}} of files."""
    songs = {}
    for path in find_audio(folder):
        above, name = os.path.split(os.path.relpath(path, folder))
        name = split_audio_name(name)[0]
        if stem := _stem_folder(folder, path):  # STEM/SONG.wav
            song = os.path.join(above[len(stem) + 1 :], name)
        else:
            song, stem = above, name
        song = composed(song)
        if stem != MIXTURE:
            songs.setdefault(song, {}).setdefault(stem_name(stem), []).append(path)
    if not songs:
        raise SepcliError(f"{folder}: mixtures only; name a folder with their stems")
    return songs


def _stem_folder(folder, path):
    """The folder directly below `folder` that `path` is in, if it is called like a stem."""
    first = os.path.relpath(path, folder).partition(os.sep)[0]
    return first if first in (*STEMS, *SAME, MIXTURE) else ""


def with_targets(song: Song, targets: Sequence[str]) -> Song:
    """The song with an accompaniment if that is a target, and without if it is more than that.

    Raises SepcliError for a target that it does not have.
    """
    if missing := set(targets) - set(song.stems) - {ACCOMPANIMENT}:
        raise SepcliError(f"{song.name}: no {listed(missing)}, but {listed(song.stems)}")
    rest = {name: paths for name, paths in song.stems.items() if name not in targets}
    if ACCOMPANIMENT in targets:
        all_else = [path for paths in rest.values() for path in paths]
        if not all_else and ACCOMPANIMENT not in song.stems:
            raise SepcliError(f"{song.name}: no {ACCOMPANIMENT}, and no stems to compute it from")
        stems = {ACCOMPANIMENT: all_else} | song.stems
        return Song(song.name, {name: stems[name] for name in targets})
    if ACCOMPANIMENT in rest and set(song.stems) > {VOCALS, ACCOMPANIMENT}:
        return Song(song.name, {k: v for k, v in song.stems.items() if k != ACCOMPANIMENT})
    return song


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names, key=stem_order))
