"""Mutants of packs with the seal that they should have, and of graphs."""

import io
import json
import re
import zlib
from collections.abc import Sequence
from random import Random

import h5py
import numpy as np

from sepcli.samples.packwriting import JSON
from sepcli.samples.seal import write_seal
from tests.torture.mutation import LARGE, NUMBERS, json_text, mutate, mutate_tree

TEXTS = (b"", b"../../x", b"/etc/passwd", b"\xff", b"a\nb", b"flac", b"float32", b"bytes", b"x")


def pack(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of a pack: raw, of its seal, or of its columns and of HDF5's own bytes, resealed."""
    if (kind := rng.random()) < 0.15:
        return mutate(rng, data, others)
    if kind < 0.3:
        return with_seal(data, json_text(rng, seal_of(data)))
    if kind < 0.45:
        return bytes(resealed(mutate(rng, data, others), data))
    return bytes(resealed(edited(rng, data), data))


def seal_of(data):
    """The JSON text of a pack's seal."""
    return data[data.index(b"\n") + 1 : 512].rstrip(b"\0")


def with_seal(data, text):
    """A pack with another text in its seal, and the checksum of that."""
    head = re.sub(rb"[0-9a-f]{8}\n$", b"%08x\n" % zlib.crc32(text), data[: data.index(b"\n") + 1])
    return (head + text)[:512].ljust(512, b"\0") + data[512:]


def resealed(data, like):
    """A pack with a seal over what it holds now, as if it was written so."""
    stream = io.BytesIO(data)
    write_seal(stream, 512, json.loads(seal_of(like))["pcm"])
    return stream.getvalue()


def edited(rng, data):
    """The pack with a column, an attribute or an item of a group changed."""
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        groups = []
        file.visititems(lambda name, thing: groups.append(name) if "pcm" in _keys(thing) else None)
        group = file[rng.choice(sorted(groups))]
        if JSON in groups and rng.random() < 0.3:
            _json(rng, file[JSON])
        for _ in range(rng.choice((1, 1, 2))):
            change = rng.choice((_column, _column, _column, _attribute, _shape))
            change(rng, group)
    return stream.getvalue()


def _keys(thing):
    return thing.keys() if isinstance(thing, h5py.Group) else ()


def _column(rng, group):
    """A number or a name of an item is another."""
    name = rng.choice(sorted(group))
    values = group[name][()]
    if not isinstance(values, np.ndarray) or values.ndim != 1 or not values.size:
        return  # what was changed before
    at = rng.randrange(values.size)
    if values.dtype.kind == "S":
        values[at] = rng.choice(TEXTS)
    else:
        info = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
        value = rng.choice((*NUMBERS, *LARGE, -1, int(values[at]) + 1, int(values[at]) * 2))
        values[at] = min(max(value, info.min), info.max) if info else value
    group[name][...] = values


def _attribute(rng, group):
    name = rng.choice(sorted(group.attrs))
    if rng.random() < 0.2:
        del group.attrs[name]
        return
    value = rng.choice(
        (0, -1, 2**31, 10**6, "", "x", "flac", "bytes", "int16", "../x", 0.5, [1, 2])
    )
    group.attrs[name] = value


def _shape(rng, group):
    """A column is of another length, kind, or not there."""
    name = rng.choice(sorted(group))
    values = group[name][()]
    del group[name]
    new = rng.choice((values[:-1], np.repeat(values, 3), values.reshape(1, -1), None, 5, "x", [[]]))
    if new is not None:
        group[name] = new


def _json(rng, group):
    """The JSON of the first sample is another, of the same length."""
    stored = group["pcm"][()].tobytes()
    size = int(group["sizes"][0])
    text = json_text(rng, stored[:size])[:size].ljust(size)
    group["pcm"][:size] = np.frombuffer(text, np.uint8)
    sums = group["crc32"][()]
    sums[0] = zlib.crc32(text)
    group["crc32"][...] = sums


def graph(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A mutant of an ONNX file: raw, of what sepcli says in it, or of its nodes and shapes."""
    if (kind := rng.random()) < 0.4:
        return mutate(rng, data, others)
    import onnx

    model = onnx.load_from_string(data)
    if kind < 0.75:
        entry = next(each for each in model.metadata_props if each.key == "sepcli")
        if rng.random() < 0.7:
            tree = mutate_tree(rng, json.loads(entry.value))
            entry.value = json.dumps(tree)
        else:
            entry.value = json_text(rng, entry.value.encode()).decode(errors="replace")
        return model.SerializeToString()
    _edit(rng, model.graph)
    return model.SerializeToString()


def _edit(rng, graph):
    change = rng.randrange(6)
    if change == 0 and graph.node:
        del graph.node[rng.randrange(len(graph.node))]
    elif change == 1:
        node = rng.choice(graph.node)
        node.op_type = rng.choice(("Loop", "Expand", "Tile", "Relu", "Concat", "x", "If", "Gather"))
    elif change == 2 and graph.initializer:
        weight = rng.choice(graph.initializer)
        weight.dims[:] = [rng.choice((0, 1, -1, 7, 2**31, 2**62)) for _ in weight.dims]
    elif change == 3 and graph.initializer:
        weight = rng.choice(graph.initializer)
        weight.data_location = 1  # somewhere else
        for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "100")):
            weight.external_data.add(key=key, value=value)
    elif change == 4:
        node = rng.choice(graph.node)
        names = [name for each in graph.node for name in each.output] or ["x"]
        if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
    else:
        value = rng.choice([*graph.input, *graph.output])
        for dim in value.type.tensor_type.shape.dim:
            if rng.random() < 0.5:
                dim.dim_value = rng.choice((0, 1, 3, 2**31, -1))
