"""Samples out of tar archives: members are grouped as they arrive, what is missing is noticed."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from sepcli.audio import AUDIO_EXTENSIONS
from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample, parse_meta, unreadable
from sepcli.samples.tarblocks import CutError, read_members
from sepcli.samples.tarstream import END, IN_FOLDER, bare, is_signal, prefix_of, split_member_name

_EXTENSIONS = {extension[1:] for extension in AUDIO_EXTENSIONS}
_READ_ANYWAY = "read what is there with --no-strict"


def read_tar(
    stream: Any, *, origin: str = "standard input", strict: bool = True, file: Any = None
) -> Iterator[Sample]:
    """Yield the samples of a tar archive, or of several one after the other, as they arrive.

    stream: binary, need not seek. A sample is handed on as soon as the last member that its
    `fields` name is there; without `fields`, when another sample begins.
    file: what `stream` reads, from its beginning, if that can seek: then the members of a sample
    may be anywhere in it.
    strict: whether a stream that ends early, a sample that lacks a field, and a closing count
    that is missing or wrong are a SepcliError, raised after all samples before it. Otherwise
    what is there is read, but for a sample in which the stream ends.
    Raises SepcliError in any case for a stream that is damaged. A sample whose JSON is none, or
    that has a member twice, is an `unreadable` one.
    """
    reader = _Reader(origin, strict, file)
    try:
        try:
            for member in read_members(stream, origin):
                yield from reader.take(member)
        except _ScatteredError:
            handed_on, reader = reader.count, _Reader(origin, strict)
            samples = (s for member in _in_order(file, origin) for s in reader.take(member))
            yield from itertools.islice(samples, handed_on, None)
    except CutError as error:
        if strict:
            raise SepcliError(
                f"{origin}: cut off {error}, {reader.so_far()} complete; the command upstream "
                f"stopped early, see its message, or {_READ_ANYWAY}"
            ) from None
        yield from reader.last_sample(error)


class _ScatteredError(Exception):
    """The members of a sample are not adjacent."""


class _Reader:
    """Groups members into samples, and counts."""

    group: Any  # the sample whose members arrive

    def __init__(self, origin, strict, file=None):
        self.origin, self.strict = origin, strict
        self.group = None
        self.count = 0  # samples so far
        self.before = 0  # of these, in archives that are complete
        self.promised = None  # the closing count of this archive
        self.last = None  # prefix of the sample handed on last
        self._file = file  # where members may be in any order, until that is known
        self._seen = set()  # prefixes of samples that only the next one ends

    def so_far(self):
        return f"{self.count} sample{'' if self.count == 1 else 's'}"

    def take(self, member):
        """Yield the samples that `member`, (name, bytes) or None at an archive's end, completes."""
        name, data = member or (None, None)
        if name is None or bare(name) == END:
            yield from self._finish()
            self._end_archive() if name is None else self._add_promise(data)
        elif split := self._split(bare(name)):
            prefix, inner = split
            yield from self._add(prefix, inner, data, bare(name))

    def _split(self, name):
        """As `split_member_name`, but for what lies beside the members that came before it."""
        if self.group and (rest := self.group.name_of(name)):
            return self.group.prefix, rest
        return split_member_name(name)

    def _add(self, prefix, name, data, member):
        if self.group and self.group.prefix != prefix:
            yield from self._finish()
        if self.group is None:
            if self.strict and prefix == self.last and name != "json":
                raise SepcliError(
                    f"{self.origin}: {prefix}.{name} follows its complete sample; name it in the "
                    f"fields of {prefix}.json, or {_READ_ANYWAY}"
                )
            self.group = _Group(prefix, self.origin, in_folder=f"{prefix}.{name}" != member)
        self.group.add(name, data)
        if self.group.complete():
            yield from self._hand_on()

    def _finish(self):
        """Yield the sample whose end only what follows it shows."""
        if self.group is None:
            return
        self._check_order()
        if self.strict and (missing := self.group.missing()):
            raise SepcliError(
                f"{self.origin}: sample {self.group.prefix} lacks {', '.join(missing)}, which its "
                f"JSON names; {self._sort('if it comes later')}write it again, or {_READ_ANYWAY}"
            )
        yield from self._hand_on()

    def _check_order(self):
        """Raise when members of the sample that ends here came before, or may come later."""
        prefix, file, self._file = self.group.prefix, self._file, None
        if file is not None and not _stand_together(file):
            raise _ScatteredError
        if self.strict and prefix in self._seen:
            raise SepcliError(
                f"{self.origin}: members of sample {prefix} are not adjacent; "
                f"{self._sort('to sort them')}or {_READ_ANYWAY}"
            )
        self._seen.add(prefix)

    def _sort(self, purpose):
        return f"{purpose}, write the tar with tar --sort=name, or name it instead of piping it; "

    def last_sample(self, error):
        """Yield the sample before the place where the stream was cut, if it may be complete."""
        if self.group and not error.inside and not self.group.missing():
            yield from self._hand_on()

    def _hand_on(self):
        samples, self.last, self.group = self.group.samples(), self.group.prefix, None
        self.count += len(samples)
        yield from samples

    def _add_promise(self, data):
        try:
            self.promised = (self.promised or 0) + json.loads(data)["count"]
        except (ValueError, TypeError, LookupError, RecursionError):
            if self.strict:
                raise SepcliError(
                    f"{self.origin}: the closing {END} holds {data[:20]!r} instead of a count; "
                    f"write it again, or {_READ_ANYWAY}"
                ) from None

    def _end_archive(self):
        here, self.before = self.count - self.before, self.count
        promised, self.promised, self.last = self.promised, None, None
        self._seen.clear()
        if not self.strict or promised == here:
            return
        if promised is None:
            raise SepcliError(
                f"{self.origin}: no closing {END} after {self.so_far()}; the command upstream "
                f"stopped early, or another program wrote this tar: then {_READ_ANYWAY}"
            )
        raise SepcliError(
            f"{self.origin}: {here} samples arrived, but its closing count is {promised}; "
            f"write it again, or {_READ_ANYWAY}"
        )


class _Group:
    """Members of one sample, until it is complete."""

    def __init__(self, prefix, origin, *, in_folder=False):
        self.prefix, self.origin, self._mark = prefix, origin, "/" if in_folder else "."
        self.meta, self.members, self.fault = None, {}, None

    def name_of(self, member):
        """What a member is called within this sample, or None for one of another sample."""
        before = f"{self.prefix}{self._mark}"
        name = member.removeprefix(before)
        if name == member or "/" in name:
            return None
        return "json" if self._mark == "/" and name == IN_FOLDER else name

    def add(self, name, data):
        label = f"{self.origin}: {self.prefix}{self._mark}{name}"
        if name in self.members or (name == "json" and self.meta is not None):
            self.fault = f"{label} occurs twice in one sample; remove one"
        elif name != "json":
            self.members[name] = data
        else:
            try:
                self.meta = parse_meta(data, label)
            except SepcliError as error:
                self.meta, self.fault = {}, str(error)

    def missing(self):
        fields = (self.meta or {}).get("fields") or ()
        return [name for name in fields if name not in self.members]

    def complete(self):
        return bool(self.meta) and self.meta.get("fields") is not None and not self.missing()

    def samples(self):
        """The sample; or several, if names go on after a dot: `Dr. No.wav`, `Dr. Who.wav`."""
        if self.meta is None and (inner := self._by_later_dots()):
            return [sample for group in inner for sample in group.samples()]
        meta = self.meta or {}
        key = meta.get("key")
        if not isinstance(key, str) or prefix_of(key) != self.prefix:
            key = self.prefix
        if self.fault:
            return [unreadable(key, self.fault, self.origin)]
        return [Sample(key, meta, self.members, self.origin)]

    def _by_later_dots(self):
        """The groups that the members are of if names go on after the first dot; or None."""
        if any(name in _EXTENSIONS or is_signal(name) for name in self.members):
            return None
        groups = {}
        for name, data in self.members.items():
            dots = (place for place, letter in enumerate(name) if letter == ".")
            rests = [(name[:dot], name[dot + 1 :]) for dot in dots]
            found = [each for each in rests if is_signal(each[1]) or each[1] == "json"]
            found += [each for each in rests[-1:] if each[1].lower() in _EXTENSIONS]
            if not found:
                return None
            prefix = f"{self.prefix}.{found[0][0]}"
            group = groups.setdefault(prefix, _Group(prefix, self.origin))
            group.add(found[0][1], data)
        return list(groups.values())


def _stand_together(file: Any) -> bool:
    """Whether the members of every sample in a tar, a file that can seek, follow each other."""
    seen, last, position = set(), None, file.tell()
    file.seek(0)
    try:
        for member in read_members(file, "", index=True):
            prefix = (split_member_name(member[0]) or (None,))[0] if member else None
            if member is None:
                seen, last = set(), None
            elif bare(member[0]) == END:
                last = None  # whatever of a sample comes behind it comes too late
            elif prefix is not None and prefix != last:
                if prefix in seen:
                    return False
                seen.add(prefix)
                last = prefix
    except (CutError, SepcliError):
        return True  # as far as can be told; it will be met again where it is
    finally:
        file.seek(position)
    return True


def _in_order(file: Any, origin: str) -> Iterator[tuple[Any, Any] | None]:
    """As `read_members` of a file that can seek, but the members of a sample together.

    Samples come in the order of their first members, their JSON last, and `__end__` after all.
    Memory is taken for where members are, and for one of them.
    """
    file.seek(0)
    places, groups = read_members(file, origin, index=True), {}
    while True:
        try:
            member = next(places, END)
        except CutError:
            yield from _read_groups(file, groups)
            raise
        if member == END:
            return
        if member is None:
            yield from _read_groups(file, groups)
            yield None
            groups = {}
        else:
            prefix = (split_member_name(member[0]) or (END,))[0]
            groups.setdefault(prefix, []).append(member)


def _read_groups(file, groups):
    position = file.tell()
    ends = groups.pop(END, [])
    for members in (*groups.values(), ends):
        members.sort(key=lambda member: member[0].endswith(".json"))
        for name, (offset, size) in members:
            file.seek(offset)
            yield name, file.read(size)
    file.seek(position)
