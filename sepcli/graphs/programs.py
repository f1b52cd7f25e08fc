"""Programs of `torch.export`, NAME.pt2: run as data, so that no file runs code.

`torch.export.load` unpickles parts of a file and evaluates others as Python. Here a program is a
list of operations on tensors, read as JSON, its weights are bytes, and only the operations that
are in `graphs/operations.py` are run. The archive also has `extra/sepcli`, a JSON object with what
a graph for whole signals says of itself; see `graphs/whole.py`.
"""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sepcli.errors import SepcliError
from sepcli.graphs.operations import NUMBERS, operation

MAJOR = 8  # version of the form that torch writes; another one may mean something else
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool,
    13: torch.bfloat16,
}  # fmt: skip
FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d,
    4: torch.preserve_format,
}  # fmt: skip
PLAIN = ("as_int", "as_ints", "as_floats", "as_string", "as_strings", "as_bool", "as_bools")
NAMED = {  # kinds of numbers that may be known only while the program runs -> those of a list
    "as_sym_int": "as_sym_ints", "as_sym_float": "as_sym_floats", "as_sym_bool": "as_sym_bools",
}  # fmt: skip
NUMERIC = {"as_int", "as_ints", "as_float", "as_floats", "as_bool", *NAMED, *NAMED.values()}
OTHERS = {
    "as_none", "as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors", "as_complex",
    "as_scalar_type", "as_memory_format", "as_layout", "as_device",
}  # fmt: skip
KINDS = NUMERIC | OTHERS | {*PLAIN}


class Program:
    """A program as a session of ONNX Runtime: `get_inputs`, and `run` by names of inputs.

    Raises ValueError where an archive is none that torch.export wrote, or has more than is run.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu") -> None:
        self.path, self.device = path, torch.device(device)
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
            self.about = json.loads(entries("extra/sepcli"))
            program = json.loads(entries("models/model.json"))
            tensors: dict[str, torch.Tensor] = {}
            for kind in ("weights", "constants"):
                tensors |= _tensors(entries, kind)
        if program["schema_version"]["major"] != MAJOR:
            raise ValueError(f"of version {program['schema_version']['major']}, not {MAJOR}")
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        self._inputs, self._constant = _signature(signature, tensors)
        self._constant = {name: x.to(self.device) for name, x in self._constant.items()}
        self._outputs = [_only(output)[1]["name"] for output in graph["outputs"]]
        self._steps = [_Step(node) for node in graph["nodes"]]
        self._spent = _last_uses(self._steps, {*self._outputs, *self._constant})

    def get_inputs(self) -> list[Any]:
        """Things with the name of each input."""
        return [SimpleNamespace(name=name) for name in self._inputs]

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs for arrays of the inputs."""
        values = dict(self._constant)
        values |= {name: torch.from_numpy(x).to(self.device) for name, x in feed.items()}
        try:
            with torch.inference_mode():
                for step, spent in zip(self._steps, self._spent, strict=True):
                    step.run(values, self.device)
                    for name in spent:
                        values.pop(name, None)
                return [values[name].cpu().numpy() for name in self._outputs]
        except Exception as error:  # whatever operations make of what they were not made for
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SepcliError(f"{self.path}: does not run ({reason}); export it again") from None


class _Step:
    """An operation, the names of what it takes, and of what it gives."""

    def __init__(self, node: dict[str, Any]) -> None:
        self.target = node["target"]
        self.call = operation(self.target)
        self.inputs = [(each["name"], each.get("kind"), each["arg"]) for each in node["inputs"]]
        known = NUMERIC if self.target in NUMBERS else KINDS
        for kind in (_only(arg)[0] for _, _, arg in self.inputs):
            if kind not in known:
                raise ValueError(f"{self.target} of {kind.removeprefix('as_')}")
        self.outputs = [_only(output) for output in node["outputs"]]

    def run(self, values: dict[str, Any], device: torch.device) -> None:
        args, kwargs = [], {}
        for name, kind, arg in self.inputs:
            value = _value(arg, values, device)
            if kind == 2:
                kwargs[name] = value
            else:
                args.append(value)
        result = self.call(*args, **kwargs)
        if len(self.outputs) == 1:
            result = [result]
        for (kind, output), value in zip(self.outputs, result or [], strict=False):
            if kind == "as_tensors":
                values |= {each["name"]: x for each, x in zip(output, value, strict=True)}
            elif kind != "as_none":
                values[output["name"] if kind == "as_tensor" else output["as_name"]] = value

    def names(self) -> set[str]:
        """Of all values that it takes."""
        return {name for _, _, arg in self.inputs for name in _names(arg)}


def _entries(archive):
    """What gives the bytes of an entry of an archive."""
    infos = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
        raise ValueError("it is compressed, which torch.export does not do")

    def read(name: str) -> bytes:
        if name not in infos:
            raise ValueError(f"it has no {name}")
        return archive.read(infos[name])

    return read


def _tensors(entries, kind):
    """The tensors of an archive by name: its weights, or its constants."""
    found = {}
    for name, about in json.loads(entries(f"data/{kind}/model_{kind}_config.json"))[
        "config"
    ].items():
        meta = about["tensor_meta"]
        if about["use_pickle"] or meta is None:
            raise ValueError(f"{name} holds more than numbers")
        size, stride = ([_only(n)[1] for n in meta[key]] for key in ("sizes", "strides"))
        dtype, data = DTYPES[meta["dtype"]], entries(f"data/{kind}/{about['path_name']}")
        if not data:
            found[name] = torch.zeros(size, dtype=dtype)
            continue
        flat = torch.frombuffer(bytearray(data), dtype=dtype)
        found[name] = flat.as_strided(size, stride, meta["storage_offset"]["as_int"])
    return found


def _signature(signature, tensors):
    """(The names of the inputs, what else there is from the start by name)."""
    inputs, constant = [], {}
    for spec in signature["input_specs"]:
        kind, about = _only(spec)
        if kind == "user_input":
            inputs.append(about["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            constant[about["arg"]["name"]] = tensors[about[f"{kind}_name"]]
        else:
            raise ValueError(f"an input is a {kind}")
    if any(_only(spec)[0] != "user_output" for spec in signature["output_specs"]):
        raise ValueError("it changes its own weights")
    return inputs, constant


def _last_uses(steps, kept):
    """Of each step the names that nothing after it takes."""
    spent, later = [], set(kept)
    for step in reversed(steps):
        names = step.names()
        spent.append(names - later)
        later |= names
    return spent[::-1]


def _only(union):
    """(kind, value) of {kind: value}."""
    ((kind, value),) = union.items()
    return kind, value


def _names(arg):
    """Yield the names in an argument."""
    if isinstance(arg, dict):
        for key, value in arg.items():
            if key in ("name", "as_name"):
                yield value
            else:
                yield from _names(value)
    elif isinstance(arg, list):
        for each in arg:
            yield from _names(each)


def _value(arg: dict[str, Any], values: dict[str, Any], device: torch.device) -> Any:
    """What an argument of an operation is."""
    kind, value = _only(arg)
    if kind in PLAIN:
        return value
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_tensors":
        return [values[each["name"]] for each in value]
    if kind in NAMED:
        return _number(value, values)
    if kind in NAMED.values():
        return [_number(each, values) for each in value]
    if kind == "as_optional_tensors":
        return [_value(each, values, device) for each in value]
    if kind == "as_optional_tensor":
        return _value(value, values, device)
    if kind == "as_float":
        return float(value)  # infinity is a text
    if kind == "as_complex":
        return complex(value["real"], value["imag"])
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return FORMATS[value]
    if kind == "as_layout":
        return torch.strided
    return device


def _number(about, values):
    """A number, or what the one of that name is."""
    kind, value = _only(about)
    return values[value] if kind == "as_name" else value


def open_program(path: Path, *, device: str = "cpu") -> Program:
    """Open the program `path`; raises SepcliError."""
    try:
        return Program(path, device)
    except OSError as error:
        raise SepcliError(f"{path}: {error.strerror}; check that it can be read") from None
    except Exception as error:  # whatever the content of a foreign file leads to
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else error
        reason = " ".join(str(reason).split())[:200]
        raise SepcliError(
            f"{path}: not a program that sepcli export made ({reason}); make it again"
        ) from None


def write_program(path: Path, program: Any, about: dict[str, Any]) -> None:
    """Write what torch.export made to `path`, with what there is to say of it."""
    text = json.dumps(about, sort_keys=True)
    torch.export.save(program, path, extra_files={"sepcli": text})
