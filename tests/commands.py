"""The command line inside the process of the tests, and what it leaves in a folder."""

from click.testing import CliRunner

from sepcli.cli import main


def run(*args, code=0):
    """The result of `sepcli` with `args`, which must end with `code`."""
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == code, result.output
    return result


def contents(folder):
    """Every file below a folder: its bytes by its name."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
