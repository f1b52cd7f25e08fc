"""Several processes that train one model: who they are, and what they tell each other.

Each makes and runs its part of every batch. Estimates, references and mixtures are then gathered,
so that every process computes the loss of the whole batch, whatever the loss is; batch norm shares
its statistics. So a training is the same, but for rounding, with any number of processes.
"""

import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from sepcli.errors import SepcliError
from sepcli.nn.model import Model

PATIENCE = timedelta(hours=2)  # for one another, as when the first one scores or saves
START_PATIENCE = timedelta(minutes=10)  # until all processes have started
POLL_S = 0.02


@dataclass(frozen=True)
class Ranks:
    """One of `size` processes, of which it is number `rank`; by default, the only one."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """What the first process has for `value`."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether any process has this flag."""
        if self.size == 1:
            return flag
        found = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def wait(self) -> None:
        """Return when all processes are here."""
        self.any(False)

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """The whole batch of which x (B, ...) is this process's part; gradients are x's alone."""
        if self.size == 1:
            return x
        own = torch.view_as_real(x) if x.is_complex() else x
        parts = [own.new_empty(own.shape) for _ in range(self.size)]
        dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        whole = torch.cat(parts)
        return torch.view_as_complex(whole) if x.is_complex() else whole


ALONE = Ranks()


def is_launched() -> bool:
    """Whether a launcher such as torchrun started this process, and may start it again."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun has started, this one's device included; alone without it.

    Gloo connects CPUs, NCCL GPUs. Raises SepcliError when another process is gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(device=device)
        return
    rank = int(os.environ["RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    store, *_ = next(rendezvous("env://", timeout=START_PATIENCE))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=met(store, rank, size),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    try:
        yield Ranks(rank, size, device)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise SepcliError(
            f"process {rank} of {size} lost the connection to another process, which has stopped; "
            "run the same command with --resume"
        ) from None
    finally:
        dist.destroy_process_group()


def met(store: Any, rank: int, size: int) -> Any:
    """A part of `store`, one of torch.distributed, for the `size` processes that have started now.

    A launcher that starts processes again keeps the store, in which they would find the addresses
    of those that are gone, and wait for them. So the first process answers each of the others by a
    name that this one has made up now. Raises SepcliError when they are not there in time.
    """
    try:
        name = _gathered(store, size) if rank == 0 else _introduced(store, rank)
    except dist.DistError as error:
        raise SepcliError(
            f"process {rank} of {size}: the other processes did not start within "
            f"{START_PATIENCE} ({str(error).strip().splitlines()[0]})"
        ) from None
    return PrefixStore(name, store)


def _gathered(store, size):
    """The name of the new part, once all others know it."""
    name, missing = uuid.uuid4().hex, set(range(1, size))
    deadline = time.monotonic() + START_PATIENCE.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"present/{rank}"]):
                who = store.get(f"present/{rank}").decode()  # or who was there before
                store.set(f"answer/{who}", name)
            if store.check([f"{name}/{rank}"]):
                missing.remove(rank)
        if time.monotonic() > deadline:
            raise dist.DistError(f"missing: {', '.join(map(str, sorted(missing)))}")
        time.sleep(POLL_S)
    return name


def _introduced(store, rank):
    """The name of the new part, by which the first process has answered."""
    own = uuid.uuid4().hex
    store.set(f"present/{rank}", own)
    store.wait([f"answer/{own}"], START_PATIENCE)
    name = store.get(f"answer/{own}").decode()
    store.set(f"{name}/{rank}", "")
    return name


def parallel(model: Model, ranks: Ranks, estimate: Callable[..., Any], kind: str) -> Any:
    """A function (mix, enroll) to estimates of the process's part of a batch, as `estimate` is.

    Its gradients are means over the processes. estimate: (model, mix, enroll) to estimates.
    """
    called = Called(model, estimate)
    if ranks.size == 1 or kind == "fsdp":
        return called
    where = [ranks.device] if ranks.device is not None and ranks.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer names for broadcast_buffers
        # Some models have layers whose output nobody uses, such as the last residual of a TCN: of
        # a static graph, such are found in the first pass.
        return nn.parallel.DistributedDataParallel(
            called, device_ids=where, broadcast_buffers=False, static_graph=True
        )


class Called(nn.Module):
    """A function of a model as a module's `forward`."""

    def __init__(self, model: Model, estimate: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.estimate = model, estimate

    def forward(self, mix: torch.Tensor, enroll: Any = ()) -> torch.Tensor:
        return self.estimate(self.model, mix, enroll)


def share_statistics(model: nn.Module) -> None:
    """Let batch norm, while it trains, see the parts of a batch that other processes have."""
    for layer in model.modules():
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
            layer.__class__ = SharedBatchNorm


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over all processes; torch's own is for GPUs only."""

    def _check_input_dim(self, x: torch.Tensor) -> None:
        pass

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(given)
        x = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
        over = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        size = dist.get_world_size()
        count = x.numel() // x.shape[1] * size  # every process has as much
        mean, square = x.mean(over).double(), x.var(over, correction=0).double()
        mean, square = _total(torch.stack([mean, square + mean.square()])) / size
        variance = (square - mean.square()).to(x.dtype)
        mean = mean.to(x.dtype)
        self._remember(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        y = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return (y * self.weight.view(shape) + self.bias.view(shape)).to(given.dtype)

    @torch.no_grad()
    def _remember(self, mean, variance):
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


class _Total(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _total(x: torch.Tensor) -> torch.Tensor:
    done: Any = _Total.apply(x)
    return done
