"""CPU time of writing and reading a sample of 5 s at 16 kHz, mono, with two references.

$ python tests/benchmarks/bench_samples.py
"""

import os
import tempfile
import time

import numpy as np

from sepcli.samples.streams import Sample, open_sample_writer, read_samples

RATE, COUNT = 16000, 300
NAMES = ("mix", "ref.speech", "ref.noise")


def milliseconds(act):
    """The least CPU time per sample of five runs over COUNT samples."""
    times = []
    for _ in range(5):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return 1000 * min(times) / COUNT


def main():
    rng = np.random.default_rng(0)
    signals = [0.1 * rng.standard_normal((1, 5 * RATE)).astype(np.float32) for _ in NAMES]
    sample = Sample("000000", {"sample_rate": RATE, "targets": ["speech"], "seed": 0})

    def encode():
        for _ in range(COUNT):
            for name, signal in zip(NAMES, signals, strict=True):
                sample.set_audio(name, signal)

    def write(path):
        with open_sample_writer(path, overwrite=True) as writer:
            for _ in range(COUNT):
                writer.write(sample)

    def read(path, decode):
        for each in read_samples(path):
            for name in NAMES if decode else ():
                each.audio(name)

    print(f"encode          {milliseconds(encode):.3f} ms")
    print(f"write           {milliseconds(lambda: write(os.devnull)):.3f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.tar")
        write(path)
        print(f"read            {milliseconds(lambda: read(path, False)):.3f} ms")
        print(f"read and decode {milliseconds(lambda: read(path, True)):.3f} ms")


if __name__ == "__main__":
    main()
