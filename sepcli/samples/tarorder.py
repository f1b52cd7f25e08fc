"""Tars whose members are in any order, as `tar cf` takes them from a disk: sorted by samples."""

from collections.abc import Iterator
from typing import Any

from sepcli.errors import SepcliError
from sepcli.samples.tarblocks import CutError, read_members
from sepcli.samples.tarstream import END, split_member_name


def stand_together(file: Any) -> bool:
    """Whether the members of every sample in a tar, a file that can seek, follow each other."""
    seen, last, position = set(), None, file.tell()
    file.seek(0)
    try:
        for member in read_members(file, "", index=True):
            prefix = (split_member_name(member[0]) or (None,))[0] if member else None
            if member is None:
                seen, last = set(), None
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


def in_order(file: Any, origin: str) -> Iterator[tuple[Any, Any] | None]:
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
