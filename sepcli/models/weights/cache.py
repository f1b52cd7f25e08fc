"""Where files lie that can be made or downloaded again, and whether they are the right ones."""

import hashlib
import os
import sys
from pathlib import Path

VARIABLE = "SEPCLI_CACHE"
OFF = "off"  # its value where nothing is to be kept
PIECE = 1 << 20  # bytes


def cache_folder() -> Path | None:
    """The folder, which need not exist yet; None where the environment says to keep nothing.

    It is what SEPCLI_CACHE names, or `sepcli` in the folder that the system has for such files.
    """
    named = os.environ.get(VARIABLE)
    if named == OFF:
        return None
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sepcli"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home(), "sepcli", "cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sepcli")


def digest(*paths: str | Path) -> str:
    """The SHA-256 of files, one after the other, 64 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                total.update(piece)
    return total.hexdigest()
