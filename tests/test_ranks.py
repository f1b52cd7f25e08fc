"""Training in several processes: the same losses, one checkpoint, and killed processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from torch import nn

from sepcli.cli import main
from sepcli.data import datasets
from sepcli.errors import SepcliError
from sepcli.runs import checkpoint
from sepcli.training import ranks
from sepcli.training.checks import check_ranks
from sepcli.training.loop import seed_of_step
from sepcli.training.ranks import Ranks, SharedBatchNorm
from sepcli.training.settings import Settings
from tests.test_train import data
from tests.test_train_command import records

STEPS = 12
TINY = f"""
model: {{name: tfswa_unet, sources: [modulated, sines], sample_rate: 16000, channels: 1,
        window: 128, hop: 64, dims: [4], depths: [1], heads: 2, tile: 4, shift: 2,
        patch: [1, 16]}}
data:
  train: {{kind: toy, items: 10, duration_s: 0.1}}
  valid: {{kind: toy, items: 2, duration_s: 0.1}}
train: {{steps: {STEPS}, batch: 4, accumulate: 2, warmup: 2, log_every: 1, validate_every: 6,
        ema: 0.9, save_minutes: 0, loss: {{mr_stft: 1.0, si_sdr: 0.1}}}}
"""


class Launched:
    """`sepcli train` of TINY in two processes under torchrun."""

    def __init__(self, folder, restarts, *settings):
        self.folder = folder
        (folder / "tiny.yaml").write_text(TINY)
        run = ["-m", "sepcli", "train", "tiny.yaml", "-o", "run", "--device", "cpu", "--resume"]
        launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *launch, "--max-restarts", str(restarts), *run, *settings],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self, rank):
        """The process number of a worker, None while there is none."""
        own = self.process.pid
        try:
            children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        except FileNotFoundError:
            return None
        for pid in map(int, children):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"RANK=%d" % rank in environment:
                return pid
        return None

    def step(self):
        """The last step in the log."""
        try:
            lines = (self.folder / "run/metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return 0
        steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
        return max(steps, default=0)

    def kill(self, rank):
        """Kill a worker, if there is one; whether there was."""
        pid = self.worker(rank)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    def kill_at(self, step, rank):
        """Kill a worker once the log has reached the step."""
        while self.step() < step:
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.005)
        assert self.kill(rank)

    def done(self):
        """(exit status, standard output, standard error)."""
        try:
            said = self.process.communicate(timeout=600)
        finally:
            self.process.kill()
        return self.process.returncode, *said


def state(folder):
    """Every tensor that training changes."""
    saved = checkpoint.load(folder / "run/last.ckpt")
    moments = [x for each in saved["optimizer"]["state"].values() for x in each.values()]
    return [*saved["model"].values(), *saved["average"].values(), *moments]


def assert_same(one, other):
    assert records(one / "run") == records(other / "run")
    pairs = list(zip(state(one), state(other), strict=True))
    assert len(pairs) > 80
    assert all(torch.equal(a, b) for a, b in pairs)


def losses(folder):
    return [record["loss"] for record in records(folder / "run")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said, errors = Launched(folder, 0).done()
    assert code == 0, errors
    assert said == "run/best.safetensors\n"
    lines = [line for line in errors.splitlines() if "OMP_NUM_THREADS" not in line]
    assert [line.partition(":")[0] for line in lines] == [f"step {n}" for n in (0, 6, 12)]
    return folder


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Runs `sepcli train` of TINY in this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*arguments):
        command = ["train", "tiny.yaml", "-o", "run", "--device", "cpu", *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return tmp_path

    return run


def test_two_processes_have_the_losses_of_one(undisturbed, alone):
    """Also with batch norm, and a loss that is no mean over the items of a batch."""
    assert losses(undisturbed) == pytest.approx(losses(alone()), rel=1e-3)


def met(store, size, order):
    """Processes that start one after the other, in this order of ranks, share a store."""
    with ThreadPoolExecutor(size) as threads:
        found = []
        for rank in order:
            found.append(threads.submit(ranks.met, store, rank, size))
            time.sleep(3 * ranks.POLL_S)
        stores = [each.result(timeout=60) for each in found]
    stores[0].set("said", "here")
    assert {each.get("said") for each in stores} == {b"here"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_processes_that_start_again_do_not_find_those_that_are_gone(order):
    store = dist.HashStore()
    for number in range(3):
        met(store, 3, order)
        store.set(f"present/{1 + number % 2}", "gone")  # one that was killed before it was answered


def test_a_process_that_does_not_start_is_missed(monkeypatch):
    monkeypatch.setattr(ranks, "START_PATIENCE", timedelta(seconds=0.1))
    for rank, reason in ((0, "missing: 1"), (1, "did not start within 0:00:00.1")):
        with pytest.raises(SepcliError, match=reason):
            ranks.met(dist.HashStore(), rank, 2)


def test_what_a_killed_process_had_not_done_is_done_again(undisturbed, tmp_path):
    """By the launcher, which starts both of them anew."""
    launched = Launched(tmp_path, 3)
    launched.kill_at(4, 1)
    code, _, errors = launched.done()
    assert code == 0, errors
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_what_two_began(undisturbed, alone, tmp_path):
    launched = Launched(tmp_path, 0)
    launched.kill_at(4, 0)
    code, _, errors = launched.done()
    assert code != 0
    assert "/sepcli/training/" not in errors  # no traceback but the launcher's
    assert losses(alone("--resume")) == pytest.approx(losses(undisturbed), rel=1e-3)


@pytest.mark.slow
def test_any_of_two_processes_may_be_killed_at_any_moment(undisturbed, tmp_path):
    draw = random.Random()
    started = time.monotonic()
    (tmp_path / "timed").mkdir()
    assert Launched(tmp_path / "timed", 0).done()[0] == 0
    lasts = time.monotonic() - started
    killed = 0
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        moment, rank = draw.uniform(0, lasts), draw.randrange(2)
        launched = Launched(folder, 3)
        time.sleep(moment)
        killed += launched.kill(rank)
        code, _, errors = launched.done()
        assert code == 0, (moment, rank, errors)
        assert_same(folder, undisturbed)
    assert killed > 10


@pytest.mark.slow
def test_weights_in_parts_are_trained_as_whole_ones_are(undisturbed, tmp_path, monkeypatch):
    code, _, errors = Launched(tmp_path, 0, "--set", "train.parallel=fsdp").done()
    assert code == 0, errors
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=1e-3)
    assert [x.shape for x in state(tmp_path)] == [x.shape for x in state(undisturbed)]
    other = tmp_path / "killed"
    other.mkdir()
    launched = Launched(other, 2, "--set", "train.parallel=fsdp")
    launched.kill_at(7, 0)
    assert launched.done()[0] == 0
    assert_same(other, tmp_path)


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(3, 4, 50), (2, 4, 5, 7)])
def test_shared_batch_norm_is_batch_norm(shape, group):
    torch.manual_seed(0)
    theirs = (nn.BatchNorm1d if len(shape) == 3 else nn.BatchNorm2d)(4).double()
    nn.init.normal_(theirs.weight)
    ours = type(theirs)(4).double()
    ours.load_state_dict(theirs.state_dict())
    ranks.share_statistics(ours)
    assert isinstance(ours, SharedBatchNorm)
    results = []
    for norm in (theirs, ours):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x = (3 * x + 5).requires_grad_()
        y = norm(x)
        (y.square() * torch.arange(y.numel()).reshape(shape).cos()).sum().backward()
        after = norm.eval()(x.detach())
        results.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers(), after])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_the_parts_of_a_batch_are_the_batch():
    def mixes(size, part):
        made = datasets.batches(data(5), size, seed=0, part=part)
        return torch.cat([next(made)[0] for _ in range(4)])

    whole = mixes(6, (0, 1)).unflatten(0, (4, 6))
    parts = [mixes(6, (n, 3)).unflatten(0, (4, 2)) for n in range(3)]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_a_batch_that_cannot_be_shared_out_is_refused():
    model = nn.Identity()
    model.measures = True
    with pytest.raises(SepcliError, match="batch 8 cannot be split evenly among 3 processes"):
        check_ranks(model, Settings(batch=8), Ranks(1, 3))
    with pytest.raises(SepcliError, match="fsdp: not with a model that starts with statistics"):
        check_ranks(model, Settings(parallel="fsdp"), Ranks(0, 2))
    with pytest.raises(SepcliError, match=r"train\.parallel must be ddp or fsdp"):
        Settings(parallel="dp")


def test_processes_draw_different_random_numbers():
    seeds = [seed_of_step(3, 5, rank) for rank in range(4)]
    assert len(set(seeds)) == 4
    assert seeds[0] == seed_of_step(3, 5)
