"""CPU time of `sepcli --help` and of every `COMMAND --help`, beside `python -c 'import click'`."""

import os
import resource
import subprocess
import sys

from sepcli.cli import COMMANDS

RUNS = 11
# Byte code is kept, as where a package is installed.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def cpu_seconds(*arguments):
    """The least CPU time of several runs of a new Python, in seconds."""
    times = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main():
    click = cpu_seconds("-c", "import click")
    print(f"import click         {1000 * click:6.1f} ms CPU")
    for command in ("", *COMMANDS):
        seconds = cpu_seconds("-m", "sepcli", *command.split(), "--help")
        name = f"sepcli {command} --help".replace("  ", " ")
        print(f"{name:20} {1000 * seconds:6.1f} ms CPU, {seconds / click:.2f} x click")


if __name__ == "__main__":
    main()
