"""Audio tracks of a file that has several: `song.stem.mp4#2` names the third of song.stem.mp4."""

import os
import re

from sepcli.files import Place

_TRACK = re.compile(r"(.+\.mp4)#(\d+)", re.DOTALL | re.IGNORECASE)


def split_track(name: Place) -> tuple[str, int | None]:
    """("song.mp4", 2) of "song.mp4#2"; (name, None) of a name without a track, or of a file's."""
    name = os.fspath(name)
    match = _TRACK.fullmatch(name)
    if match and not os.path.lexists(name):
        return match[1], int(match[2])
    return name, None
