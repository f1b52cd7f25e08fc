"""That `sepcli serve` does not grow, over few jobs here and over a thousand in `make test-all`."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.sync.client import connect

from tests.serving import Served, make_models, noise, sound

MEGABYTE = 1 << 20


def memory(server):
    """Bytes that the server and its workers have in memory."""
    return sum(1024 * int(told["VmRSS"].split()[0]) for told in server.family())


def work(server, number):
    """A job that is waited for, one that is fetched, one that fails, and a stream."""
    parts = [("file", sound(0.2, seed=number), f"{number}.wav"), ("model", "tiny")]
    assert server.post("/enhance", parts).status == 200
    name = server.job("/separate", [*parts, ("views", "1")])
    server.wait(name, "done")
    assert server.get(f"/jobs/{name}/result").status == 200
    assert server.ask("DELETE", f"/jobs/{name}").status == 204
    assert server.post("/enhance", [("file", b"no sound", "a.wav")]).status == 422
    with connect(server.address("model=tiny")) as stream:
        stream.recv()
        for _ in range(10):
            stream.send(noise(0.008).tobytes())
            stream.recv()


def opened(process):
    """How many files a process has open: Linux says so in /proc, which a test needs there."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds")
@pytest.mark.parametrize("rounds", [3, pytest.param(334, marks=pytest.mark.slow)])
def test_memory_and_files_do_not_grow(tmp_path, rounds):
    models = {"tiny": make_models(tmp_path)["tiny"]}
    with Served(models, tmp_path / "jobs") as server, ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: work(server, number), range(3)))  # loads what is needed
        before = memory(server)
        files = opened(server.process)
        list(threads.map(lambda number: work(server, number), range(rounds)))
        assert server.metric('jobs_total{state="done"}') == 2 * (rounds + 3)
        grown = memory(server) - before
        print(f"{3 * rounds} jobs and {rounds} streams: {grown / MEGABYTE:+.1f} MB")
        assert grown < 60 * MEGABYTE
        server.until(lambda: server.left() == [])
        server.until(lambda: opened(server.process) <= files)
        assert "Traceback" not in server.told()
