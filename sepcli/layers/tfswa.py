"""Attention over time, over frequency and in shifted windows: the blocks of TFSWA networks.

Yao et al., "TFSWA-ResUNet: music source separation with time-frequency sequence and shifted window
attention-based ResUNet", EURASIP Journal on Audio, Speech, and Music Processing 2025:39; windows
after Liu et al., "Swin Transformer", ICCV 2021.
B batch, N frames, F frequencies, D features, M sequences, L tokens in one.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2**22  # numbers that go into a layer at a time
MOST_ROWS = 4096  # sequences at a time: kernels of GPUs count those times heads in 16 bits
SHOWN = 8  # sequences of which attention maps are the mean


class Attention(nn.Module):
    """Self-attention of sequences, (M, L, D) to the same; queries, keys and values without bias."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features cannot be split among {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.out = nn.Linear(features, features)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """bias: (M or 1, heads or 1, L, L), added to the scores; or False where nothing is seen."""
        q, k, v = self._split(x)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (M, heads, L, D/heads)
        return self.out(y.transpose(1, 2).flatten(2))

    def probabilities(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """How much every token (row) takes of every other, (M, heads, L, L)."""
        q, k, _ = self._split(x)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if bias is not None:
            hidden = bias.dtype == torch.bool
            scores = torch.where(bias, scores, -torch.inf) if hidden else scores + bias
        return scores.softmax(-1)

    def _split(self, x):
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)


class Transformer(nn.Module):
    """Attention and two linear layers, each behind a layer norm and around a shortcut.

    expansion: hidden features of the linear layers, times those of the input.
    """

    def __init__(self, features: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(features), Attention(features, heads)
        self.norm2 = nn.LayerNorm(features)
        self.linear1 = nn.Linear(features, expansion * features)
        self.linear2 = nn.Linear(expansion * features, features)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Map sequences (M, L, D) to the same; `bias` as that of `Attention`."""
        x = x + self.attention(self.norm1(x), bias)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))

    def probabilities(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return self.attention.probabilities(self.norm1(x), bias)


class Axis(nn.Module):
    """A `Transformer` on one axis of (B, N, F, D): over time for every frequency, or the reverse.

    Sequences do not know of each other, so that any number may be computed at a time: see CHUNK.
    """

    def __init__(self, features: int, heads: int, *, time: bool, expansion: int = 4) -> None:
        super().__init__()
        self.layer, self.time = Transformer(features, heads, expansion), time

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.time:
            return in_chunks(self.layer, x.transpose(1, 2)).transpose(1, 2)
        return in_chunks(self.layer, x)

    @torch.no_grad()
    def map(self, x: torch.Tensor) -> torch.Tensor:
        """The attention map (L, L) of the first item: the mean of heads and of a few sequences."""
        rows = (x.transpose(1, 2) if self.time else x)[0]
        maps = [self.layer.probabilities(row[None]).mean((0, 1)) for row in _some(rows)]
        return torch.stack(maps).mean(0)


class Windows(nn.Module):
    """A `Transformer` in square windows of (B, N, F, D), which begin `shift` further on.

    Windows at the edges are smaller: what is beyond them, be it padding or, in a shifted grid, the
    other end of the spectrogram, is never looked at. An axis that fits one window is not shifted.
    position: whether scores have a learnt bias for each offset of one token from another.
    """

    offsets: torch.Tensor

    def __init__(
        self,
        features: int,
        heads: int,
        size: tuple[int, int],
        shift: tuple[int, int] = (0, 0),
        *,
        position: bool = False,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        if not all(0 <= s < w for s, w in zip(shift, size, strict=True)):
            raise ValueError(f"windows of {size} cannot be shifted by {shift}")
        self.layer, self.size, self.shift = Transformer(features, heads, expansion), size, shift
        self.position = None
        if position:
            self.position = nn.Parameter(torch.zeros((2 * size[0] - 1) * (2 * size[1] - 1), heads))
            nn.init.trunc_normal_(self.position, std=0.02)
        self.register_buffer("offsets", _offsets(*size), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, N, F_, D = x.shape
        windows, regions, rolled = self._cut(x)
        bias = self._bias if regions is not None or self.position is not None else None
        y = in_chunks(self.layer, windows, bias, regions)
        (n, f), (w, v) = rolled, self.size
        y = y.unflatten(1, (n // w, f // v)).unflatten(3, (w, v)).transpose(2, 3)
        y = y.reshape(B, n, f, D).roll(self._shift(N, F_), (1, 2))
        return y[:, :N, :F_]

    @torch.no_grad()
    def map(self, x: torch.Tensor) -> torch.Tensor:
        """The attention map (L, L) of the first item: the mean of heads and of a few windows."""
        windows, regions, _ = self._cut(x)
        chosen = _some(torch.arange(windows.shape[1], device=x.device))
        bias = self._bias(None if regions is None else regions[chosen])
        return self.layer.probabilities(windows[0, chosen], bias).mean((0, 1))

    def _shift(self, *sizes):
        """By how much windows are shifted on each axis of these sizes."""
        fits = (size <= w for size, w in zip(sizes, self.size, strict=True))
        return tuple(0 if fit else s for fit, s in zip(fits, self.shift, strict=True))

    def _cut(self, x):
        """The windows (B, M, L, D), the `regions` of their tokens (M, L) or None, and (n, f)."""
        N, F_ = x.shape[1:3]
        n, f = (-(-size // w) * w for size, w in zip((N, F_), self.size, strict=True))
        shift = self._shift(N, F_)
        x = F.pad(x, (0, 0, 0, f - F_, 0, n - N)).roll([-s for s in shift], (1, 2))
        windows = _tiled(x, self.size)
        if not any(shift) and (n, f) == (N, F_):
            return windows, None, (n, f)
        time, frequency = (
            _sides(padded, size, s, x.device)
            for padded, size, s in zip((n, f), (N, F_), shift, strict=True)
        )
        regions = 3 * time[:, None] + frequency[None]  # (n, f)
        return windows, _tiled(regions[None, ..., None], self.size)[0, ..., 0], (n, f)

    def _bias(self, regions):
        """What is added to the scores of windows with tokens of these regions (M, L)."""
        alike = (
            None if regions is None else (regions[:, None, :, None] == regions[:, None, None, :])
        )
        if self.position is None:
            return alike
        bias = self.position[self.offsets].permute(2, 0, 1)[None]  # (1, heads, L, L)
        return bias if alike is None else torch.where(alike, bias, -torch.inf)


def in_chunks(
    layer: nn.Module, x: torch.Tensor, bias: Any = None, regions: Any = None
) -> torch.Tensor:
    """`layer` on the sequences of x (B, M, L, D), a number of them at a time, to the same.

    bias: makes what the layer takes besides, of None or of the chunk's part of `regions` (M, L).
    """
    y = None if torch.is_grad_enabled() else torch.empty_like(x)
    parts = []
    for part in _parts(x):
        rows = x[:, part].flatten(0, 1)
        extra = [] if bias is None else [_repeated(bias(_taken(regions, part)), len(x), len(rows))]
        done = layer(rows, *extra).unflatten(0, (len(x), -1))
        if y is None:
            parts.append(done)
        else:
            y[:, part] = done
    return torch.cat(parts, 1) if y is None else y


def _parts(x: torch.Tensor) -> Iterator[slice]:
    """Slices of the sequences of (B, M, L, D)."""
    B, M, L, D = x.shape
    size = max(1, min(CHUNK // (L * D), MOST_ROWS) // B)
    yield from (slice(at, at + size) for at in range(0, M, size))


def _taken(regions, part):
    return None if regions is None else regions[part]


def _repeated(bias, batch, rows):
    """The bias (M or 1, ...) for all of a batch."""
    return bias if len(bias) == 1 or len(bias) == rows else bias.repeat(batch, 1, 1, 1)


def _tiled(x, size):
    """(B, n, f, D) in windows of whole multiples, (B, M, L, D)."""
    (w, v), (B, n, f, D) = size, x.shape
    x = x.reshape(B, n // w, w, f // v, v, D).transpose(2, 3)
    return x.reshape(B, -1, w * v, D)


def _sides(padded, size, shift, device):
    """0, 1 or 2 for every place of a rolled axis: as it was, from the other end, or padding."""
    place = torch.arange(padded, device=device).roll(-shift)
    return (place < shift).long() + 2 * (place >= size).long()


def _offsets(w, v):
    """Which entry of a table is for the offset of token i from token j of a window, (L, L)."""
    rows, columns = torch.meshgrid(torch.arange(w), torch.arange(v), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None] + w - 1
    return down * (2 * v - 1) + columns[:, None] - columns[None] + v - 1


def _some(rows):
    """A few of `rows`, equally far from each other."""
    return rows[:: max(1, -(-len(rows) // SHOWN))]


class Block(nn.Module):
    """Attention over time, over frequency and in windows side by side; (B, D, N, F) to the same.

    A linear layer goes into the three and another one joins them, both with batch norm, around a
    shortcut. 40 D^2 + 36 D parameters with an expansion of 4.
    """

    def __init__(self, features: int, heads: int, window: Any, shift: Any, **options: Any) -> None:
        super().__init__()
        expansion = options.get("expansion", 4)
        self.enter, self.norm1 = nn.Linear(features, features), nn.BatchNorm2d(features)
        self.time, self.frequency = (
            Axis(features, heads, time=time, expansion=expansion) for time in (True, False)
        )
        self.windows = Windows(features, heads, window, shift, **options)
        self.join, self.norm2 = nn.Linear(3 * features, features), nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = last(self.norm1(first(self.enter(last(x)))))
        weights = self.join.weight.chunk(3, 1)
        y = self.join.bias
        for layer, weight in zip(self.attention.values(), weights, strict=True):
            y = y + F.linear(layer(h), weight)  # as if the three were one vector of 3 D features
        return x + F.gelu(self.norm2(first(y)))

    @property
    def attention(self) -> dict[str, Any]:
        """The layers that have attention maps."""
        return {"time": self.time, "frequency": self.frequency, "windows": self.windows}


class ResidualBlock(nn.Module):
    """Attention over time, then over frequency, and around two more in windows a shortcut.

    The module of the TFSWA-ResUNet: (B, D, N, F) to the same. The second windows are shifted.
    """

    def __init__(self, features: int, heads: int, window: Any, shift: Any, **options: Any) -> None:
        super().__init__()
        expansion = options.get("expansion", 4)
        self.time, self.frequency = (
            Axis(features, heads, time=time, expansion=expansion) for time in (True, False)
        )
        self.windows = Windows(features, heads, window, **options)
        self.shifted = Windows(features, heads, window, shift, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.frequency(self.time(last(x)))
        return first(y + self.shifted(self.windows(y)))

    @property
    def attention(self) -> dict[str, Any]:
        """The layers that have attention maps."""
        kinds = {"time": self.time, "frequency": self.frequency, "windows": self.windows}
        return kinds | {"shifted": self.shifted}


def computed_again(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`block(x)`, once more in the backward pass, which saves memory and changes no bit.

    Batch norm counts what it hears only once.
    """
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    done: Any = checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _deaf(norms))
    )
    return done


@contextmanager
def _deaf(norms):
    """Let layers of batch norm compute without keeping what they hear."""
    heard = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, before in zip(norms, heard, strict=True):
                for buffer, value in zip(norm.buffers(), before, strict=True):
                    buffer.copy_(value)


def last(x: torch.Tensor) -> torch.Tensor:
    """(B, D, N, F) as (B, N, F, D)."""
    return x.permute(0, 2, 3, 1)


def first(x: torch.Tensor) -> torch.Tensor:
    """(B, N, F, D) as (B, D, N, F)."""
    return x.permute(0, 3, 1, 2)


def has_attention(model: nn.Module) -> bool:
    """Whether a model has attention maps."""
    return any(isinstance(layer, Block | ResidualBlock) for layer in model.modules())


@torch.no_grad()
def attention_maps(model: Any, x: torch.Tensor, *, largest: int = 256) -> dict[str, torch.Tensor]:
    """The attention maps (L, L) of the last block of every level for a mixture (1, C, T).

    By names such as `attention/encoder.0.1/time`; larger ones than `largest` are means of squares.
    The model is left as it was.
    """
    blocks = {name: b for name, b in model.named_modules() if isinstance(b, Block | ResidualBlock)}
    levels = {name.rpartition(".")[0]: name for name in blocks}  # the last one of each
    maps: dict[str, torch.Tensor] = {}

    def keeper(name):
        def keep(layer, inputs):
            if name not in maps:
                maps[name] = smaller(layer.map(inputs[0]), largest).cpu()

        return keep

    hooks = [
        layer.register_forward_pre_hook(keeper(f"attention/{name}/{kind}"))
        for name in levels.values()
        for kind, layer in blocks[name].attention.items()
    ]
    training = model.training
    try:
        model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return maps


def smaller(shown: torch.Tensor, largest: int) -> torch.Tensor:
    """A map (L, L) of at most `largest` rows: means over columns, sums over what is attended to."""
    step = -(-len(shown) // largest)
    if step == 1:
        return shown
    return F.avg_pool2d(shown[None], step, ceil_mode=True)[0] * step
