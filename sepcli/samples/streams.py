"""The sample stream: read samples from whatever holds them, write them wherever they belong."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import files
from sepcli.audio import Peekable, begins_as_sound, open_blocks
from sepcli.cluster.objects import Remote, below, is_object, is_url, uploaded
from sepcli.errors import SepcliError
from sepcli.samples.folders import FolderWriter, read_folder, sample_from_file
from sepcli.samples.lists import read_list
from sepcli.samples.remote import ObjectWriter, read_objects
from sepcli.samples.sample import Sample, split_audio_name, unreadable
from sepcli.samples.stems import STEM_FILE
from sepcli.samples.tarreading import read_tar
from sepcli.samples.tarstream import TarWriter

__all__ = ["Sample", "open_sample_writer", "read_samples"]

_STDIN, _STDOUT = "standard input", "standard output"
_PIECE = 1 << 18  # frames read at a time


def read_samples(
    source: Any, *, stdin: Any = None, strict: bool = True, input_type: str = "auto"
) -> Iterator[Sample]:
    """Return an iterator over the samples in `source`, in a fixed order, one at a time.

    source: a sample tar, a pack, a folder (see `read_folder`), one audio file, a list of JSON
        lines, or "-" for standard input, which may be any of these but a folder. A URL stands for
        an object that is one of these, or for a folder.
    stdin: the binary stream to take for standard input.
    strict: whether a sample tar that is cut off or lacks its closing count is an error.
    input_type: "tar", "wav", "audio" or "jsonl" where guessing fails.
    Raises SepcliError, here or from the iterator.
    """
    if str(source) == "-":
        return _read_stream(_standard_input(stdin), _STDIN, strict, input_type, Path())
    if is_url(source):
        return read_objects(
            source, lambda path: read_samples(path, strict=strict, input_type=input_type)
        )
    path = Path(source)
    if os.path.isdir(path):
        return read_folder(path)
    if not os.path.exists(path):
        remedy = "fetch it first" if "://" in str(source) else "check the spelling"
        if os.path.islink(path):
            raise SepcliError(f"{source}: a link to {os.readlink(path)}, which is not there")
        raise SepcliError(f"{source}: no such file or folder; {remedy}")
    if not os.path.isfile(path):  # a named pipe, as <(command) makes
        return _read_file(path, strict, input_type, Path())
    if input_type == "auto" and path.suffix == ".h5":
        from sepcli.samples.pack import read_pack  # HDF5 loads only where there is some

        return read_pack(path)
    if is_audio_file(path, input_type):
        key = path.name[: -len(STEM_FILE)] if path.name.lower().endswith(STEM_FILE) else path.stem
        return iter([sample_from_file(key, path)])
    return _read_file(path, strict, input_type, path.parent)


def to_the_end(samples: Iterator[Sample], source: Any) -> Iterator[Sample]:
    """Pass samples on; what ends them too early is an `unreadable` one behind the others.

    source: what they are read from. Raises SepcliError where there was none before.
    """
    some = False
    try:
        for sample in samples:
            some = True
            yield sample
    except SepcliError as error:
        if not some:
            raise
        yield unreadable(str(source), error)


def is_audio_file(path: str | Path, input_type: str = "auto") -> bool:
    """Whether a path is a file that counts as sound: by its name or its first bytes.

    Unless `input_type` tells what it is.
    """
    if input_type != "auto" or not os.path.isfile(path):
        return input_type in ("wav", "audio") and os.path.isfile(path)
    return bool(split_audio_name(os.path.basename(path))[1]) or begins_as_sound(path)


def _standard_input(stdin):
    if stdin is None:
        if sys.stdin is None:
            raise SepcliError(f"{_STDIN} is closed; pipe samples or audio into this command")
        stdin = sys.stdin.buffer
    if _is_terminal(stdin):
        raise SepcliError(
            f"{_STDIN} is a terminal; pipe samples or audio into it: sepcli mix | sepcli eval -"
        )
    return stdin


def _is_terminal(stream):
    return hasattr(stream, "isatty") and stream.isatty()


def _read_file(path, strict, input_type, folder):
    with files.explained(path):
        stream = path.open("rb")
    with stream:
        yield from _read_stream(stream, str(path), strict, input_type, folder)


def _read_stream(stream, origin, strict, input_type, folder):
    """Yield the samples in a binary stream of any kind; paths in a list are seen from `folder`."""
    file = stream if origin != _STDIN and _starts_and_seeks(stream) else None
    stream = Peekable(stream)
    if not stream.peek(1):
        raise SepcliError(
            f"{origin} is empty: the command that should fill it stopped before; see its message"
        )
    kind = stream.sniff() if input_type == "auto" else input_type
    if kind == "tar":
        yield from read_tar(stream, origin=origin, strict=strict, file=file)
    elif kind == "jsonl":
        yield from read_list(stream, origin=origin, folder=folder)
    elif other := files.stand_in(stream.peek(256)):
        raise SepcliError(f"{origin}: {other}")
    elif kind is None:
        remedy = ", or specify its type with -t/--input-type" if origin == _STDIN else ""
        raise SepcliError(
            f"{origin}: neither a sample tar, nor audio, nor JSON lines; convert it{remedy}"
        )
    else:
        yield _sample_from_audio(stream, origin)


def _starts_and_seeks(stream):
    return stream.seekable() and stream.tell() == 0


def _sample_from_audio(stream, origin):
    with open_blocks(stream, name=origin) as reader:
        blocks = [reader.read(0), *reader.blocks(_PIECE)]
    key = "stdin" if origin == _STDIN else Path(origin).stem
    sample = Sample(key, origin=origin)
    sample.set_audio("mix", np.concatenate(blocks, axis=1), reader.sample_rate)
    return sample


@contextmanager
def open_sample_writer(
    output: Any = None, *, overwrite: bool | None = None, stdout: Any | None = None
) -> Iterator[Any]:
    """Open a writer of samples: `.write(sample)`, `.skips(key)` and `.count`.

    output: None or "-" for a sample tar on standard output, FILE.tar, or else a folder, where
        each sample gets a folder of its own.
    overwrite: True replaces what exists, False keeps it, None makes it an error.
    stdout: the binary stream to take for standard output.
    A file appears when the `with` block ends well, and not at all otherwise; a stream is then
    left without its closing count, so that its reader notices.
    """
    if output is None or str(output) == "-":
        yield from _write_stream(_standard_output(stdout), _STDOUT)
        return
    path = Path(output)
    if is_url(output):
        yield from _write_objects(output, overwrite)
    elif files.is_device(path):
        with _open_unbuffered(path, "wb") as stream:  # a named pipe or a device
            yield from _write_stream(stream, str(path))
    elif path.suffix == ".tar":
        yield from _write_file(path, overwrite)
    else:
        _check_folder_name(path)
        yield FolderWriter(path, overwrite=overwrite)


def _write_objects(url, overwrite):
    if url.endswith(".tar"):
        if is_object(url) and not overwrite:
            if overwrite is None:
                raise files.exists(url)
            yield _Keeper()
            return
        with uploaded(url) as path:
            yield from _write_file(path, True)
        return
    writer = ObjectWriter(url, overwrite=overwrite)
    try:
        yield writer
    finally:
        writer.close()


def place_of(key: str, output: Any = None) -> str:
    """Where `open_sample_writer(output)` puts the sample `key`."""
    if output is None or str(output) == "-":
        return _STDOUT
    if is_url(output) and not output.endswith(".tar"):
        return str(below(Remote(output), key))
    return os.path.join(output, key) if os.path.isdir(output) else os.fspath(output)


def _standard_output(stdout):
    stdout = sys.stdout.buffer if stdout is None else stdout
    if _is_terminal(stdout):
        raise SepcliError(
            "samples are not written to a terminal; use -o DIR, -o FILE.tar or a pipe"
        )
    return stdout


def _check_folder_name(path):
    if ".tar." in path.name or path.suffix == ".tgz":
        raise SepcliError(f"{path}: samples are not compressed; use -o FILE.tar, or - and a pipe")
    if os.path.isfile(path) or split_audio_name(path.name)[1]:
        raise SepcliError(f"{path}: samples do not go into such a file; use -o DIR or -o FILE.tar")


def _open_unbuffered(path, mode, called=None):
    """Open a file that keeps nothing back, so that closing it cannot fail after an error.

    called: what a complaint names instead.
    """
    with files.explained(called or path):
        return path.open(mode, buffering=0)


def _write_stream(stream, name):
    writer = TarWriter(stream, name)
    yield writer
    writer.close()


def _write_file(path, overwrite):
    if files.stays([path], overwrite):
        yield _Keeper()
        return
    with files.explained(path):
        aside = files.Aside(path)
    try:
        with _open_unbuffered(aside.part, "xb", path) as stream:
            yield from _write_stream(stream, str(path))
        with files.explained(path):
            aside.commit()
    finally:
        aside.discard()


class _Keeper:
    """Stands for a file that exists and stays as it is: skips every sample."""

    count = 0

    def skips(self, key):
        return True

    def write(self, sample):
        return False
