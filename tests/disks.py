"""Disks that are full, for the tests of whatever writes."""

import contextlib
import resource


@contextlib.contextmanager
def disk_of(size):
    """A disk on which no file becomes longer than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
