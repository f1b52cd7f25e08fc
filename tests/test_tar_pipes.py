"""Sample tars through pipes: nothing waits, nothing grows, whoever leaves."""

import io
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from sepcli.errors import SepcliError
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.samples import make_sample, to_tar, tone
from tests.tars import members_of

# Time and memory


class Slow(io.RawIOBase):
    """A pipe whose writer has written `data` and no more: reading on is an error."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.data.readinto(buffer)
        if not count:
            raise AssertionError("waits for what comes after the sample")
        return count


def test_a_sample_is_handed_on_before_anything_follows_it():
    data = to_tar([make_sample(0)], close=False)
    sample = next(read_samples("-", stdin=io.BufferedReader(Slow(data))))
    np.testing.assert_array_equal(sample.audio("mix"), tone(0))


def test_through_a_pipe_the_first_sample_arrives_before_the_second_is_written():
    program = """if True:
        import sys
        from sepcli.samples.streams import open_sample_writer
        from tests.samples import make_sample
        with open_sample_writer("-") as writer:
            for index in range(2):
                writer.write(make_sample(index))
                sys.stdin.readline()  # until the reader says that it has it
    """
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": buffered}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        timer = threading.Timer(30, process.kill)  # rather than wait for each other
        timer.start()
        stream = read_samples("-", stdin=process.stdout)
        for index in range(2):
            assert next(stream).key == f"00000{index}"
            process.stdin.write(b"\n")
            process.stdin.flush()
        assert list(stream) == []
        timer.cancel()
    assert process.returncode == 0


def test_memory_does_not_grow_with_the_number_of_samples():
    sample = make_sample(frames=16000, roles=("mix", "ref.speech", "ref.noise"))
    size = len(to_tar([sample]))
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb") as pipe, open_sample_writer("-", stdout=pipe) as writer:
            for _ in range(300):
                writer.write(sample)

    thread = threading.Thread(target=write)
    with open(reading, "rb") as pipe:
        tracemalloc.start()
        thread.start()
        count = sum(1 for _ in read_samples("-", stdin=pipe))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        thread.join()
    assert count == 300
    assert peak < 5 * size


def test_a_reader_that_leaves_breaks_the_pipe_and_nothing_else_happens():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as pipe, pytest.raises(BrokenPipeError):
        write_one_sample(pipe)


def test_a_full_disk_is_one_line():
    expected = "standard output: No space left on device"
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(SepcliError, match=expected):
        write_one_sample(full)


def write_one_sample(stream):
    with open_sample_writer("-", stdout=stream) as writer:
        writer.write(make_sample())


def test_an_exception_leaves_the_stream_without_its_closing_count():
    data = to_tar([make_sample()], close=False)
    assert b"__end__" not in data
    assert members_of(data + bytes(1024))[-1][0] == "000000.ref.speech.wav"
