"""Which files of a folder are sound, and which ones look like it but are left out."""

import os
from pathlib import Path
from typing import Any

from sepcli.audio.foreign import REMEDY, is_available
from sepcli.containers.formats import AUDIO_EXTENSIONS, FOREIGN_EXTENSIONS
from sepcli.containers.sniffing import SNIFFED, sniff
from sepcli.errors import note

_MOST_NAMES = 5  # of files that are left out for the same reason


class Listing:
    """A search for sound files in `place`, a folder or a glob, that tells what it leaves out."""

    def __init__(self, place: Any) -> None:
        self.place = os.fspath(place)
        self._left_out = {}  # reason -> paths

    def takes(self, path: str | Path) -> bool:
        """Whether a path, of no folder, is of a file that can be read and that is sound.

        Its name tells, or its first bytes if the name has no extension.
        """
        extension = os.path.splitext(path)[1].lower()
        if self.misses(path):
            return False
        if extension in FOREIGN_EXTENSIONS and not is_available():
            self._left_out.setdefault(f"to read them: {REMEDY}", []).append(path)
            return False
        return extension in AUDIO_EXTENSIONS or (not extension and begins_as_sound(path))

    def misses(self, path: str | Path) -> bool:
        """Whether a path has the name of a sound file but leads to none."""
        is_missing = (
            os.path.splitext(path)[1].lower() in AUDIO_EXTENSIONS
            and os.path.islink(path)
            and not os.path.exists(path)
        )
        if is_missing:
            self._left_out.setdefault("links to files that are not there", []).append(path)
        return is_missing or not os.path.isfile(path)

    def tell(self) -> None:
        """A note of what was left out, if anything was."""
        if self._left_out:
            parts = (f"{self._names(paths)} ({why})" for why, paths in self._left_out.items())
            note(f"{self.place}: left out {'; '.join(parts)}")

    def _names(self, paths):
        folder = self.place if os.path.isdir(self.place) else "."
        names = [os.path.relpath(path, folder) for path in paths[:_MOST_NAMES]]
        more = len(paths) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def begins_as_sound(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of sound; a file that cannot be read is none."""
    try:
        with open(path, "rb") as file:
            return sniff(file.read(SNIFFED)) in ("wav", "audio")
    except OSError:
        return False
