"""Weights that their authors publish: where they lie, and how they get into the cache.

A file is written as NAME.part until its digest is right, so that a download that broke off goes on
from there.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sepcli import files
from sepcli.errors import SepcliError
from sepcli.models.weights.cache import OFF, VARIABLE, cache_folder, digest

ATTEMPTS = 5  # in a row that bring nothing
PAUSE_S = 1.0  # before the second one, twice as long before the third, and so on
TIMEOUT_S = 30.0
PIECE = 1 << 18  # bytes


@dataclass(frozen=True)
class Published:
    """The weights of one name.

    url: of the folder of the files. names: {file: the first digits of its SHA-256}.
    licence: what the authors say, or "not stated".
    """

    url: str
    names: dict[str, str]
    licence: str
    about: str


def _open_unmix(record, licence, about, **targets):
    """Open-Unmix names its files after the first 8 digits of their SHA-256."""
    names = {f"{target}-{digits}.pth": digits for target, digits in targets.items()}
    return Published(f"https://zenodo.org/records/{record}/files", names, licence, about)


PROJECT = "MIT (of the project, open-unmix-pytorch)"
PUBLISHED = {
    "umx": _open_unmix(
        3370486, PROJECT, "Open-Unmix, trained on MUSDB18 (up to 16 kHz)",
        vocals="c8df74a5", drums="5a48008b", bass="646024d3", other="f8e132cc",
    ),
    "umxhq": _open_unmix(
        3370489, PROJECT, "Open-Unmix, trained on MUSDB18-HQ",
        vocals="b62c91ce", drums="9619578f", bass="8d85a5bd", other="b52fbbf7",
    ),
    "umxl": _open_unmix(
        5069601, "CC BY-NC-SA 4.0", "Open-Unmix, larger, trained on more data",
        vocals="bccbd9aa", drums="69e0ebd4", bass="2ca1ce51", other="c8c5b3e6",
    ),
}  # fmt: skip


def folder_of(name: str) -> Path:
    """Where the files of a published name lie, or will; SepcliError where nothing is kept."""
    cache = cache_folder()
    if cache is None:
        raise SepcliError(
            f"{name}: {VARIABLE}={OFF} keeps nothing; name a folder in it for what is downloaded"
        )
    return cache / "models" / name


def downloaded(name: str) -> Path:
    """The folder of a published name; SepcliError with the command when files are missing."""
    folder = folder_of(name)
    if all((folder / file).is_file() for file in PUBLISHED[name].names):
        return folder
    raise SepcliError(f"{name}: not downloaded; do so with: sepcli download {name}")


def licence_of(path: Path) -> str | None:
    """What is known of the licence of published weights in the cache, None of all others."""
    cache = cache_folder()
    for name, published in PUBLISHED.items():
        if cache and path == cache / "models" / name:
            return published.licence
    return None


def download(name: str, tell: Callable[[str, int, int | None], None] | None = None) -> Path:
    """Bring the files of a published name into the cache; those that are there stay.

    tell: gets the file, how many bytes of it there are, and how many there will be, if known.
    Returns the folder. Raises SepcliError.
    """
    if name not in PUBLISHED:
        raise SepcliError(f"{name}: not known; choose from {', '.join(PUBLISHED)}")
    folder, published = folder_of(name), PUBLISHED[name]
    files.make_folder(folder)
    for file, digits in published.names.items():
        if not (folder / file).is_file():
            fetch(f"{published.url}/{file}", folder / file, digits, tell)
    return folder


def fetch(
    url: str,
    path: Path,
    sha256: str,
    tell: Callable[[str, int, int | None], None] | None = None,
) -> None:
    """Download `url` to `path`, which appears once its SHA-256 begins with `sha256`.

    Goes on where an earlier try broke off, and tries again while the server drops the connection.
    Raises SepcliError.
    """
    import http.client
    import urllib.error

    part = files.beside(path, files.ENDING)
    with files.explained(part):
        failed = 0
        while failed < ATTEMPTS:
            before = _size(part)
            try:
                if _receive(url, part, lambda *sizes: tell and tell(path.name, *sizes)):
                    break
                reason = "the connection broke off"
            except urllib.error.HTTPError as error:
                if error.code == 416:  # nothing is missing
                    break
                if error.code < 500:
                    raise SepcliError(f"{url}: the server answers {error.code}") from None
                reason = f"the server answers {error.code}"
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                if isinstance(error, OSError) and error.filename:  # of the disk
                    raise
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            failed = 0 if _size(part) > before else failed + 1
            time.sleep(PAUSE_S * failed)
        else:
            raise SepcliError(
                f"{url}: {reason}; check the network and repeat the command, which resumes at "
                f"{_size(part):,} bytes"
            )
        found = digest(part)
        if not found.startswith(sha256):
            part.unlink()
            raise SepcliError(
                f"{url}: damaged in transit: its SHA-256 starts with {found[:8]}, not "
                f"{sha256[:8]}; repeat the command"
            )
        os.replace(part, path)


def _receive(url, part, tell):
    """Add to `part` what it lacks; whether all of it came."""
    import urllib.request

    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if answer.status != 206:
            have = 0  # it sends all of it, from the start
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(part, "ab" if have else "wb") as file:
            while piece := answer.read1(PIECE):
                file.write(piece)
                have += len(piece)
                tell(have, total)
    return total is None or have >= total


def _size(path):
    return path.stat().st_size if path.exists() else 0
