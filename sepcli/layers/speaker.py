"""Layers that find out who speaks, and lead a network to one voice.

B batch, C channels, F frequencies, N frames, M frames of the references, E of an embedding.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sepcli.dsp.mel import mel_filters
from sepcli.layers.tcn import Tcn

FLOOR = 1e-9  # added to powers
QUIET_DB = 40.0  # below the loudest frame: what of a reference is a pause
LEAST = -12.0  # logarithm of how surely a frame is spoken: 76 dB below the loudest one


def loudness_db(power: torch.Tensor) -> torch.Tensor:
    """Loudness (B, M) of the frames of powers (B, F, M), in dB."""
    return 10 * torch.log10(power.sum(1) + FLOOR)


def spoken(power: torch.Tensor) -> torch.Tensor:
    """How surely each frame of powers (B, F, M) is not a pause, (B, M) from 0 to 1."""
    return _above_pauses(power).sigmoid()


def log_spoken(power: torch.Tensor) -> torch.Tensor:
    """The logarithm of `spoken`, not below LEAST."""
    return F.logsigmoid(_above_pauses(power)).clamp(min=LEAST)


def _above_pauses(power):
    loud = loudness_db(power)
    return (loud - loud.amax(-1, keepdim=True) + QUIET_DB) / 3


class SpeakerEncoder(nn.Module):
    """Powers (B, F, M) of someone's speech to a unit vector (B, E) that tells voices apart.

    Logarithmic mel bands, re their mean level, go through a temporal convolutional network; means
    and standard deviations over the frames that are no pauses are mapped to the embedding.
    """

    filters: torch.Tensor

    def __init__(
        self, sample_rate: int, window: int, *, bands: int, channels: int, blocks: int, size: int
    ) -> None:
        super().__init__()
        filters = mel_filters(sample_rate, window, bands)
        self.register_buffer("filters", filters / filters.sum(1, keepdim=True), persistent=False)
        self.input = nn.Conv1d(bands, channels, 1)
        self.tcn = Tcn(channels, 2 * channels, skip=0, blocks=blocks, repeats=1, causal=False)
        self.output = nn.Linear(2 * channels, size)

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        weights = spoken(power)
        weights = (weights / weights.sum(-1, keepdim=True))[:, None]  # (B, 1, M)
        mel = (self.filters @ power + FLOOR).log()
        mel = mel - (mel * weights).sum((1, 2), keepdim=True) / mel.shape[1]
        hidden = self.tcn(self.input(mel / 3))  # (B, C, M)
        mean = (hidden * weights).sum(-1)
        variance = ((hidden - mean[..., None]).square() * weights).sum(-1)
        pooled = torch.cat([mean, (variance + FLOOR).sqrt()], 1)
        return F.normalize(self.output(pooled), dim=1)


class Likeness(nn.Module):
    """What of the references resembles each frame of a mixture; nothing here is learned.

    Every frame attends to those of the references by the cosine of the roots of their magnitudes.
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def keys(self, power: torch.Tensor) -> torch.Tensor:
        """Powers (B, F, M) of the references as unit vectors."""
        return F.normalize(power**0.25, dim=1)

    def forward(
        self, power: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Powers (B, F, N) as the references would have them, and the likeness (B, 1, N).

        bias (B, M): added to the logits of the references' frames.
        """
        roots = power**0.25
        length = roots.square().sum(1, keepdim=True).sqrt()  # (B, 1, N)
        with torch.autocast(power.device.type, enabled=False):
            cosines = (roots / length).transpose(1, 2) @ keys  # (B, N, M)
            weights = (self.sharpness * cosines + bias[:, None]).softmax(-1)
            found = keys @ weights.transpose(1, 2) * length  # (B, F, N)
            likeness = (cosines * weights).sum(-1)[:, None]
        return found**4, likeness


class Film(nn.Module):
    """Gains and offsets of features (B, C, N) that an embedding (B, E) says; none at first."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        gain, offset = self.linear(embedding)[..., None].chunk(2, 1)
        return x * (1 + gain) + offset


class Recall(nn.Module):
    """Attention of a mixture's features (B, C, N) to the references', with a residual path."""

    def __init__(self, channels: int, keys: int, values: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv1d(channels, keys, 1)
        self.memory = nn.Conv1d(channels, keys + values, 1)
        self.output = nn.Conv1d(values, channels, 1)
        self.sizes = [keys, values]

    def remember(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys (B, K, M) and values (B, V, M) of the references' features (B, C, M)."""
        return self.memory(x).split(self.sizes, 1)

    def forward(self, x: torch.Tensor, keys: Any, values: Any, bias: torch.Tensor) -> torch.Tensor:
        query, keys, values = (
            part.unflatten(1, (self.heads, -1)).transpose(2, 3)  # (B, heads, N or M, features)
            for part in (self.query(x), keys, values)
        )
        scores = query @ keys.transpose(2, 3) * keys.shape[-1] ** -0.5 + bias[:, None, None]
        found = scores.float().softmax(-1).to(values.dtype) @ values
        return x + self.output(found.transpose(2, 3).flatten(1, 2))
