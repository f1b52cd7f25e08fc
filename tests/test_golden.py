"""What `sepcli mix` makes is what it made, and commands have the flags that they are known for.

After a change that is meant: `python -m tests.golden.make_mix`, `python -m tests.golden.make_flags`
"""

import json

import pytest

from tests.golden import make_flags, make_mix

KEPT = json.loads(make_mix.FILE.read_text())


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    make_mix.write_recordings(folder)
    return folder


def assert_close(value, kept):
    """Equal, but for the last digits of numbers, which processors compute differently."""
    if isinstance(kept, dict):
        assert list(value) == list(kept)
        for key, entry in kept.items():
            assert_close(value[key], entry)
    elif isinstance(kept, list):
        assert len(value) == len(kept)
        for entry in zip(value, kept, strict=True):
            assert_close(*entry)
    elif isinstance(kept, float):
        assert value == pytest.approx(kept, rel=1e-5, abs=1e-4)
    else:
        assert value == kept


@pytest.mark.parametrize("name", make_mix.CASES)
def test_mix_makes_what_it_made(name, recordings, monkeypatch):
    monkeypatch.chdir(recordings)
    made = make_mix.made(*make_mix.CASES[name])
    assert_close(made["samples"], KEPT[name]["samples"])
    assert made["sha256"] == KEPT[name]["sha256"]


def test_the_flags_of_every_command_are_those_that_are_known():
    assert make_flags.listed() == make_flags.FILE.read_text()
