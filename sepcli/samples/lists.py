"""Samples as JSON lines of paths."""

import codecs
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sepcli.audio.streams import read_some
from sepcli.cluster.objects import Remote, is_url
from sepcli.errors import SepcliError
from sepcli.files import encoding_of
from sepcli.samples.sample import Sample, parse_meta, split_audio_name, unreadable
from sepcli.signals.checks import is_path

_LONGEST_LINE = 1 << 20  # bytes
_MARK = 3  # bytes, the longest byte order mark


def read_list(
    stream: Any, *, origin: str = "standard input", folder: str = "."
) -> Iterator[Sample]:
    """Yield the samples of JSON lines such as {"mix": "a.wav", "ref": {"speech": "b.wav"}}.

    Each line names files by `mix` (or `path`), `enroll`, `ref` and `est` (targets to paths), seen
    from `folder`, and may give a `key`; the rest is the sample's JSON. No audio is opened. A line
    that makes no sense is an `unreadable` sample, so that the others are read.
    """
    taken = Counter()
    for number, line in _lines(stream):
        where = f"{origin}, line {number}"
        if not line.strip():
            continue
        try:
            yield _sample(line, where, Path(folder), taken)
        except SepcliError as error:
            yield unreadable(f"line {number}", error, origin)


def _sample(line, where, folder, taken):
    """The sample of a line; taken: how often files of a name gave samples theirs so far."""
    if len(line) > _LONGEST_LINE:
        raise SepcliError(f"{where}: longer than {_LONGEST_LINE} bytes; write one sample a line")
    record = parse_meta(line, where)
    members = dict(_listed_files(record, folder, where))
    key = record.pop("key", None)
    if key is None:
        stem = split_audio_name(next(iter(members.values())).name)[0]
        taken[stem] += 1
        key = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
    elif not is_path(key):
        raise SepcliError(f"{where}: key is {key!r:.40}; write it as text")
    return Sample(key, record, members)


def _listed_files(record, folder, where):
    """Yield (member name, Path) for the files that `record` names, and take them out of it."""
    named = {"mix": record.pop("path", None)}
    named |= {role: record.pop(role) for role in ("mix", "enroll") if role in record}
    for role in ("ref", "est"):
        targets = record.pop(role, {})
        if not isinstance(targets, dict):
            raise SepcliError(
                f'{where}: {role} is {targets!r:.80}; write {{"{role}": {{"speech": "a.wav"}}}}'
            )
        named |= {f"{role}.{target}": path for target, path in targets.items()}
    if named["mix"] is None:
        del named["mix"]
    if not named:
        raise SepcliError(f'{where}: names no file; write {{"mix": "a.wav"}}')
    for name, path in named.items():
        is_name = is_path(path)
        extension = split_audio_name(path)[1] if is_name else ""
        if not extension and (not is_name or os.path.splitext(path)[1]):
            raise SepcliError(f"{where}: {name} is {path!r:.80}; write the path of an audio file")
        found = Remote(path) if is_url(path) else folder / path
        yield f"{name}{extension or '.wav'}", found  # whatever it is, without an extension


def _lines(stream):
    """Yield (number, line) as the lines, in UTF-8, arrive."""
    number, rest = 0, b""
    for piece in _in_utf8(stream):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            yield number, line
        rest = rest[: _LONGEST_LINE + 1]  # enough to tell that it is too long
    yield number + 1, rest


def _in_utf8(stream):
    """Yield the pieces of a text, in UTF-8 or UTF-16 with or without a mark, in UTF-8 without."""
    head = b""
    while len(head) < _MARK and (piece := read_some(stream, 1 << 16)):
        head += piece
    encoding, mark = encoding_of(head)
    pieces = itertools.chain([head[mark:]], iter(lambda: read_some(stream, 1 << 16), b""))
    if encoding == "utf-8":
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for piece in pieces:
        yield decoder.decode(piece).encode(errors="replace")
