"""What holds for all tests, and for every process that they start."""

import importlib.metadata
import importlib.util
import os
import signal

import hypothesis
import pytest

# The same examples whenever CI runs, so that it reports changes of the code alone; others each time
# anywhere else, where somebody is there to look at a new find.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("random", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "random")

# One thread per process: several would wait for each other whenever the machine is busy, which
# makes the small models of the tests ten times slower. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# Nothing is kept between runs: tests of the cache have one of their own.
os.environ["SEPCLI_CACHE"] = "off"

# A shell starts what it puts in the background with SIGINT ignored, and processes inherit that:
# the tests that interrupt theirs would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def museval_metrics():
    """museval/metrics.py by itself: the package around it needs ffmpeg when imported."""
    path = importlib.metadata.distribution("museval").locate_file("museval/metrics.py")
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
