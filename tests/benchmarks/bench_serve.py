"""`sepcli serve`: 20 REST clients at once, and live streams at real time until it says 503.

python tests/benchmarks/bench_serve.py [--seconds 10] [--streams 50] [--clients 20]

Every stream is a `denoise-tiny` that gets 8 ms of sound every 8 ms and waits for the answer. The
clients have a process of their own, on the same machine. Latencies tell of this machine as it is
now; the processor time per hop hardly depends on what else it runs.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.serving import Served, multipart, noise, sound

MODEL, HOP_S = "denoise-tiny", 0.008


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--clients", type=int, default=20)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as folder:
        with Served({MODEL: MODEL}, Path(folder) / "jobs") as server:
            asyncio.run(rest(server, asked.clients))
            asyncio.run(live(server, asked.streams, asked.seconds))
        with Served({MODEL: MODEL}, Path(folder) / "jobs", "--streams", "1000") as server:
            print("without that limit:")
            asyncio.run(live(server, asked.streams, asked.seconds))


def cpu_seconds(server):
    """Processor time of the server and of its workers."""
    total = 0.0
    for told in server.family():
        fields = Path(f"/proc/{int(told['Pid'])}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


async def rest(server, clients, requests=5, seconds=10.0):
    """Each client sends `requests` sounds, one after the other."""
    body, kind = multipart([("file", sound(seconds), "a.wav")])

    def client():
        times = []
        for _ in range(requests):
            began = time.monotonic()
            answer = server.ask("POST", "/enhance", body, content_type=kind)
            assert answer.status == 200, answer.body
            times.append(time.monotonic() - began)
        return times

    client()  # which loads the model
    began, before = time.monotonic(), cpu_seconds(server)
    times = await asyncio.gather(*(asyncio.to_thread(client) for _ in range(clients)))
    took = time.monotonic() - began
    done = clients * requests
    per_request = (cpu_seconds(server) - before) / done
    print(
        f"REST: {clients} clients, {done} sounds of {seconds:g} s: {done / took:.1f} requests/s, "
        f"{done * seconds / took:.0f} s of sound per second, answers p50 "
        f"{np.quantile(times, 0.5):.2f} s, p95 {np.quantile(times, 0.95):.2f} s; "
        f"{per_request:.2f} s of a core per request: {1 / per_request:.1f} per second fill one"
    )


async def live(server, streams, seconds):
    """Streams that begin at random moments, and their latencies."""
    await stream(server, 0.1, 0.0)  # which loads the model
    rng, before = np.random.default_rng(0), cpu_seconds(server)
    told = await asyncio.gather(
        *(stream(server, seconds, float(wait)) for wait in rng.uniform(0, 1, streams))
    )
    times = [1000 * each for one in told if one is not None for each in one]
    refused = sum(one is None for one in told)
    if not times:
        print(f"WS: none of {streams} streams let in, {refused} got 503")
        return
    per_hop = (cpu_seconds(server) - before) / len(times)
    late = np.mean(np.array(times) > 1000 * HOP_S)
    print(
        f"WS: {streams - refused} of {streams} streams let in, {refused} got 503; hops p50 "
        f"{np.quantile(times, 0.5):.1f} ms, p95 {np.quantile(times, 0.95):.1f} ms, p99 "
        f"{np.quantile(times, 0.99):.1f} ms; {late:.1%} took longer than {1000 * HOP_S:g} ms; "
        f"{1000 * per_hop:.2f} ms of a core per hop: {HOP_S / per_hop:.0f} streams fill one"
    )


async def stream(server, seconds, wait):
    """The latencies of the hops of one stream in s, None if there is no room for it."""
    await asyncio.sleep(wait)
    audio, times = noise(HOP_S), []
    data = audio.tobytes()
    try:
        async with connect(server.address(f"model={MODEL}")) as socket:
            if json.loads(await socket.recv())["event"] != "ready":
                return None
            due = time.monotonic()
            for _ in range(round(seconds / HOP_S)):
                due += HOP_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await socket.send(data)
                await socket.recv()
                times.append(time.monotonic() - due)
        return times
    except InvalidStatus as error:
        assert error.response.status_code == 503  # noqa: PT017
        return None


if __name__ == "__main__":
    main()
