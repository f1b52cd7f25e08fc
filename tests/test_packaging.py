"""What pyproject.toml says of the package is true."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.commands import doctor

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORTED_AS = {
    "pymss-core": "pymss_core",
    "pyyaml": "yaml",
    "import-linter": "importlinter",
    "python-multipart": "python_multipart",
}
TOOLS = {
    "build",
    "import-linter",
    "pytest",
    "pyright",
    "pytest-console-scripts",
    "ruff",
}  # run, not imported


def names(requirements):
    """The modules that requirements stand for; those on the package itself stand for none."""
    packages = (re.match(r"[\w.-]+", each)[0].lower() for each in requirements)
    return {IMPORTED_AS.get(name, name) for name in packages if name not in TOOLS | {"sepcli"}}


def trees(folder):
    """All nodes of the Python files in a folder."""
    for path in (ROOT / folder).rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def imports(folder):
    """The top-level packages that are imported and are neither Python's nor our own."""
    found = set()
    for node in trees(folder):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"sepcli", "tests"}


def mentioned(folder):
    """The packages that are imported, or named as text: some are only looked up."""
    texts = {n.value for n in trees(folder) if isinstance(n, ast.Constant) and type(n.value) is str}
    return imports(folder) | texts


def test_the_package_imports_what_it_depends_on_and_nothing_else():
    extras = set(EXTRAS) - {"test", "dev", "all"}
    optional = set().union(*(names(EXTRAS[extra]) for extra in extras))
    asked_for = {"wandb"}  # by a configuration, which says how to get it
    assert imports("sepcli") - optional - asked_for == names(PROJECT["dependencies"])


def test_the_doctor_looks_for_what_is_needed_and_for_what_is_optional():
    assert set(doctor.REQUIRED) == {
        re.match(r"[\w.-]+", each)[0] for each in PROJECT["dependencies"]
    }
    assert {extra: list(found) for extra, (found, _) in doctor.OPTIONAL.items()} == {
        extra: [re.match(r"[\w.-]+", each)[0] for each in packages]
        for extra, packages in EXTRAS.items()
        if extra not in ("test", "dev", "all")
    }


def test_every_extra_has_code_behind_it():
    for extra in set(EXTRAS) - {"test", "dev", "all"}:
        assert names(EXTRAS[extra]) <= mentioned("sepcli"), extra
    narrowed = {"aiobotocore"}  # whose extra says which boto3 goes with s3fs
    assert names(EXTRAS["test"]) - narrowed <= mentioned("tests")


@pytest.mark.parametrize("extra", ["test", "all"])
def test_an_extra_may_stand_for_others(extra):
    [others] = re.findall(r"sepcli\[([\w,]+)\]", " ".join(EXTRAS[extra]))
    assert set(others.split(",")) <= EXTRAS.keys()


def test_the_version_is_written_once():
    assert "version" in PROJECT["dynamic"]
    result = CliRunner().invoke(main, ["--version"], prog_name="sepcli")
    assert result.output == f"sepcli, version {sepcli.__version__}\n"
    assert sepcli.__version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("pip", "compiler", "code", "line"),
    [
        ("exit 0", "true", 0, ""),
        ("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1", "true", 1,
         "The disk is full: make room"),
        ("echo \"error: command 'gcc' failed\" >&2; exit 1", "no-such-compiler", 0,
         "a C compiler is missing (Debian: apt install gcc python3-dev)"),
        ("echo 'x.c:9: fatal error: Python.h: No such file or directory' >&2; exit 1", "true", 0,
         "Python's headers are missing"),
        ("echo 'ERROR: Could not find a version' >&2; exit 1", "true", 0,
         "ERROR: Could not find a version. Scores are without it until"),
    ],
)  # fmt: skip
def test_an_installation_goes_on_without_pesq_and_says_why(pip, compiler, code, line):
    result = subprocess.run(
        [ROOT / ".ci/install-pesq", "sh", "-c", pip],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CC": compiler},
    )
    assert (result.returncode, result.stdout) == (code, "")
    assert line in result.stderr
    assert result.stderr.count("\n") == bool(line)
