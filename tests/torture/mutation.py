"""Mutants of bytes, of texts and of JSON: what comes out is a function of the generator alone."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

HEAD = 256  # bytes, in which most formats say what they are
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 64, 127, 128, 255, 256, 512, 1000, 4096, 32767, 32768, 65535)
LARGE = (65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1000, 10**6, 2**31, 2**63, 10**30, 0.0, 0.5, -0.5, 1e-30,
    1e30, float("nan"), float("inf"), "", "x", "../../x", "/etc/passwd", "a\nb", "\x1b[31m", "\0",
    "é", "\ud800", "x" * 5000, "1e3", [], [[]], {}, {"": None}, [0] * 100, ["a", "a"],
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\n", b"\r\n", b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b"-", b"#",
    b"null", b"NaN", b"Infinity", b"1e999", b"../", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\x28",
    b"%s%n", b"\x1b[2J", b"&a", b"*a", b"!!python/object/apply:os.system", b"[" * 3000, b"- " * 500,
)  # fmt: skip


def mutate(rng: Random, data: bytes, others: Sequence[bytes] = (), tokens=TOKENS) -> bytes:
    """1 to 4 changes of `data`, half of them near its beginning; others: what is spliced in."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(CHANGES)(rng, data, others, tokens)
    return data


def place(rng: Random, data: bytes) -> int:
    """A position in `data`, its end included."""
    end = len(data) if rng.random() < 0.5 else min(HEAD, len(data))
    return rng.randint(0, end)


def stretch(rng: Random, data: bytes) -> tuple[int, int]:
    """The two ends of a part of `data`, mostly a short one."""
    start = place(rng, data)
    length = rng.choice((1, 2, 4, 8, 16, 100, 1000, len(data)))
    return start, min(len(data), start + rng.randint(0, length))


def flip(rng, data, _others, _tokens):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = place(rng, data)
        if at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng, data, _others, _tokens):
    start, stop = stretch(rng, data)
    value = rng.choice((0, 255, None))
    new = rng.randbytes(stop - start) if value is None else bytes([value]) * (stop - start)
    return data[:start] + new + data[stop:]


def number(rng, data, _others, _tokens):
    """An integer that is often at a limit, of some width, in either order."""
    at, width = place(rng, data), rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS + LARGE + (len(data), len(data) - at))
    value = rng.choice((value, -value, value + 1, value - 1)) % 256**width
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def cut(rng, data, _others, _tokens):
    return data[: place(rng, data)]


def remove(rng, data, _others, _tokens):
    start, stop = stretch(rng, data)
    return data[:start] + data[stop:]


def repeat(rng, data, _others, _tokens):
    start, stop = stretch(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 30)) + data[stop:]


def move(rng, data, _others, _tokens):
    start, stop = stretch(rng, data)
    rest, at = data[:start] + data[stop:], place(rng, data)
    return rest[:at] + data[start:stop] + rest[at:]


def splice(rng, data, others, _tokens):
    other = rng.choice(others) if others else data
    start, stop = stretch(rng, other)
    at = place(rng, data)
    return rng.choice((data[:at] + other[start:], data[:at] + other[start:stop] + data[at:]))


def insert(rng, data, _others, tokens):
    at, token = place(rng, data), rng.choice(tokens)
    return data[:at] + token + data[rng.choice((at, at + len(token))) :]


CHANGES = (flip, flip, overwrite, number, number, cut, remove, repeat, move, splice, insert)


# Trees of JSON


def mutate_tree(rng: Random, tree: Any, values: Sequence[Any] = VALUES) -> Any:
    """A copy of a tree of dicts and lists in which 1 to 3 nodes are others."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed(rng, tree, values)
    return tree


def _changed(rng, tree, values):
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.05:
        return _other(rng, tree, values)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, new = rng.choice(keys), type(tree)(tree)
    if rng.random() < 0.6:
        new[key] = _changed(rng, tree[key], values)
    elif rng.random() < 0.4:
        del new[key]
    elif isinstance(new, dict):
        new[rng.choice((*keys, "x", "name", ""))] = rng.choice((*values, tree[key]))
    else:
        new.extend([tree[key]] * rng.choice((1, 2, 100)))
    return new


def _other(rng, value, values):
    """Something in place of `value`; a number often becomes one not far from it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        factor = rng.choice((0, -1, 2, 10, 1000, 0.5))
        return type(value)(value * factor + rng.choice((-1, 0, 1)))
    return rng.choice(values)


def text_of(tree: Any) -> bytes:
    """JSON, with what JSON lacks in it, as Python writes it."""
    return json.dumps(tree).encode()


def json_text(rng: Random, data: bytes, others: Sequence[bytes] = (), values=VALUES) -> bytes:
    """A mutant of JSON: of its tree mostly, or of its bytes."""
    if rng.random() < 0.3:
        return mutate(rng, data, others)
    return text_of(mutate_tree(rng, json.loads(data), values))


def json_lines(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of JSON lines, one or two of which are changed."""
    if rng.random() < 0.2:
        return mutate(rng, data, others)
    lines = data.splitlines()
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(lines))
        lines[at] = json_text(rng, data.splitlines()[at], others)
    return b"\n".join(lines) + rng.choice((b"\n", b""))


Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]
