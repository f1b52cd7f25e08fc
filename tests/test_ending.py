"""A process that was started for sepcli ends with everything done but the freeing of objects."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, threading, time

class Freed:
    def __del__(self):
        print("freed")

def late():
    time.sleep(0.2)
    print("thread")

from sepcli.__main__ import main
freed = Freed()
atexit.register(print, "function")
threading.Thread(target=late).start()
main()
"""


def run(path, *args):
    path.write_text(SCRIPT)
    return subprocess.run([sys.executable, path, *args], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("args", "code"), [(["--version"], 0), (["info", "x.bin"], 1), (["-x"], 2)]
)
def test_threads_and_functions_end_and_nothing_is_freed(tmp_path, args, code):
    done = run(tmp_path / "sepcli", *args)
    assert done.returncode == code
    assert done.stdout.splitlines()[-2:] == ["thread", "function"]


def test_a_process_that_was_started_for_something_else_ends_as_ever(tmp_path):
    done = run(tmp_path / "other.py", "-x")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-3:] == ["thread", "function", "freed"]


@pytest.mark.parametrize(
    ("args", "code", "end"),
    [(["mix", "--help"], 0, "Show this message and exit."), (["eval", "no"], 1, "the spelling")],
)
def test_as_a_module_it_says_all_of_it_and_its_exit_code(args, code, end):
    command = [sys.executable, "-m", "sepcli", *args]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert (done.stdout + done.stderr).rstrip().endswith(end)
