"""What masks of part of a song's spectrum need: a check, the frequencies above, and the rest."""

from collections.abc import Sequence

import torch

EDGE = 128  # highest masked frequencies, whose mean mask is that of all above


def check(name: str, sources: Sequence[str], bins: int, unit: int, window: int) -> None:
    """Raise ValueError where the model `name` cannot mask these sources, or so many frequencies."""
    if len(sources) not in (1, 2):
        raise ValueError(f"{name} has one mask: name one source, or it and the rest")
    if not 0 < bins <= window // 2 or bins % unit:
        raise ValueError(f"bins must be a multiple of {unit} up to {window // 2}, not {bins}")


def to_all_frequencies(mask: torch.Tensor, count: int) -> torch.Tensor:
    """A mask (B, C, F, N) of the lowest frequencies as one of `count`: (B, C, count, N)."""
    above = mask[:, :, -EDGE:].mean(2, keepdim=True)
    return torch.cat([mask, above.expand(-1, -1, count - mask.shape[2], -1)], 2)


def with_rest(
    estimate: torch.Tensor, mixture: torch.Tensor, sources: Sequence[str]
) -> torch.Tensor:
    """One source (B, ...) of a mixture (B, ...), and the rest if that is the second of `sources`.

    Returns (B, S, ...).
    """
    return torch.stack([estimate, mixture - estimate][: len(sources)], 1)


def mid_side(x: torch.Tensor) -> torch.Tensor:
    """M = (L + R) / sqrt 2 and S = (L - R) / sqrt 2 of (B, 2, ...), or the other way round."""
    left, right = x.unbind(1)
    return torch.stack([left + right, left - right], 1) * 0.5**0.5
