"""How to train: the settings of a run, and what the learning rate is by them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sepcli import config, losses
from sepcli.errors import SepcliError

AT_LEAST_1 = (
    "steps", "batch", "accumulate", "max_bad_steps", "log_every", "validate_every",
    "validate_epochs",
)  # fmt: skip
BEST = {"si_sdr_db": 1, "snr_db": 1, "loss": -1}  # scores, and whether more is better
WEIGHTS = "weights of sources, 0 or more and not all 0, such as {vocals: 1}"
NUMBERS = ("none", "bf16", "fp16")  # of autocast
PARALLEL = ("ddp", "fsdp")
OPTIMIZERS = ("adamw", "muon")
AT_LEAST_0 = (
    "epochs", "keep_every", "warmup", "final_lr", "weight_decay", "clip", "seed", "workers",
    "save_minutes", "stop_after", "keep_last", "audio_every",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to train: the `train` section of a configuration.

    steps: optimizer steps in all. batch: items per forward pass. accumulate: forward passes per
        step, so that a step sees batch * accumulate items. epochs: passes through the training
        items, each followed by a validation, in place of `steps` and `validate_every`; 0 for those.
    validate_epochs: with `epochs`, a validation follows every so many of them, and the last.
    keep_epochs: epochs (or validations) after which the model is kept in a file of its own.
    keep_every: the same after every so many epochs; 0 for none.
    keep_last: so many of the last validated models are kept in files of their own; 0 for none.
    best: the score of the validation that the best model has: `si_sdr_db`, `snr_db` (which is the
        plain SDR of music separation), or `loss`; `si_sdr_db.vocals` is that of one source.
    loss: {name: weight}, see `losses.weighted`. source_weights: {source: weight} in all losses, 0
        for those that are not named; all the same if empty. mixture_consistency: make the
        estimates add up to the mixture before the loss.
    optimizer: `adamw`, or `muon`, which is AdamW but for matrices, see `optimizers.Muon`.
    lr: Adam's learning rate, reached after `warmup` steps, then falling as a half cosine to
        `final_lr` at the end. betas: Adam's. weight_decay: AdamW's. clip: largest gradient norm, 0
        for no limit.
    plateau: keywords of `Plateau`: after the warm-up the learning rate only falls when validations
        stop improving, not as a cosine.
    stop_after: so many validations in a row without a better score end the training, 0 for never.
    gan: keywords of `Phase`: when discriminators take part, and how; none if empty.
    progressive: [resolution, step] pairs: up to this step, a model that can be is trained at a
        half (2), a quarter (4), ... of its resolution, [[4, 1000], [2, 3000]].
    ema: decay of the moving average of the weights that is validated and kept, 0 for none.
    max_bad_steps: so many steps in a row without a finite loss and gradient end the training.
    seed: of the initial weights, the order of the data, and dropout.
    audio_every: after every so many steps, what the step heard and made of it is kept to listen to,
        and so is every validation, not only the best one; 0 for the best alone. audio_files: also
        as WAV files in the run folder, not only for TensorBoard.
    log_every, validate_every: steps. save_minutes: longest time between checkpoints.
    workers: processes that make training items ahead of time.
    autocast: numbers in which the model computes products, "bf16", "fp16" (for GPUs without
        bfloat16), or "none" for float32. compile: whether torch.compile makes the model faster.
    init: a model (its name, file or run folder) whose weights the training begins with.
    teacher: a model (its name, file or run folder) whose estimates are references, too, with the
        share `teacher_weight` of all losses; see `teaching`. Empty for none.
    parallel: how several processes (of torchrun) share the work: `ddp`, each has all weights, or
        `fsdp`, each has a part of them. `batch` is that of all together.
    wandb: a project of Weights & Biases that gets the numbers of the log, too.
    """

    steps: int = 10_000
    batch: int = 8
    accumulate: int = 1
    epochs: int = 0
    validate_epochs: int = 1
    keep_epochs: list = field(default_factory=list)
    keep_every: int = 0
    keep_last: int = 0
    best: str = "si_sdr_db"
    loss: dict = field(default_factory=lambda: {"si_sdr": 1.0})
    source_weights: dict = field(default_factory=dict)
    mixture_consistency: bool = False
    optimizer: str = "adamw"
    lr: float = 1e-3
    final_lr: float = 0.0
    betas: list = field(default_factory=lambda: [0.9, 0.999])
    warmup: int = 500
    plateau: dict = field(default_factory=dict)
    weight_decay: float = 0.0
    clip: float = 5.0
    stop_after: int = 0
    gan: dict = field(default_factory=dict)
    progressive: list = field(default_factory=list)
    ema: float = 0.0
    max_bad_steps: int = 10
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    audio_every: int = 0
    audio_files: bool = False
    save_minutes: float = 10.0
    workers: int = 0
    autocast: str = "none"
    compile: bool = False
    init: str = ""
    teacher: str = ""
    teacher_weight: float = 0.5
    parallel: str = "ddp"
    wandb: str = ""

    def __post_init__(self):
        for name in AT_LEAST_1:
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in AT_LEAST_0:
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("lr", self.lr > 0, "above 0")
        self._check("ema", 0 <= self.ema < 1, "at least 0 and below 1")
        self._check("teacher_weight", 0 <= self.teacher_weight <= 1, "from 0 to 1")
        gan = self.gan and self.teacher
        self._check("teacher", not gan, "empty beside train.gan")
        betas = isinstance(self.betas, list) and len(self.betas) == 2
        self._check("betas", betas and all(0 <= b < 1 for b in self.betas), "two numbers below 1")
        self._check("autocast", self.autocast in NUMBERS, " or ".join(NUMBERS))
        self._check(
            "progressive", _are_stages(self.progressive), "pairs like [[4, 1000], [2, 3000]]"
        )
        self._check("parallel", self.parallel in PARALLEL, " or ".join(PARALLEL))
        known = OPTIMIZERS if self.parallel == "ddp" else ("adamw",)  # Muon needs whole matrices
        self._check("optimizer", self.optimizer in known, " or ".join(known))
        score, _, source = self.best.partition(".")
        valid = self.best in BEST or (score == "si_sdr_db" and source)
        self._check("best", valid, f"{' or '.join(BEST)} or si_sdr_db.SOURCE")
        weights = list(self.source_weights.values())
        numbers = all(isinstance(w, int | float) and w >= 0 for w in weights)
        self._check("source_weights", numbers and (not weights or sum(weights) > 0), WEIGHTS)
        self._check("validate_epochs", self.epochs or self.validate_epochs == 1, "1 without epochs")
        losses.weighted(self.loss)
        waveforms = losses.WAVEFORM in losses.takes(self.loss)
        self._check("gan", not self.gan or waveforms, "empty beside losses of spectra")
        config.check_keys(Phase, self.gan, section="train.gan")
        kept = isinstance(self.keep_epochs, list) and all(type(n) is int for n in self.keep_epochs)
        self._check("keep_epochs", kept, "a list of epochs such as [25, 50]")
        config.check_keys(Plateau, self.plateau, section="train.plateau")

    def for_items(self, items: int) -> Self:
        """The settings with `steps` and `validate_every` for so many training items an epoch."""
        if not self.epochs:
            return self
        if not items:
            raise SepcliError("train.epochs needs data.train.items: without, the data never ends")
        steps = -(-items // (self.batch * self.accumulate))
        every = steps * self.validate_epochs
        return replace(self, steps=self.epochs * steps, validate_every=every)

    def shares(self, sources: Sequence[str]) -> list[float] | None:
        """The weights of the model's sources in the losses; None if they are all the same."""
        if not self.source_weights:
            return None
        return [float(self.source_weights.get(name, 0)) for name in sources]

    def keeps(self, step: int) -> int:
        """The number of the epoch that ends with this step, if its model is kept, else 0."""
        epoch, rest = divmod(step, self.validate_every // self.validate_epochs)
        wanted = epoch in self.keep_epochs or (self.keep_every and epoch % self.keep_every == 0)
        return epoch if wanted and not rest else 0

    def listens(self, step: int) -> bool:
        """Whether what this step (from 1) makes is kept to listen to."""
        return bool(self.audio_every) and step % self.audio_every == 0

    def resolution(self, step: int) -> int:
        """The part of its resolution that the model is trained with in a step, 2 for a half."""
        return next((factor for factor, until in self.progressive if step < until), 1)

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step."""
        return step % self.validate_every == 0 or step >= self.steps

    def _check(self, name, valid, what):
        if not valid:
            raise SepcliError(f"train.{name} must be {what}, not {getattr(self, name)!r}")


@dataclass
class Plateau:
    """When the learning rate falls: `torch.optim.lr_scheduler.ReduceLROnPlateau` as plain data.

    factor: by which it falls after more than `patience` validations in a row whose loss was not
        below the lowest, which then pause for `cooldown` validations.
    stop_after: so many validations without a new lowest loss end the training, 0 for never.
    The defaults are those of Open-Unmix.
    """

    factor: float = 0.3
    patience: int = 80
    cooldown: int = 10
    stop_after: int = 140

    THRESHOLD = 1e-4  # part of the lowest loss by which another one has to be lower

    def start(self) -> dict[str, Any]:
        """What has happened before the first validation."""
        return {"scale": 1.0, "lowest": math.inf, "bad": 0, "pause": 0, "since_lowest": 0}

    def step(self, past: dict[str, Any], loss: float) -> dict[str, Any]:
        """What has happened after a validation with this loss; `scale` is of the learning rate."""
        now = dict(past)
        lower = loss < past["lowest"] * (1 - self.THRESHOLD)
        now["lowest"] = loss if lower else past["lowest"]
        now["since_lowest"] = 0 if lower else past["since_lowest"] + 1
        now["bad"] = 0 if lower or past["pause"] else past["bad"] + 1
        now["pause"] = max(0, past["pause"] - 1)
        if now["bad"] > self.patience:
            now |= {"scale": past["scale"] * self.factor, "bad": 0, "pause": self.cooldown}
        return now

    def is_over(self, past: dict[str, Any]) -> bool:
        """Whether the training should end."""
        return 0 < self.stop_after <= past["since_lowest"]


@dataclass(frozen=True)
class Phase:
    """When and how discriminators take part: HiFi-GAN's, see `adversarial`.

    from_step: their first step. alone_steps: so many steps they learn without being listened to;
        then the weights of what the model hears of them rise along a line for `ramp_steps` steps.
    adversarial, features: these weights, of the least squares and of the matching of features.
    shrink: divides the widths of the discriminators, 1, 2, 4 or 8.
    Their optimizer has the learning rate and the betas of the model's.
    """

    from_step: int = 0
    alone_steps: int = 0
    ramp_steps: int = 0
    adversarial: float = 0.1
    features: float = 2.0
    shrink: int = 1


def learning_rate(step: int, settings: Settings) -> float:
    """The learning rate of a step (from 0): a linear rise, then half a cosine, or no change."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.plateau:
        return settings.lr
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    fall = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return settings.final_lr + (settings.lr - settings.final_lr) * fall


def _are_stages(pairs: Any) -> bool:
    """Whether these are pairs of whole numbers, falling ones above 1 and rising ones."""
    if not all(isinstance(p, list | tuple) and [type(x) for x in p] == [int, int] for p in pairs):
        return False
    factors, ends = [p[0] for p in pairs], [p[1] for p in pairs]
    falls = factors == sorted(set(factors), reverse=True) and all(f > 1 for f in factors)
    return falls and ends == sorted(set(ends))
