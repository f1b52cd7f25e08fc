"""The phase of a training in which discriminators listen: steps of their own, after the others.

Both sides move in the same step, by gradients that were computed before either did. The
discriminators learn to tell the estimates from the references; the model still learns by the losses
of the configuration, and by what the discriminators make of its estimates. Where a target is absent
there is nothing to tell apart.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from sepcli import losses
from sepcli.layers.hifigan import (
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from sepcli.losses import waveforms
from sepcli.training import validation
from sepcli.training.settings import Phase, Settings
from sepcli.training.stepping import Batch, account, add_up, backward, separated


class Adversary:
    """Discriminators and their optimizer, a part of the state of a training."""

    def __init__(self, settings: Settings, device: str | torch.device) -> None:
        self.phase = Phase(**settings.gan)
        self.net = Discriminators(shrink=self.phase.shrink).to(device)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=settings.lr, betas=(settings.betas[0], settings.betas[1])
        )

    def listens(self, step: int) -> bool:
        """Whether the step (from 0) is one of the phase."""
        return step >= self.phase.from_step

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])

    def move(self, lr: float, clip: float) -> None:
        """Let the discriminators take a step by the gradients that they have."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip or float("inf"))
        self.optimizer.step()


def step(
    state: Any,
    parts: Iterable[Batch],
    loss_fn: Callable[..., Any],
    settings: Settings,
    device: str | torch.device,
) -> tuple[dict[str, float], dict[str, Any]]:
    """As `stepping.step`, with the adversary, whose gradients are added, too."""
    adversary: Adversary = state.adversary
    phase = adversary.phase
    share = losses.ramp(phase.from_step + phase.alone_steps, phase.ramp_steps, state.step)
    extra = ("discriminator", "adversarial", "features")
    values: dict[str, float] = dict.fromkeys(("loss", *settings.loss, *extra), 0.0)
    quality: dict[str, Any] = {}
    adversary.optimizer.zero_grad(set_to_none=True)
    for part in parts:
        estimates, refs, mix = separated(state, part, settings, device)
        loss, terms = loss_fn(estimates, refs, mix, state.step)
        present = ~waveforms.is_silent(refs, mix)  # (B, S, C)
        if present.any():
            real, fake = refs[present][:, None], estimates[present][:, None]  # (n, 1, T)
            terms["discriminator"] = _teach(adversary, real, fake.detach(), settings)
            if share:
                heard = _listen(adversary, real, fake)
                terms |= heard
                weighted = (
                    phase.adversarial * heard["adversarial"] + phase.features * heard["features"]
                )
                loss = loss + share * weighted
        backward(state, loss, settings)
        account(values, {"loss": loss, **terms}, settings)
        add_up(quality, validation.totals(estimates.detach(), refs, mix))
    return values, quality


def _teach(adversary, real, fake, settings):
    """The discriminators' loss, whose gradients are added to theirs."""
    loss = discriminator_loss(adversary.net(real)[0], adversary.net(fake)[0])
    (loss / settings.accumulate).backward()
    return loss.detach()


def _listen(adversary, real, fake):
    """What the model hears of the discriminators, who do not learn by it."""
    adversary.net.requires_grad_(False)
    with torch.no_grad():
        _, wanted = adversary.net(real)
    scores, features = adversary.net(fake)
    adversary.net.requires_grad_(True)
    return {"adversarial": adversarial_loss(scores), "features": feature_loss(wanted, features)}
