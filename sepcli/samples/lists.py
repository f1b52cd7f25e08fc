"""Samples as JSON lines of paths."""

from collections import Counter
from pathlib import Path

from sepcli.audio.streams import read_some
from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample, parse_meta, split_audio_name

_LONGEST_LINE = 1 << 20  # bytes


def read_list(stream, *, origin="standard input", folder="."):
    """Yield the samples of JSON lines such as {"mix": "a.wav", "ref": {"speech": "b.wav"}}.

    Each line names files by `mix` (or `path`), `enroll`, `ref` and `est` (targets to paths), seen
    from `folder`, and may give a `key`; the rest is the sample's JSON. No audio is opened.
    """
    taken = Counter()
    for number, line in _lines(stream, origin):
        where = f"{origin}, line {number}"
        if not line.strip():
            continue
        record = parse_meta(line, where)
        members = dict(_listed_files(record, Path(folder), where))
        key = record.pop("key", None)
        if key is None:
            stem = split_audio_name(next(iter(members.values())).name)[0]
            taken[stem] += 1
            key = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
        elif not isinstance(key, str) or not key:
            raise SepcliError(f"{where}: key is {key!r:.40}; write it as text")
        yield Sample(key, record, members)


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
        extension = split_audio_name(path)[1] if isinstance(path, str) else ""
        if not extension or "\0" in path:
            raise SepcliError(f"{where}: {name} is {path!r:.80}; write the path of an audio file")
        yield f"{name}{extension}", folder / path


def _lines(stream, origin):
    """Yield (number, line) as the lines, bytes, arrive."""
    number, rest = 0, b""
    while piece := read_some(stream, 1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            yield number, line
        if len(rest) > _LONGEST_LINE:
            raise SepcliError(
                f"{origin}, line {number + 1}: longer than {_LONGEST_LINE} bytes; "
                "write one sample a line"
            )
    yield number + 1, rest
