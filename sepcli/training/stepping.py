"""What one step of training does with its batches: estimates, losses, gradients."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from sepcli.training import precision, validation
from sepcli.training.settings import Settings

Batch = Sequence[torch.Tensor]  # mixtures (B, C, T), references (B, S, C, T), maybe enrolments


def step(
    state: Any,
    parts: Iterable[Batch],
    loss_fn: Callable[..., Any],
    settings: Settings,
    device: str | torch.device,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Add the gradients of the batches of a step; returns (means of the losses, sums of scores).

    state: of the training, see `loop.State`. loss_fn: as `losses.weighted` makes it. The sums are
    those of `validation.totals`.
    """
    values: dict[str, float] = dict.fromkeys(("loss", *settings.loss), 0.0)
    quality: dict[str, Any] = {}
    for part in parts:
        estimates, refs, mix = separated(state, part, settings, device)
        loss, terms = loss_fn(estimates, refs, mix, state.step)
        if state.teacher is not None:
            wanted = taught(state, part[0], settings, device)
            terms["teacher"], _ = loss_fn(estimates, wanted, mix, state.step)
            loss = loss.lerp(terms["teacher"], settings.teacher_weight)
        backward(state, loss, settings)
        account(values, {"loss": loss, **terms}, settings)
        add_up(quality, validation.totals(estimates.detach(), refs, mix))
    return values, quality


def separated(
    state: Any, part: Batch, settings: Settings, device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimates and references (B, S, C, T) and mixtures (B, C, T) of a batch, or their spectra.

    part: what this process has of the batch, see `ranks`; the results are all of it.
    """
    mix, refs, *enroll = (x.to(device) for x in part)
    mix, refs = validation.as_taken(state.model, settings, mix, refs)
    with precision.autocast(settings, device):
        estimates = state.estimate(mix, enroll)
    gathered = state.ranks.gathered
    estimates, refs, mix = gathered(estimates.to(refs.dtype)), gathered(refs), gathered(mix)
    if settings.listens(state.step + 1) and not state.audio:  # of the first part
        is_sound = not part[0].is_complex()
        samples = part[0].shape[-1] if is_sound else (mix.shape[-1] - 1) * state.model.stft.hop
        state.audio = validation.listen(state.model, mix, refs, estimates, samples)
    return estimates, refs, mix


def taught(
    state: Any, mix: torch.Tensor, settings: Settings, device: str | torch.device
) -> torch.Tensor:
    """What the teacher makes of mixtures (B, C, T), as `separated` has references."""
    (wanted,) = validation.as_taken(state.model, settings, state.teacher.references(mix.to(device)))
    return state.ranks.gathered(wanted)


def backward(state: Any, loss: torch.Tensor, settings: Settings) -> None:
    """Add the gradients of the loss of a batch.

    Those of the parts of a batch add up, and processes have the mean of them.
    """
    state.scaler.scale(loss * (state.ranks.size / settings.accumulate)).backward()


def account(values: dict[str, float], terms: dict[str, torch.Tensor], settings: Settings) -> None:
    """Add the losses of one of the batches of a step to their means."""
    add_up(values, {name: value.item() / settings.accumulate for name, value in terms.items()})


def add_up(sums: dict[str, Any], values: dict[str, Any]) -> None:
    """Add each of `values` to its sum."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value
