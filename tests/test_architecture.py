"""Imports flow one way, and the command line starts light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sepcli
from sepcli.cli import COMMANDS

ROOT = Path(sepcli.__file__).parent
CONTRACT = next(
    contract
    for contract in tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"][
        "importlinter"
    ]["contracts"]
    if contract["type"] == "layers"
)
ROOMS = [set(layer.split(" | ")) for layer in reversed(CONTRACT["layers"])]
LEAVES = {"errors", "config", "version"}
LOWEST = {"files", "temporary"}  # rooms that leaves may read text by, which import no others
TOP = {"__init__", "__main__"}  # open the doors of all rooms, and belong to none
HEAVY = {
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "soundfile",
    "soxr",
    "h5py",
    "museval",
    "onnxruntime",
    "pesq",
    "pystoi",
    "rich",
    "yaml",
}
FILES = sorted(ROOT.rglob("*.py"))


def room_of(name):
    return next((level for level, rooms in enumerate(ROOMS) if name in rooms), None)


def imports(tree):
    """Yield the modules that a file imports anywhere, as dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_to_rooms_on_the_left(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own in TOP or own in LEAVES:
        return
    assert room_of(own) is not None, f"{own} is no room: give the concept a place in pyproject.toml"
    for name in imports(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        if package != "sepcli" or not rest:
            continue
        other = rest.split(".")[0]
        if other in LEAVES or other == own or other.startswith("__"):
            continue
        assert room_of(other) < room_of(own), f"{own} imports {name}"


def test_the_contract_lists_exactly_the_rooms_that_there_are():
    there = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.name[0] not in "_."}
    assert there - LEAVES - {"pretrained", "py.typed"} == set().union(*ROOMS)


def first_line(room):
    """The first line of the docstring of a room, a package or a module."""
    path = ROOT / room / "__init__.py"
    tree = ast.parse((path if path.exists() else ROOT / f"{room}.py").read_text())
    return ast.get_docstring(tree).splitlines()[0]


def test_the_map_in_contributing_is_the_contract_in_the_words_of_the_rooms():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    rooms = [room for layer in CONTRACT["layers"] for room in layer.split(" | ")]
    rows = [f"| `{room}` | {first_line(room)} |" for room in rooms]
    assert "|---|---|\n" + "\n".join(rows) + "\n\n" in text


FOLDERS = sorted({path.parent for path in FILES})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_is_seen_at_a_glance(folder):
    count = sum(path.is_file() for path in folder.iterdir())
    assert count <= 15 or folder.name == "commands"  # which grows by its items


def test_models_are_few():
    files = (ROOT / "pretrained").iterdir()  # weights, a card and graphs of each
    assert len({path.name.partition(".")[0] for path in files}) <= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_read_in_one_go(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_leaves_import_only_leaves():
    for leaf in LEAVES:
        for name in imports(ast.parse((ROOT / f"{leaf}.py").read_text())):
            if name.startswith("sepcli."):
                assert name.split(".")[1] in LEAVES | LOWEST


def test_what_the_leaves_use_imports_only_errors_and_each_other():
    for room in LOWEST:
        found = imports(ast.parse((ROOT / f"{room}.py").read_text()))
        own = {name.split(".")[1] for name in found if name.startswith("sepcli.")}
        assert own <= LOWEST | {"errors"}


def modules_after(code):
    """The modules that are loaded after running `code` in a new Python."""
    code += "\nimport sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(result.stdout.splitlines()[-1].split())


def run(*args):
    """Code that runs the command line with `args`."""
    return f"from sepcli.cli import main\nmain({list(args)!r}, standalone_mode=False)"


@pytest.mark.parametrize("args", [(), *((name,) for name in COMMANDS)])
def test_help_imports_nothing_heavy(args):
    assert not modules_after(run(*args, "--help")) & HEAVY


# What takes milliseconds and what only work needs; click itself brings some on some systems.
LATER = {
    *("dataclasses", "difflib", "email", "importlib.metadata", "json", "logging"),
    *(
        "multiprocessing",
        "pathlib",
        "random",
        "socket",
        "tempfile",
        "unicodedata",
        "sepcli.cluster",
        "sepcli.files",
    ),
}


@pytest.mark.parametrize("args", [(), ("separate",)])
def test_a_command_starts_with_little_more_than_click(args):
    started = modules_after(run(*args, "--help")) - modules_after("import click")
    assert not started & LATER


def test_mix_imports_neither_torch_nor_scipy_signal(tmp_path):
    out = str(tmp_path / "mix.tar")
    code = run("mix", "-n", "1", "--duration", "0.5", "-o", out)
    assert not modules_after(code) & {"torch", "rich", "h5py", "scipy.signal"}


def test_waiting_threads_sleep_so_that_the_commands_of_a_pipe_do_not_slow_each_other():
    code = "import os; os.environ.pop('OMP_WAIT_POLICY', None)\nimport sepcli.cli\n"
    modules_after(code + "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'")


def test_the_package_itself_imports_nothing_heavy():
    assert not modules_after("import sepcli; dir(sepcli)") & HEAVY


def offered_to_type_checkers():
    """{name: "module:name"} of what the package imports under TYPE_CHECKING."""
    tree = ast.parse(Path(sepcli.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {x.names[0].asname: f"{x.module}:{x.names[0].name}" for x in imports}


def test_everything_the_package_offers_is_there():
    for name in sepcli._API:
        assert getattr(sepcli, name).__doc__
    assert offered_to_type_checkers() == sepcli._API
    assert sepcli.__all__ == sorted(sepcli._API)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = sepcli.lode
