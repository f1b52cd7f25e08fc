"""Samples as JSON lines of paths."""

from collections import Counter
from pathlib import Path

from sepcli.audio.streams import read_some
from sepcli.data.sample import Sample, parse_meta, split_audio_name
from sepcli.errors import SepcliError

_LONGEST_LINE = 1 << 20  # bytes


def read_list(stream, *, origin="standard input", folder="."):
    """Yield the samples of JSON lines such as {"mix": "a.wav", "ref": {"speech": "b.wav"}}.

    Each line names files by `mix` (or `path`), `enroll`, `ref` and `est` (targets to paths), seen
    from `folder`, and may give a `key`; the rest is the sample's JSON. No audio is opened.
    """
    taken = Counter()
    for number, line in enumerate(_lines(stream, origin), start=1):
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
    named = {}
    for role in ("path", "mix", "ref", "enroll", "est"):
        value = record.pop(role, None)
        if isinstance(value, dict):
            named |= {f"{role}.{target}": path for target, path in value.items()}
        elif value is not None:
            named["mix" if role == "path" else role] = value
    if not named:
        raise SepcliError(f'{where}: names no file; write {{"mix": "a.wav"}}')
    for name, path in named.items():
        extension = split_audio_name(path)[1] if isinstance(path, str) else ""
        if not extension:
            raise SepcliError(f"{where}: {name} is {path!r:.80}; write the path of an audio file")
        yield f"{name}{extension}", folder / path


def _lines(stream, origin):
    """Yield lines of bytes as they arrive."""
    rest = b""
    while piece := read_some(stream, 1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > _LONGEST_LINE:
            raise SepcliError(
                f"{origin}: a line of more than {_LONGEST_LINE} bytes; write one sample a line"
            )
    yield rest
