"""What BSS Eval v4 costs beside museval's own code: 30 s of 44.1 kHz stereo, CPU and wall time.

BLAS has as many threads as OMP_NUM_THREADS says, or as there are cores.
"""

import importlib.metadata
import importlib.util
import time
import tracemalloc

import numpy as np

from sepcli.metrics.bsseval import bss_eval, bss_eval_blocks

RATE = 44100
S, C = 2, 2


def museval_metrics():
    """museval/metrics.py by itself: the package around it needs ffmpeg when imported."""
    path = importlib.metadata.distribution("museval").locate_file("museval/metrics.py")
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(call, repeats):
    """The least (CPU time, wall time) of some runs."""
    took = []
    for _ in range(repeats):
        start = time.process_time(), time.perf_counter()
        call()
        took.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return np.min(took, 0)


def peak_mb(blocks, block):
    tracemalloc.start()
    bss_eval_blocks(lambda: iter([block] * blocks), window=RATE, hop=RATE)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e6


def main():
    rng = np.random.default_rng(0)
    references = 0.1 * rng.standard_normal((S, C, 30 * RATE))
    estimates = references + 0.1 * references[::-1] + 0.01 * rng.standard_normal(references.shape)
    pair = {"window": RATE, "hop": RATE}
    theirs = museval_metrics()
    signals = references.transpose(0, 2, 1), estimates.transpose(0, 2, 1)
    reference = seconds(lambda: theirs.bss_eval(*signals, **pair), 1)
    print("museval, all four     {:8.3f} s of CPU, {:8.3f} s".format(*reference))
    for what, names in (("SDR only", ["sdr"]), ("all four", ["sdr", "isr", "sir", "sar"])):
        ours = seconds(lambda n=names: bss_eval(estimates, references, names=n, **pair), 3)
        cpu, wall = reference / ours
        print("sepcli, {}      {:8.3f} s of CPU, {:8.3f} s,".format(what, *ours), end=" ")
        print(f"{cpu:.1f} and {wall:.1f} times as fast")
    block = np.stack([estimates, references])[..., :RATE]
    for minutes in (1, 4):
        print(f"memory for {minutes} min      {peak_mb(60 * minutes, block):8.0f} MB")


if __name__ == "__main__":
    main()
