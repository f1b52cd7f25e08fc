"""Time of the models: the forward pass of (2, C, 16000), and one 10 ms hop on one thread.

The largest get fewer runs. Those that extract a speaker have a reference of a second.
"""

import time

import torch

from sepcli.models import MODELS, build
from sepcli.nn.causal import CausalModel
from sepcli.nn.model import expanded

RUNS = 30
LONGEST_S = 20  # of one model, which then has fewer runs


def milliseconds(act):
    """The least and the median time of `act`, in ms."""
    times = []
    while len(times) < RUNS and sum(times) < 1000 * LONGEST_S:
        start = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - start))
    return min(times), sorted(times)[len(times) // 2]


@torch.inference_mode()
def main():
    for name in sorted(MODELS):
        model = build(name).eval()
        x = torch.randn(2, model.channels, 16000)
        both, one = [], []  # conditions, if there are any
        if model.conditioned:
            condition = model.condition([torch.randn(1, model.channels, model.sample_rate)])
            both, one = [expanded(condition, 2)], [condition]
        least, median = milliseconds(lambda model=model, x=x, both=both: model(x, *both))
        print(f"{name:16} forward {tuple(x.shape)}: min {least:.1f} ms, median {median:.1f} ms")
        if not isinstance(model, CausalModel):
            continue
        hops = max(1, round(0.01 * model.sample_rate / model.hop))
        chunk = torch.randn(1, model.channels, hops * model.hop)
        state = model.initial_state(1, *one)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        least, median = milliseconds(lambda m=model, c=chunk, s=state, o=one: m.step(c, s, *o))
        torch.set_num_threads(threads)
        length = 1000 * chunk.shape[-1] / model.sample_rate
        print(
            f"{name:16} step of {length:.0f} ms, 1 thread: min {least:.2f} ms, median {median:.2f}"
        )


if __name__ == "__main__":
    main()
