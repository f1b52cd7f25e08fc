"""Mutants that get past the first check: what is inside a format is changed, and packed again."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from random import Random

import yaml

from tests.sounds import joined, pages
from tests.torture.mutation import TOKENS, VALUES, json_text, mutate, mutate_tree

CANARY = b"touch pickle-was-here"
# What a pickle could do: call a function, import a module, fill the memory, loop, nest.
PICKLES = (
    b"cos\nsystem\n(S'" + CANARY + b"'\ntR.",
    b"c__builtin__\neval\n(S'__import__(\"os\").system(\"" + CANARY + b"\")'\ntR.",
    b"cbuiltins\nexec\n(S'open(\"pickle-was-here\",\"w\")'\ntR.",
    b"csubprocess\nPopen\n(S'" + CANARY + b"'\ntR.",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nload\n(S'/etc/passwd'\ntR.",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"ccollections\nOrderedDict\n(tR",
    b"\x80\x02}q\x00.", b"(lp0\n", b"L" + b"9" * 5000 + b"L\n", b"h\xff", b"Q", b"N",
    b"\x8a\xff" + b"\xff" * 255, b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"(" * 500,
    b"t" * 50, b"\x8e" + b"\xff" * 8, b"2" * 100, b"b", b"R", b"u.", b"]a", b"\x93", b"\x92",
)  # fmt: skip


def zipped(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of torch's archives: of a pickle or a storage in it, of its names, or of all."""
    if rng.random() < 0.2:
        return mutate(rng, data, others)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickles = [name for name in members if name.endswith(".pkl")]
    name = rng.choice(pickles if rng.random() < 0.8 else list(members))
    members[name] = mutate(rng, members[name], (), PICKLES + TOKENS[:8])
    if rng.random() < 0.1:
        members[rng.choice(("../../escaped", "/tmp/escaped", "archive/data/0"))] = members.pop(name)
    stream = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def program(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of a program of torch.export: of its JSON, of what it says of itself, or of all."""
    if rng.random() < 0.2:
        return mutate(rng, data, others)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    texts = [name for name in members if name.endswith((".json", "extra/sepcli"))]
    name = rng.choice(texts)
    members[name] = json_text(rng, members[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def pickled(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of a bare pickle, as torch wrote them before it had archives."""
    return mutate(rng, data, others, PICKLES)


def safetensors(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of a model file: of its header, of what sepcli says in it, or of its bytes."""
    if (kind := rng.random()) < 0.2:
        return mutate(rng, data, others)
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    if kind < 0.4:
        header = mutate_tree(rng, header)
    else:
        about = header["__metadata__"]["sepcli"].encode()
        header["__metadata__"]["sepcli"] = json_text(rng, about).decode(errors="replace")
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def tar(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of an archive: of a header with the right sum, a member, their order, or bytes."""
    if (kind := rng.random()) < 0.25:
        return mutate(rng, data, others)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(m.offset, m.offset_data, m.size, m.name) for m in archive]
    start, content, size, name = rng.choice(members)
    if kind < 0.6:
        header = mutate(rng, data[start : start + 512]).ljust(512, b"\0")[:512]
        return data[:start] + summed(header) + data[start + 512 :]
    stop = content + -(-size // 512) * 512
    if kind < 0.75:
        return data[:start] + data[stop:] if rng.random() < 0.5 else data[:stop] + data[start:]
    inner = data[content : content + size]
    inner = json_text(rng, inner) if name.endswith("json") else mutate(rng, inner)
    header = data[start : start + 124] + b"%011o\0" % len(inner) + data[start + 136 : start + 512]
    inner += bytes(-len(inner) % 512)
    return data[:start] + summed(header) + inner + data[stop:]


def summed(header: bytes) -> bytes:
    """A tar header with the checksum that it should have."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def ogg(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of an Ogg file, mostly with the checksums that its pages should have."""
    if rng.random() < 0.4:
        return mutate(rng, data, others)
    changed = pages(data)
    at = rng.randrange(len(changed))
    page = bytearray(mutate(rng, bytes(changed[at])))
    changed[at] = page.ljust(27, b"\0")
    if rng.random() < 0.2:
        changed.insert(rng.randrange(len(changed)), changed[at])
    return joined(changed)


SIZES = tuple(v for v in VALUES if not isinstance(v, int) or isinstance(v, bool) or v <= 1000)


def yaml_text(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of a configuration, of its tree or of its text."""
    if rng.random() < 0.4:
        return mutate(rng, data, others)
    tree = mutate_tree(rng, yaml.load(data, yaml.FullLoader), SIZES)
    return yaml.dump(tree, sort_keys=False).encode(errors="surrogatepass")
