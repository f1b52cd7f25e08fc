"""YAML settings in, checked keyword arguments out.

A configuration holds only what differs from the defaults; the defaults live in the signatures of
the functions and classes that the settings are for.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

from sepcli.errors import SepcliError
from sepcli.files import read_text

# YAML 1.1, which PyYAML follows, reads `1e-3` as text, `-5:15` as the base-60 number -315, `no` as
# false, and `2024-01-01` as a day. These are the words and numbers of the YAML 1.2 core schema
# (https://yaml.org/spec/1.2.2/#1032-tag-resolution).
_TAG = "tag:yaml.org,2002:"
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|^\.(?:nan|NaN|NAN)$"
)


def load(path: str | PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the YAML file `path` and apply `overrides` such as `train.lr=1e-3`; a nested dict.

    A section that the file writes once and uses twice (`&name`, `*name`) is overridden in one place
    at a time.
    Raises SepcliError for a file that cannot be read, is not YAML, or is not a mapping, and for an
    override that has no `=` or goes through something that is not a mapping.
    """
    # Each alias (*name) becomes a copy, to be overridden alone.
    config = _plain(_parse(read_text(path), path))
    config = {} if config is None else config
    if not isinstance(config, dict):
        raise SepcliError(f"{path}: holds no settings; write `section: {{key: value}}` lines")
    for override in overrides:
        _override(config, override)
    return config


def dump(config: dict[str, Any]) -> str:
    """The settings as YAML text that `load` reads back to the same values."""
    import yaml

    dumper = _of_yaml_12(yaml.SafeDumper, quotes=("bool", "timestamp"))
    for kind in (int, float):
        dumper.add_multi_representer(kind, getattr(dumper, f"represent_{kind.__name__}"))
    return yaml.dump(_plain(config), Dumper=dumper, sort_keys=False)


def check_keys(
    fn: Callable[..., Any], settings: Any, *, section: str = "", reserved: Sequence[str] = ()
) -> dict[str, Any]:
    """Check `settings` against the keyword arguments of `fn`; return them as `fn` wants them.

    section: where they stand in the file, for the messages. reserved: arguments of `fn` that the
    program sets itself. Values must fit the type of the argument's default: whole numbers such as
    1e4 become int, lists become tuples, a pair of numbers may be written LO:HI or as one number.
    Raises SepcliError for an unknown or missing key and for a value that does not fit.
    """
    if not isinstance(settings, dict):
        raise SepcliError(f"{section or 'settings'}: expected `key: value` lines, got {settings!r}")
    known = _keywords(fn, reserved)
    if unknown := [key for key in settings if key not in known]:
        raise SepcliError(_unknown(unknown, known, section))
    missing = [k for k, p in known.items() if p.default is p.empty and k not in settings]
    if missing:
        raise SepcliError(f"{_dotted(section, missing[0])} is missing; add it to the configuration")
    return {k: _bare(_fit(v, known[k].default, _dotted(section, k))) for k, v in settings.items()}


def defaults(fn: Callable[..., Any], *, reserved: Sequence[str] = ()) -> dict[str, Any]:
    """The keyword arguments of `fn` that have a default value, with that value."""
    return {k: p.default for k, p in _keywords(fn, reserved).items() if p.default is not p.empty}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two nested dicts, one `a.b: 1 -> 2` for each changed value."""
    old, new = _flatten(_plain(old)), _flatten(_plain(new))
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in keys
        if key not in old or key not in new or old[key] != new[key]
    ]


def _parse(text, where):
    import yaml

    try:
        return yaml.load(text, Loader=_unique_keys(_with_texts(_of_yaml_12(yaml.SafeLoader))))
    except RecursionError:
        raise SepcliError(f"{where}: nested too deeply; flatten it") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SepcliError(f"{where}: not valid YAML ({reason})") from None


class _Int(int):
    """A whole number that knows how it was written: a folder may be called 0123."""


class _Float(float):
    """A number that knows how it was written: a folder may be called 1e3."""


def _of_yaml_12(base, quotes=()):
    """A PyYAML loader or dumper of the words and numbers of YAML 1.2 instead of those of 1.1.

    quotes: kinds of YAML 1.1 that text should not look like either, for a dumper.
    """
    kind = type(base.__name__, (base,), {})
    dropped = {f"{_TAG}{name}" for name in ("bool", "int", "float", "timestamp", "value")}
    dropped -= {f"{_TAG}{name}" for name in quotes}
    kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in dropped]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    kind.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))
    kind.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    kind.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
    return kind


def _with_texts(loader):
    """A PyYAML loader whose numbers know how they were written."""
    for name, kind in (("int", _Int), ("float", _Float)):

        def number(self, node, name=name, kind=kind):
            value: Any = kind(getattr(self, f"construct_yaml_{name}")(node))
            value.text = node.value
            return value

        loader.add_constructor(f"{_TAG}{name}", number)
    return loader


def _unique_keys(loader):
    """A PyYAML loader for which the same key twice is an error instead of the last one winning."""
    import yaml

    def mapping(self, node):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(None, None, f"{key} is set twice", node.start_mark)
        return yaml.SafeLoader.construct_mapping(self, node, deep=True)

    loader.add_constructor("tag:yaml.org,2002:map", mapping)
    return loader


def _override(config, override):
    path, equals, value = override.partition("=")
    *sections, key = path.split(".")
    if not equals or not key or not all(sections):
        raise SepcliError(f"--set {override}: expected A.B=VALUE, for example train.lr=1e-3")
    for section in sections:
        if config.get(section) is None:
            config[section] = {}
        config = config[section]
        if not isinstance(config, dict):
            raise SepcliError(f"--set {override}: {section} is a value, it has no settings")
    config[key] = _parse(value, f"--set {override}")


def _keywords(fn, reserved):
    parameters = inspect.signature(fn).parameters.values()
    named = (p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return {p.name: p for p in named if p.name not in reserved}


def _unknown(unknown, known, section):
    from difflib import get_close_matches

    names = ", ".join(_dotted(section, key) for key in unknown)
    near = get_close_matches(str(unknown[0]), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown setting {names}; {hint}known: {', '.join(known)}"


def _fit(value, default, name):
    """`value` as the type of `default`, or SepcliError."""
    if isinstance(default, tuple):
        return _fit_tuple(value, default, name)
    if isinstance(default, bool):
        return _expect(isinstance(value, bool), value, name, "true or false")
    if isinstance(default, int):
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        whole = isinstance(value, int) and not isinstance(value, bool)
        return _expect(whole, value, name, "a whole number")
    if isinstance(default, float):
        return float(_expect(_is_number(value), value, name, "a number"))
    if isinstance(default, str):
        return _fit_text(value, name)
    return value


def _bare(value):
    """`value` without how its numbers were written; a section keeps that until it is checked."""
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    if isinstance(value, _Int | _Float):
        return int(value) if isinstance(value, int) else float(value)
    return value


def _fit_text(value, name):
    """Text as it was written, also if it looks like a number."""
    value = getattr(value, "text", value)
    return _expect(isinstance(value, str), value, name, "text in quotes")


def _fit_tuple(value, default, name):
    pair = len(default) == 2 and all(_is_number(item) for item in default)
    if pair:
        value = _fit_range(value)
        valid = len(value) == 2 and all(_is_number(item) for item in value)
        return _expect(valid, value, name, "LO:HI, [LO, HI] or one number")
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if default == () or isinstance(default[0], str):
        return tuple(_fit_text(item, name) for item in values)
    return values


def _fit_range(value):
    if isinstance(value, str) and ":" in value:
        value = [_parse(end, value) for end in value.split(":")]
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _is_number(value):
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and not math.isnan(value)


def _expect(valid, value, name, what):
    if not valid:
        raise SepcliError(f"{name} must be {what}, not {value!r}")
    return value


def _dotted(section, key):
    return f"{section}.{key}" if section else str(key)


def _plain(value):
    """A copy of `value`, no part of it in two places, with tuples as lists as YAML and JSON do."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _flatten(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        name = _dotted(prefix, key)
        flat |= _flatten(value, name) if isinstance(value, dict) and value else {name: value}
    return flat
