"""The flags of every command, so that none comes, goes or changes unnoticed: flags.txt.

$ python -m tests.golden.make_flags      # after a change that is meant
"""

from pathlib import Path

import click

from sepcli import cli

FILE = Path(__file__).with_name("flags.txt")


def listed():
    """A line for each argument and option of each command: names, values, default."""
    lines = [f"sepcli {_described(parameter)}" for parameter in cli.main.params]
    for name in cli.COMMANDS:
        command = cli.main.get_command(click.Context(cli.main), name)
        lines += [f"{name} {_described(parameter)}" for parameter in command.params]
    return "\n".join([*lines, ""])


def _described(parameter):
    if isinstance(parameter, click.Argument):
        return parameter.make_metavar(click.Context(cli.main))
    names = "/".join([", ".join(parameter.opts), *parameter.secondary_opts])
    if not parameter.is_flag and not parameter.count:
        names += f" {parameter.make_metavar(click.Context(cli.main))}"
    more = " (repeatable)" if parameter.multiple else ""
    default = parameter.to_info_dict()["default"]
    shown = default not in (None, (), "") and not parameter.is_flag
    return names + more + (f" = {default}" if shown else "")


if __name__ == "__main__":
    FILE.write_text(listed())
