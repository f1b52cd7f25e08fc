"""A cluster job of which a worker is killed in the middle, and the CPU time of 1 and 2 workers.

Separates samples of 0.5 s with the smallest shipped model, serially and by workers of dask on this
machine. The second part alternates runs with one and with two workers, and counts the CPU seconds
of workers, scheduler and driver, which a busy machine does not change much, beside wall times,
which it does.

$ python tests/benchmarks/bench_cluster.py [--items 400] [--rounds 3]
"""

import argparse
import os
import resource
import signal
import statistics
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import distributed

from sepcli.cluster.spread import Spread
from sepcli.jobs.batch import Separation
from sepcli.jobs.outputs import Models
from sepcli.jobs.work import Work
from sepcli.mixing.mixtures import Mixer, draw_sample
from sepcli.samples.folders import FolderWriter

MODEL, SECONDS = "denoise-tiny", 0.5


@dataclass
class Counting(Work):
    """Notes every task that is started, with the process that does."""

    starts: str = ""

    def perform(self, task):
        with open(self.starts, "a") as file:
            file.write(f"{task.key}\n")
        return super().perform(task)


def make(folder, items):
    """Samples to separate."""
    from sepcli.mixing.specs import MixtureSpec

    mixer, writer = Mixer(MixtureSpec(duration_s=(SECONDS, SECONDS))), FolderWriter(folder)
    for number in range(items):
        writer.write(draw_sample(mixer, 0, number))


def separate(samples, output, spread, on_record=lambda number: None):
    """Run a job to its end; returns what was started, each as often as it was."""
    starts = f"{output}.starts"
    work = Counting(Models((MODEL,), threads=1), starts=starts)
    job = Separation(work, str(output), spread=spread)
    job.find([str(samples)])
    for number, record in enumerate(job.run()):
        assert "error" not in record, record
        on_record(number)
    return Counter(Path(starts).read_text().split())


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def workers(count):
    """The client of so many workers of one thread each."""
    with (
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def lose_a_worker(samples, folder, items):
    """(outputs, whether they equal a serial run's, starts - items, tasks started twice)."""
    separate(samples, folder / "serial", Spread())
    with workers(2) as client:

        def kill(number):
            if number == items // 2:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        spread = Spread(cluster=client.scheduler.address)
        starts = separate(samples, folder / "out", spread, kill)
    expected, found = contents(folder / "serial"), contents(folder / "out")
    outputs = len({path.parent for path in found})
    return outputs, found == expected, sum(starts.values()) - items, starts


def cpu_of(client):
    """CPU seconds of the workers so far."""
    return sum(client.run(time.process_time).values())


def time_of(samples, output, count, items):
    """CPU milliseconds per item of workers and of driver and scheduler, and wall ms per item."""
    with workers(count) as client:
        spread = Spread(cluster=client.scheduler.address)
        separate(samples, f"{output}-warm", spread)
        worker, driver, wall = cpu_of(client), own_cpu(), time.monotonic()
        separate(samples, output, spread)
        worker, driver = cpu_of(client) - worker, own_cpu() - driver
    return [1000 * x / items for x in (worker, driver, time.monotonic() - wall)]


def own_cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "in", args.items)
        outputs, same, again, _ = lose_a_worker(folder / "in", folder, args.items)
        print(
            f"{args.items} items, 2 workers, 1 killed: {outputs} outputs, "
            f"{'equal to' if same else 'NOT equal to'} a serial run's, "
            f"{again} tasks ({100 * again / args.items:.1f} %) ran twice"
        )
        rounds = {1: [], 2: []}
        for number in range(args.rounds):
            for count in rounds:
                output = folder / f"{number}-{count}"
                rounds[count].append(time_of(folder / "in", output, count, args.items))
        medians = {}
        for count, times in rounds.items():
            medians[count] = [statistics.median(column) for column in zip(*times, strict=True)]
            worker, driver, wall = medians[count]
            print(
                f"{count} workers, per item: {worker:.1f} ms of CPU in workers, {driver:.1f} ms in "
                f"driver and scheduler, {wall:.1f} ms wall"
            )
        print(
            f"scaling from 1 to 2 workers: {2 * medians[1][0] / medians[2][0]:.2f} by CPU time, "
            f"{medians[1][2] / medians[2][2]:.2f} by wall time; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
