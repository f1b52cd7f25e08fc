"""An hour of audio through `sepcli stream`: memory, and whether the latency drifts.

Each chunk is written when the answer to the one before it has come, so an hour takes some minutes,
and the time between the two is what live audio would wait, pipes included. The level falls and
rises, down to digital silence, so that numbers near zero have their turn.
"""

import os
import subprocess
import sys
import time

import numpy as np

from sepcli.inference.live import open_runner
from sepcli.inference.stream import Stream

HOURS, SLICE_MINUTES, PATTERN_SECONDS = 1, 10, 60
MODEL = "denoise"


def pattern(sample_rate):
    """Noise under an envelope with silence in it, as raw floats."""
    t = np.arange(PATTERN_SECONDS * sample_rate) / sample_rate
    envelope = 0.2 * np.maximum(0, np.sin(2 * np.pi * t / 15)) ** 4
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (envelope * noise).astype("<f4").tobytes()


def start():
    """`sepcli stream`, answering every chunk with as much."""
    code = "import sys; from sepcli.__main__ import main; sys.argv[0] = 'sepcli'; main()"
    args = ["stream", "-m", MODEL, "-t", "raw", "--no-compensate-delay"]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code, *args], bufsize=0, **pipes)


def answer_ms(process, chunk):
    """The time until a chunk (bytes) is answered in full, in ms."""
    begun, missing = time.perf_counter(), len(chunk)
    process.stdin.write(chunk)
    while missing:
        missing -= len(process.stdout.read(missing))
    return 1000 * (time.perf_counter() - begun)


def main():
    runner = open_runner(MODEL)
    size, sample_rate = 4 * Stream(runner).chunk, runner.sample_rate
    audio = pattern(sample_rate)
    audio = audio[: len(audio) // size * size]
    per_slice = SLICE_MINUTES * 60 * sample_rate * 4 // size
    process, at = start(), 0
    answer_ms(process, bytes(size))  # the start-up is no part of it
    for first in range(0, 60 * HOURS, SLICE_MINUTES):
        times = []
        for _ in range(per_slice):
            times.append(answer_ms(process, audio[at : at + size]))
            at = (at + size) % len(audio)
        p10, p50, p99 = np.percentile(times, [10, 50, 99])
        print(
            f"minutes {first:2} to {first + SLICE_MINUTES}: per chunk of "
            f"{1000 * size / 4 / sample_rate:.0f} ms p10 {p10:.2f}, p50 {p50:.2f}, p99 {p99:.2f}, "
            f"max {max(times):.2f} ms",
            flush=True,
        )
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"peak memory {usage.ru_maxrss / 1024:.0f} MB, exit code {code}")


if __name__ == "__main__":
    main()
