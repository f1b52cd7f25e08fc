"""What runs on the workers of a cluster. Imported there, so it holds nothing of the driver."""

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

from sepcli.errors import UsageError
from sepcli.version import __version__

_local = threading.local()  # the functions of this thread, and what they have loaded


def pack(function: Callable[..., Any]) -> bytes:
    """A picklable function, and where it was called, for `call`."""
    return pickle.dumps((__version__, os.getcwd(), pickle.dumps(function)))


def call(packed: bytes, task: Any) -> tuple[Any, dict[str, Any]]:
    """(function(task), {"worker", "seconds"}); unpacked once per thread, a function loads once.

    Relative paths are seen from where the driver was started. Raises UsageError where this is
    another version of the package.
    """
    start = time.monotonic()
    result = _function(packed)(task)
    return result, {"worker": _address(), "seconds": round(time.monotonic() - start, 3)}


def _address():
    from distributed import get_worker

    return get_worker().address


def _function(packed):
    known = _local.__dict__.setdefault("known", {})
    if packed not in known:
        version, folder, function = pickle.loads(packed)
        if version != __version__:
            raise UsageError(
                f"a worker has sepcli {__version__}, and this is {version}; install the same "
                "version everywhere"
            )
        with contextlib.suppress(OSError):  # as where all inputs and outputs are URLs
            os.chdir(folder)
        known.clear()  # one run at a time: models take memory
        known[packed] = pickle.loads(function)
    return known[packed]
