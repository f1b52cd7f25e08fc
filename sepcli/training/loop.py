"""The training loop: a generator that does one step at a time and yields what happened.

Between two records the state is consistent: the caller may save it, stop, and go on later from the
saved state to bit-equal weights. All randomness of step k is a function of (seed, k).
"""

import copy
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from sepcli import losses
from sepcli.data import datasets
from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.nn.model import Model
from sepcli.training import adversarial, precision, sharding, stepping, validation
from sepcli.training.adversarial import Adversary
from sepcli.training.optimizers import optimizer_of
from sepcli.training.ranks import ALONE, Ranks, parallel, share_statistics
from sepcli.training.settings import BEST, Plateau, Settings, learning_rate
from sepcli.training.stepping import add_up
from sepcli.training.teaching import Teacher

NORM_BATCHES = 16  # of training data, for the statistics of batch norm in the averaged model
EMA_RAMP = 10  # the average starts fast, decay (1 + n) / (10 + n), so that early steps fade


class State:
    """Everything that training changes, and nothing else.

    average: the moving average of the weights, or None. step: steps done. validated: the step of
    the last validation. first, best, last: validation scores before training, of the best step,
    and of the last one. since_best: validations since. plateau: what `Plateau` remembers.
    adversary: the discriminators of `train.gan`, or None. skipped, bad_in_a_row: steps without a
    finite gradient. sums: of the values since the last log line. seconds: spent on training and
    validation. audio: what the step that is being done sounds like, if it is to be heard.
    """

    COUNTERS = (
        "step", "validated", "first", "best", "last", "since_best", "plateau", "skipped",
        "bad_in_a_row", "sums", "seconds",
    )  # fmt: skip

    def __init__(
        self,
        model: Model,
        settings: Settings,
        ranks: Ranks = ALONE,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.ranks, self.teacher = model, ranks, teacher
        model.consistent = settings.mixture_consistency
        self.average = copy.deepcopy(model).requires_grad_(False) if settings.ema else None
        if ranks.size > 1:
            share_statistics(model)
        self.sharded = ranks.size > 1 and settings.parallel == "fsdp"
        if self.sharded:
            sharding.shard(model)
        self.estimate = parallel(model, ranks, validation.separate, settings.parallel)
        self.optimizer = optimizer_of(model, settings)
        self.step, self.validated, self.seconds = 0, -1, 0.0
        self.first: Any = None
        self.best: Any = None
        self.last: Any = None
        self.plateau: dict[str, Any] = Plateau(**settings.plateau).start()
        self.since_best = self.skipped = self.bad_in_a_row = 0
        self.sums = {}
        self.audio: dict[str, torch.Tensor] = {}
        device = next(model.parameters()).device
        self.scaler = precision.scaler(settings, device)
        self.adversary = Adversary(settings, device) if settings.gan else None

    @property
    def kept(self) -> Model:
        """The model that is validated and saved: the average where there is one."""
        return self.model if self.average is None else self.average

    @property
    def is_adversarial(self) -> bool:
        """Whether the next step is one with the adversary."""
        return self.adversary is not None and self.adversary.listens(self.step)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain data; of an adversary only what it has learned.

        Where weights are in parts, all processes have to ask for it.
        """
        state = self._state_dict()
        return sharding.whole(state) if self.sharded else state

    def _state_dict(self):
        adversary = self.adversary if self.is_adversarial else None
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "adversary": None if adversary is None else adversary.state_dict(),
            **{name: getattr(self, name) for name in self.COUNTERS},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; the settings must be the same."""
        sharding.load(self.model, saved["model"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        sharding.load_optimizer(self.optimizer, saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.adversary is not None and saved.get("adversary"):
            self.adversary.load_state_dict(saved["adversary"])
        for name in self.COUNTERS:
            setattr(self, name, saved.get(name, getattr(self, name)))


class DataError(SepcliError):
    """The data could not be had; the state is that between two steps, and may be saved."""


@contextmanager
def data_needed() -> Iterator[None]:
    """Make a SepcliError a DataError."""
    try:
        yield
    except SepcliError as error:
        raise DataError(str(error)) from None


def fit(
    state: State,
    train_data: Items,
    valid_data: Items,
    settings: Settings,
    *,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, Any]]:
    """Train `state` up to `settings.steps` steps; a generator of records (dicts).

    Records are told apart by "event": "step" after every step; before it, every `log_every` steps,
    "train" with means over these; "validating" during a validation, and "valid" after it with the
    scores, "best" (whether none was better) and "audio" (examples, {name: (C, T)}); "audio", every
    `audio_every` steps, with those of the step. Validation happens before the first step, every
    `validate_every` steps, and after the last. "warning" has a "message": what could not be done
    as the settings want it.

    Raises SepcliError when `max_bad_steps` steps in a row had no finite loss and gradient, and
    DataError when items cannot be made.
    """
    order: dict[str, Any] = {"seed": settings.seed, "per_step": settings.accumulate}
    start = state.step * settings.accumulate
    part = state.ranks.rank, state.ranks.size
    place: dict[str, Any] = {"start": start, "workers": settings.workers, "part": part}
    first = partial(datasets.batches, train_data, settings.batch, device=device, **order)
    with (
        closing(
            datasets.batches(train_data, settings.batch, device=device, **place, **order)
        ) as batches,
        precision.compiled(state.model, settings, batches, device) as (failure, batches),
    ):
        if failure:
            yield {"event": "warning", "message": failure}
        yield from _steps(state, batches, first, valid_data, settings, device)


def _steps(state, batches, first, valid_data, settings, device):
    """`fit` with `batches` from the state's step on, and `first`, which begins them anew."""
    loss_fn = losses.weighted(settings.loss, settings.shares(valid_data.sources))
    ranks = state.ranks
    while True:
        if is_due(state, settings):
            if state.average is not None:
                with data_needed():
                    renew_statistics(state.average, islice(first(), NORM_BATCHES), device)
            yield from validate(state, valid_data, settings, device)
        if state.step >= settings.steps or is_over(state, settings):
            return

        started = time.monotonic()
        with data_needed():
            parts = list(islice(batches, settings.accumulate))
        torch.manual_seed(seed_of_step(settings.seed, state.step, ranks.rank))
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings) * state.plateau["scale"]
        state.model.train()
        if settings.progressive:
            state.model.resolution = settings.resolution(state.step)
        running = [buffer.clone() for buffer in state.model.buffers()]
        take = adversarial.step if state.is_adversarial else stepping.step
        values, quality = take(state, parts, loss_fn, settings, device)
        state.scaler.unscale_(state.optimizer)
        norm = clip_gradients(state.model, settings.clip)
        if all(map(math.isfinite, (norm, *values.values()))):
            state.scaler.step(state.optimizer)
            if state.is_adversarial:
                state.adversary.move(state.optimizer.param_groups[0]["lr"], settings.clip)
            state.bad_in_a_row = 0
            if state.average is not None:
                move_average(state.average, state.model, settings.ema, state.step)
            add_up(state.sums, {"steps": 1, "grad_norm": norm, **values, **quality})
        else:
            set_buffers(state.model, running)  # a bad batch must not stay in batch norm's averages
            state.skipped += 1
            state.bad_in_a_row += 1
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.seconds += time.monotonic() - started
        add_up(state.sums, {"seconds": time.monotonic() - started})

        if state.bad_in_a_row >= settings.max_bad_steps:
            raise SepcliError(
                f"training diverged: steps {state.step - state.bad_in_a_row + 1} to {state.step} "
                "had no finite loss and gradient; lower train.lr or train.clip, or check the data"
            )
        if settings.listens(state.step):
            audio, state.audio = state.audio, {}
            yield {"event": "audio", "step": state.step, "audio": audio}
        if state.step % settings.log_every == 0:
            sums, state.sums = state.sums, {}  # before the yield, where a run may be saved
            yield summary(sums, state, settings)
        yield {"event": "step", "step": state.step, "loss": values["loss"]}


def validate(
    state: State, data: Items, settings: Settings, device: str | torch.device
) -> Iterator[dict[str, Any]]:
    """Score the model that is kept; yields "validating" records and one "valid"."""
    started = time.monotonic()
    if settings.progressive:
        state.kept.resolution = 1
    with data_needed():
        scores, audio = yield from validation.evaluate(state.kept, data, settings, device)
    scores = state.ranks.share(scores)  # the same decisions everywhere
    best = is_better(scores, state.best, settings.best)
    state.last = {"step": state.step, **scores}
    state.first = state.first or state.last
    state.best = state.last if best else state.best
    state.since_best = 0 if best else state.since_best + 1
    if settings.plateau and state.step:
        state.plateau = Plateau(**settings.plateau).step(state.plateau, scores["loss"])
    state.validated = state.step
    state.seconds += time.monotonic() - started
    yield {"event": "valid", **state.last, "best": best, "audio": audio}


def summary(sums: dict[str, Any], state: State, settings: Settings) -> dict[str, Any]:
    """The record of the steps that were added up in `sums`: means, learning rate and speed."""
    steps, seconds = sums.pop("steps", 0), sums.pop("seconds")
    audible = sums.pop("audible", 0) or math.nan  # references; without one there is no SI-SDR
    counts = dict.fromkeys(validation.MEASURES, audible)
    items = settings.batch * settings.accumulate * settings.log_every
    return {
        "event": "train",
        "step": state.step,
        **{name: value / counts.get(name, steps) for name, value in sums.items()},
        "lr": learning_rate(state.step - 1, settings) * state.plateau["scale"],
        "items_per_s": items / seconds,
        "skipped": state.skipped,
        "minutes": state.seconds / 60,
    }


def is_better(scores: dict[str, Any], best: dict[str, Any] | None, name: str = "si_sdr_db") -> bool:
    """Whether the score `name` is better than the best one so far (None: none yet)."""
    key, sign = name.replace(".", "_", 1), BEST[name.partition(".")[0]]
    new = sign * scores[key]
    return math.isfinite(new) and (best is None or new > sign * best[key])


def is_due(state: State, settings: Settings) -> bool:
    """Whether this step has to be validated and was not yet."""
    return settings.validates(state.step) and state.validated != state.step


def is_over(state: State, settings: Settings) -> bool:
    """Whether validations have not improved for so long that the training ends."""
    if 0 < settings.stop_after <= state.since_best:
        return True
    return bool(settings.plateau) and Plateau(**settings.plateau).is_over(state.plateau)


def seed_of_step(seed: int, step: int, rank: int = 0) -> int:
    """A 32-bit seed for step `step` of the run `seed`, in process `rank`."""
    return int(np.random.SeedSequence([seed, step, *([rank] * (rank > 0))]).generate_state(1)[0])


def clip_gradients(model: Model, clip: float) -> float:
    """Scale the gradients down to the norm `clip` (0: no limit); their norm before it."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
    return sharding.whole(norm).item()


@torch.no_grad()
def move_average(average: Model, model: Model, decay: float, updates: int) -> None:
    """Move the averaged weights towards the model's; see `renew_statistics` for the rest."""
    decay = min(decay, (1 + updates) / (EMA_RAMP + updates))
    for mean, new in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(sharding.whole(new), 1 - decay)


@torch.no_grad()
def renew_statistics(
    model: Model, batches: Iterable[tuple[torch.Tensor, ...]], device: str = "cpu"
) -> None:
    """Measure the running statistics of batch norm anew, as their mean over `batches` of training.

    Those collected while training belong to the weights of single steps, not to their average
    (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI
    2018, section 3.2): a denoiser lost 1 dB by them.
    """
    norms = [
        layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    for mix, _, *enroll in batches:
        if mix.isfinite().all():  # training skips such a batch, too
            validation.separate(model, mix.to(device), [x.to(device) for x in enroll])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def set_buffers(model: Model, buffers: Iterable[torch.Tensor]) -> None:
    """Set the model's buffers to the values of `buffers`."""
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)
