"""`python -m sepcli`, and the entry point of the `sepcli` script.

Python frees what was imported piece by piece when it ends: a sixth of the time of `sepcli --help`,
and 0.3 s where torch was used. A process that was started for sepcli ends without that.
"""

import atexit
import os
import sys
from pathlib import Path

_codes: list[int] = []  # the exit code, once it is known


def _end():
    """End the process. It runs last: threads and all other functions of `atexit` are done then."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # closed or full, of which Python tells
        return
    if _codes:
        os._exit(_codes[-1])


atexit.register(_end)  # before anything else is imported, so that it runs last

from sepcli import cli  # noqa: E402


def main() -> None:
    """Run the command that the process was started with."""
    try:
        cli.main()
    except SystemExit as end:
        script = getattr(sys.modules["__main__"], "__file__", None) or ""
        if isinstance(end.code, int) and (script == __file__ or Path(script).stem == "sepcli"):
            _codes.append(end.code)
        raise


if __name__ == "__main__":
    main()
