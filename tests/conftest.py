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


@pytest.fixture(scope="module")
def separator():
    """The separator of a tiny model."""
    from tests.separators import tiny

    return tiny()


@pytest.fixture(scope="module")
def model_file(separator, tmp_path_factory):
    """The path of the model file of `separator`."""
    from tests.separators import write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny.safetensors", separator)


@pytest.fixture
def track(tmp_path):
    """The path of a short stereo recording at 44.1 kHz."""
    from tests.separators import write_track

    return write_track(tmp_path / "track.wav")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which becomes the working directory, with tiny.yaml in it."""
    from tests.trainings import TINY

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{name: path} of small models for a server."""
    from tests.serving import make_models

    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    from tests.serving import LIMITS, Served

    with Served(models, tmp_path_factory.mktemp("jobs"), *LIMITS) as running:
        yield running


@pytest.fixture
def served(server):
    """A server that all tests of a module share; each leaves it as it was."""
    yield server
    server.until(lambda: server.left() == [])
    assert "Traceback" not in server.told()
