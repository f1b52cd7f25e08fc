"""Work for the workers of dask.distributed: complete, the same as a serial run's, and once."""

import _multiprocessing
import errno
import json
import os
import subprocess
import sys
from collections import Counter

import distributed
import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.cluster import scheduler
from sepcli.cluster.ledger import Ledger
from sepcli.cluster.scheduler import Handling
from sepcli.cluster.workers import Ready
from sepcli.errors import SepcliError
from tests.benchmarks import bench_cluster
from tests.cluster_tasks import Failing, Written
from tests.commands import contents, run
from tests.separators import noise, save_tiny


@pytest.fixture(scope="module")
def cluster():
    """A scheduler with two workers, and a client of it."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def address(cluster):
    """Of the scheduler, when both workers are there."""
    cluster.wait_for_workers(2, timeout=300)
    return cluster.scheduler.address


def starts(folder):
    """How often each task was started."""
    return Counter((folder / "starts").read_text().split())


def test_a_killed_worker_costs_no_result_and_few_second_runs(address, tmp_path):
    count = 40
    found = list(scheduler.each(Written(tmp_path, fatal=(20,)), range(count), address))
    assert found == [number * number for number in range(count)]
    outputs = {path.stem: path.read_text() for path in tmp_path.glob("*.out")}
    assert outputs == {str(number): str(number * number) for number in range(count)}
    started = starts(tmp_path)
    assert started["20"] >= 2
    assert sum(started.values()) - count <= 0.15 * count


def test_what_fails_is_tried_elsewhere_and_then_told(address, cluster, tmp_path):
    marks = {}
    handling = Handling(
        failed=lambda result: "error" in result,
        lost=lambda task, why: {"error": why, "number": task},
        mark=lambda result, about: marks.update({len(marks): about}) or result.update(about),
        ordered=True,
    )
    tasks = [Ready({"ready": True}) if number == 2 else number for number in range(9)]
    found = list(scheduler.each(Failing(tmp_path), tasks, address, handling=handling))
    assert [result.get("number") for result in found] == [0, 1, None, 3, 4, None, 6, 7, 8]
    assert found[2] == {"ready": True}
    assert [found[number]["attempts"] for number in (0, 3, 5, 7)] == [1, 2, 2, 2]
    assert found[5]["error"] == "it did not work"
    assert found[7]["error"] == "7.wav: broken"
    for number in (3, 5):
        workers = (tmp_path / f"{number}.attempts").read_text().split()
        assert len(set(workers)) == 2
    assert {marks[0]["worker"], marks[1]["worker"]} <= cluster.nthreads().keys()


def test_without_handling_what_fails_ends_the_run(address, tmp_path):
    with pytest.raises(SepcliError, match=r"7\.wav: broken"):
        list(scheduler.each(Failing(tmp_path), range(20), address))


def test_tasks_are_taken_a_window_ahead(address, tmp_path):
    taken = []
    tasks = (taken.append(number) or number for number in range(10_000))
    results = scheduler.each(Written(tmp_path), tasks, address)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) <= 5 + 2 * scheduler.AHEAD
    results.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sounds, one of which is damaged, and what separates them."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(4):
        sepcli.write(folder / f"in/{number}.wav", noise(1, 9000 + number, number), 16000)
    (folder / "in/2.wav").write_bytes(b"RIFF")
    run("mix", "-n", 4, "--duration", 0.3, "-o", folder / "samples", "-q")
    save_tiny(folder / "tiny.safetensors")
    return folder


COMMANDS = {
    "separate": ("separate", "in", "-m", "tiny.safetensors", "-o", "out"),
    "separate-samples": ("separate", "samples", "-m", "tiny.safetensors", "-o", "out"),
    "separate-tar": ("separate", "samples", "-m", "tiny.safetensors", "-o", "out/x.tar"),
    "extract": ("extract", "in", "--ref", "in/0.wav", "-o", "out"),
    "mix": ("mix", "-n", 5, "--duration", 0.2, "-o", "out"),
    "pack": ("pack", "--speech", "in", "-o", "out/x.h5"),
    "eval": ("eval", "in", "in", "--metrics", "snr", "--json", "-o", "out/x.json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_cluster_writes_what_it_writes_alone(
    address, files, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "out").mkdir()
    args = (*map(str, COMMANDS[name]), "--progress", "none")
    alone = CliRunner().invoke(main, args)
    expected = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "alone")
    (tmp_path / "out").mkdir()
    cluster = ("--cluster", address, "--ledger", "ledger.jsonl")
    found = run(*args, *cluster, code=alone.exit_code)
    assert expected, alone.output
    assert contents(tmp_path / "out") == expected
    assert sorted(found.stderr.splitlines()) == sorted(alone.stderr.splitlines())
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["status"] == "failed"]
    told = [
        line for line in found.stderr.splitlines() if line.startswith(("Failed: ", "Skipped: "))
    ]
    assert [line["why"] for line in failed] == [line.partition(": ")[2] for line in told]
    assert len(failed) == found.stderr.count("in/2.wav")
    assert len(lines) == {"mix": 5}.get(name, 4)


def test_a_local_cluster_is_started_and_ended(files, tmp_path):
    args = ("mix", "-n", 3, "--duration", 0.2, "--cluster", "local", "-j", 2)
    run(*args, "-o", tmp_path / "out")
    run(*args[:5], "-o", tmp_path / "alone")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_a_local_cluster_that_cannot_start_is_one_line(tmp_path, monkeypatch):
    """As on systems without /dev/shm."""

    class Refused:
        SEM_VALUE_MAX = 1

        def __init__(self, *_):
            raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(_multiprocessing, "SemLock", Refused)
    result = run("mix", "-n", 1, "-o", tmp_path / "out", "--cluster", "local", code=1)
    assert result.stderr == (
        "Error: --cluster local: its workers could not be started "
        "([Errno 38] Function not implemented); use --jobs instead\n"
    )


def test_without_dask_there_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = run("mix", "-n", 1, "-o", tmp_path / "out", "--cluster", "local", code=1)
    assert result.stderr.count("\n") == 1
    assert "pip install 'sepcli[cluster]'" in result.stderr


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:9", "nowhere", "ftp://x:1"])
def test_an_address_without_a_scheduler_is_one_line(tmp_path, monkeypatch, place):
    monkeypatch.setattr(scheduler, "PATIENCE_S", 1.0)
    result = run("mix", "-n", 1, "-o", tmp_path / "out", "--cluster", place, code=1)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"Error: {place}: no scheduler answers")


def test_jobs_are_of_this_machine():
    assert (
        "--jobs is for workers of this machine"
        in run("mix", "--cluster", "tcp://127.0.0.1:9", "-j", 2, code=2).stderr
    )


def test_a_ledger_goes_on_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"key": "a", "status": "done"}\n{"key": "b", "sta')
    ledger = Ledger(str(path))
    assert list(ledger.watch([{"key": "b"}, {"key": "c", "error": "c.wav: cut off"}]))
    ledger.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["key"] for line in (lines[0], *lines[2:])] == ["a", "b", "c"]
    assert json.loads(lines[-1])["why"] == "c.wav: cut off"


@pytest.mark.slow
def test_400_items_with_a_worker_killed_in_the_middle(tmp_path):
    bench_cluster.make(tmp_path / "in", 400)
    outputs, same, again, starts = bench_cluster.lose_a_worker(tmp_path / "in", tmp_path, 400)
    assert (outputs, same, len(starts)) == (400, True, 400)
    assert again <= 0.15 * 400


POISON = """
import json, sys
from sepcli.cluster import scheduler
from tests.cluster_tasks import Written

if __name__ == "__main__":
    handling = scheduler.Handling(lost=lambda task, why: f"{task}: {why}")
    work = Written(sys.argv[1], fatal=(5,), always=True)
    print(json.dumps(list(scheduler.each(work, range(12), "local", workers=2, handling=handling))))
"""


@pytest.mark.slow
def test_what_kills_every_worker_is_told_and_the_rest_is_done(tmp_path):
    """In a process of its own: warnings are errors here, also in dask's threads."""
    (tmp_path / "poison.py").write_text(POISON)
    command = [sys.executable, str(tmp_path / "poison.py"), str(tmp_path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "5: its worker died" in found.pop(5)
    assert found == [number * number for number in range(12) if number != 5]
    assert starts(tmp_path)["5"] >= 3
