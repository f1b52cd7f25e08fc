"""Whole objects in stores, by URL: s3://bucket/a.wav, gs://…, memory://…, whatever fsspec knows.

Objects are fetched to a temporary file before they are read, and put in their place when they are
whole: stores can neither seek well nor append.
"""

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, overload

from sepcli import files
from sepcli.errors import SepcliError

_URL = re.compile(r"(?!https?://)[A-Za-z][A-Za-z0-9+.-]+://")  # the web cannot be listed
_AT_ONCE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}  # an object appears when it is whole
_PREFIX = "sepcli-"  # of temporary folders


class Remote(str):
    """The URL of an object; its names are those of a path."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What is behind the last slash."""
        return self.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The extension, with the dot."""
        return PurePosixPath(self.name).suffix


def is_url(place: object) -> bool:
    """Whether a place is in a store: it begins with a protocol, as s3:// is one."""
    return isinstance(place, str) and _URL.match(place) is not None


def place(text: str | os.PathLike[str]) -> Path | Remote:
    """A `Remote` for a URL, a Path for anything else."""
    return Remote(text) if isinstance(text, str) and is_url(text) else Path(text)


@overload
def below(folder: Remote, name: str) -> Remote: ...
@overload
def below(folder: Path | Remote, name: str) -> Path | Remote: ...
def below(folder: Path | Remote, name: str) -> Path | Remote:
    """The place `name`, a relative path with slashes, in a folder."""
    if isinstance(folder, Path):
        return folder / name
    return Remote(f"{folder.rstrip('/')}/{posixpath.normpath(name)}")


def check(url: str) -> None:
    """Raise SepcliError if the package is missing that the protocol of a URL needs."""
    _system(url)


def is_object(url: str) -> bool:
    """Whether there is an object of this name, rather than others below it, or nothing."""
    system, path = _system(url)
    with _explained(url):
        system.invalidate_cache()
        return system.isfile(path)


def find(url: str) -> list[Remote]:
    """All objects below a URL, or those that a glob (`s3://bucket/*.wav`) stands for, sorted."""
    system, path = _system(url)
    with _explained(url):
        system.invalidate_cache()
        if "*" in path:
            found = [p for p, about in system.glob(path, detail=True).items() if _is_file(about)]
            return sorted(Remote(system.unstrip_protocol(p)) for p in found)
        found = system.find(path)
    base, root = Remote(url), path.rstrip("/")
    names = [p[len(root) :].lstrip("/") for p in found]
    return sorted(below(base, name) if name else base for name in names if _is_shown(name))


def _is_file(about):
    return about["type"] == "file"


def _is_shown(name):
    return not any(part.startswith(".") for part in name.split("/"))


def contents(urls: list[Remote]) -> dict[Remote, bytes]:
    """The bytes of several objects, fetched side by side where the store can do that."""
    if not urls:
        return {}
    system, _ = _system(urls[0])
    with _explained(urls[0]):
        paths = {url: system._strip_protocol(url) for url in urls}
        found = system.cat(list(paths.values()))
    return {url: found[path] if isinstance(found, dict) else found for url, path in paths.items()}


def _scratch():
    """A temporary folder, as a context."""
    import tempfile  # not when a command starts

    return tempfile.TemporaryDirectory(prefix=_PREFIX)


@contextmanager
def fetched(what: Path | Remote) -> Iterator[Path]:
    """The path of a file, or of an object that is fetched for as long as the block takes.

    Errors inside the block that name the temporary file name the object instead.
    """
    if isinstance(what, Path):
        yield what
        return
    with _scratch() as folder:
        path = Path(folder, what.name)
        with _named(folder, what[: -len(what.name) - 1]):
            fetch(what, path)
            yield path


def fetch(url: str, path: Path) -> None:
    """Fetch a whole object to a new file; SepcliError where it cannot be had."""
    system, there = _system(url)
    with _explained(url):
        system.get_file(there, os.fspath(path))
        expected = system.info(there).get("size")
    if expected is not None and path.stat().st_size != expected:
        raise SepcliError(f"{url}: changed while it was fetched; try again")


@contextmanager
def uploading(outputs: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    """`outputs`, {name: place}, with local files to write for those that are `Remote`.

    They are put in their places, whole, when the block ends well; after an exception, none is.
    """
    with ExitStack() as stack:
        local = dict(outputs)
        for number, (name, target) in enumerate(outputs.items()):
            if isinstance(target, Remote):
                folder = stack.enter_context(_scratch())
                stack.enter_context(_named(folder, target[: -len(target.name) - 1]))
                local[name] = Path(folder, target.name or str(number))
        yield local
        for name, target in outputs.items():
            if isinstance(target, Remote):
                put(local[name], target)


@contextmanager
def uploaded(output: str, last: str = "") -> Iterator[str]:
    """A path to write a file or folder at: `output` itself, or what is put there at the end.

    last: the file of a folder that is put behind the others.
    """
    if not is_url(output):
        yield output
        return
    name = output.rstrip("/").rpartition("/")[2]
    with _scratch() as folder:
        with _named(folder, output.rstrip("/")[: -len(name) - 1]):
            yield os.path.join(folder, name)
        put_all(Path(folder, name), Remote(output), last)


def put_all(path: Path, url: Remote, last: str = "") -> None:
    """Put a file, or all files of a folder, the one called `last` behind the others."""
    if path.is_file():
        put(path, url)
        return
    inside = [each for each in path.rglob("*") if each.is_file()]
    for each in sorted(inside, key=lambda each: (each.name == last, each.as_posix())):
        put(each, below(url, each.relative_to(path).as_posix()))


def put(path: Path, url: str) -> None:
    """Put a file into its place in a store: the whole of it, or SepcliError and nothing at all."""
    system, there = _system(url)
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    with _explained(url):
        if protocols & _AT_ONCE:
            system.put_file(os.fspath(path), there)
            return
        parent, _, name = there.rpartition("/")
        part = f"{parent}/{files.temporary(name).name}"
        try:
            system.makedirs(parent, exist_ok=True)
            system.put_file(os.fspath(path), part)
            if system.info(part)["size"] != path.stat().st_size:
                raise OSError("not all of it was taken")
            system.mv(part, there)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(part)
            raise


def save(where: str, content: str) -> None:
    """Write text to a file or object, whole or not at all."""
    with uploaded(where) as path:
        files.save(path, content)


def _system(url):
    """The file system of fsspec for a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs

        with _explained(url):
            return url_to_fs(url)
    except ImportError as error:
        raise SepcliError(f"{url}: {error}; pip install 'sepcli[remote]'") from None


@contextmanager
def _named(folder, url):
    """Let errors name what is below a URL, rather than its copy in a temporary folder."""
    try:
        yield
    except SepcliError as error:
        raise type(error)(str(error).replace(os.fspath(folder), url)) from None


@contextmanager
def _explained(url):
    """Turn what a store says into one line."""
    try:
        yield
    except (SepcliError, ImportError):
        raise
    except FileNotFoundError:
        raise SepcliError(f"{url}: no such object; check the address") from None
    except PermissionError as error:
        reason = f"{url}: access is denied ({_said(error)}); check the credentials"
        raise SepcliError(reason) from None
    except Exception as error:  # of any of the packages that fsspec has for protocols
        remedy = "check the address, the credentials and the connection"
        raise SepcliError(f"{url}: {_said(error)}; {remedy}") from None


def _said(error):
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
