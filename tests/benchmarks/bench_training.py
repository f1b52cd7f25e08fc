"""How fast training data arrive: batches of 10 items of 5 s at 16 kHz, made by two workers.

Half of the speech and half of the noise is in rooms, targets are dereverberated in part, as in
`sepcli mix --preset poconet`. Prints batches per second by the clock, which other work on the
machine slows down, and by the time that both workers were at work, which it does not.

    $ python tests/benchmarks/bench_training.py
"""

import os
import resource
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
from bench_mix import write_recordings

from sepcli.data import datasets
from sepcli.recordings.packing import Packing, find_sources

BATCH, SECONDS, WORKERS, BATCHES, WARM_UP = 10, 5.0, 2, 60, 10
SETTINGS = {
    "kind": "mixtures", "duration_s": SECONDS, "snr_db": (-5, 5), "level_db": -20,
    "mixture_gain_db": (-25, 5), "rir_prob": 0.5, "noise_rir_prob": 0.5, "target": "decayed",
}  # fmt: skip


def measure(sources):
    """(batches per second, batches per second that the workers were at work / WORKERS)."""
    resolved = datasets.resolve(SETTINGS | sources, section="data", items=0, seed=0)
    data = datasets.build(resolved, section="data", sample_rate=16000, sources=("speech",))
    loader = datasets.batches(data, BATCH, seed=0, workers=WORKERS)
    for _ in islice(loader, WARM_UP):
        pass
    started = time.perf_counter()
    for mix, _ in islice(loader, BATCHES):
        assert mix.shape == (BATCH, 1, 80000)
    by_the_clock = BATCHES / (time.perf_counter() - started)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    loader.close()  # what the workers took is known when they have ended
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(after[k] - before[k] for k in (0, 1))  # user and system
    return by_the_clock, (BATCHES + WARM_UP) * WORKERS / spent


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        files = {name: f"{folder}/{name}" for name in ("speech", "noise", "rir")}
        found = [source for kind, path in files.items() for source in find_sources(kind, [path])]
        list(Packing(found).run(f"{folder}/all.h5"))
        packed = dict.fromkeys(files, f"{folder}/all.h5")
        for name, sources in (("WAV files", files), ("a pack", packed)):
            clock, work = measure(sources)
            print(
                f"{WORKERS} workers, {BATCH} x {SECONDS:g} s from {name}: {clock:.1f} batches/s, "
                f"{work:.1f} if both have a core to themselves"
            )


if __name__ == "__main__":
    main()
