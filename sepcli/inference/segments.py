"""Run what needs a whole signal over signals of any length, in segments that overlap.

At the ends of a segment a model knows little of what comes before or after, so the outer parts of
an overlap only serve as context: in its middle the one segment fades out and the next one fades in.
The weights add up to 1, so that a model that changes nothing changes nothing here either.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Where segments begin and fade, in samples: see `grid`.

    Segments of `length` begin at multiples of `advance`; the one that begins at b fades in from
    b + `context` to b + `context` + `fade`. The last one begins earlier, at a multiple of `align`,
    to be as long as the others.
    """

    length: int
    advance: int
    context: int
    fade: int
    align: int


def grid(length: int, overlap: float, align: int = 1) -> Grid:
    """The `Grid` of segments of `length` samples that share the part `overlap` with the one before.

    align: the hop of a model's frames; as segments begin at multiples of it, the frames of two
    segments are the same. Raises ValueError unless length >= 1 and 0 <= overlap < 1.
    """
    if length < 1 or not 0 <= overlap < 1:
        raise ValueError(f"need a length and 0 <= overlap < 1, got {length} and {overlap}")
    advance = max(align, int(length * (1 - overlap)) // align * align)
    length = max(length, advance)
    shared = length - advance
    fade = min(shared // 3, advance)
    return Grid(length, advance, (shared - fade) // 2, fade, align)


def in_segments(
    run: Callable[[np.ndarray, int], np.ndarray], blocks: Iterable[np.ndarray], grid: Grid
) -> Iterator[np.ndarray]:
    """Run over an iterable of blocks (C, n); yield blocks (S, C, m), in all as many samples.

    run: maps a segment (C, T), 1 <= T < grid.length + grid.align, to (S, C, T), given the position
    of its first sample, too.
    """
    heard, at = None, 0  # audio (C, n) from the position `at` on
    start, tail = 0, None  # of the next segment; what fades out there
    for block in blocks:
        heard = block if heard is None else np.concatenate([heard, block], 1)
        while at + heard.shape[1] > start + grid.length:  # more follows, so it is not the last one
            y = run(heard[:, start - at :][:, : grid.length], start)
            end = grid.advance + grid.context
            yield _join(tail, y[..., grid.context if start else 0 : end])
            tail = y[..., end : end + grid.fade].copy()
            heard, at = heard[:, start - at :], start  # the last segment may go back that far
            start += grid.advance
    if heard is None or not heard.shape[1]:
        return
    begin = max(0, at + heard.shape[1] - grid.length) // grid.align * grid.align
    y = run(heard[:, begin - at :], begin)
    yield _join(tail, y[..., start + grid.context - begin if start else 0 :])


def _join(tail, y):
    """Fade from `tail` (S, C, n) to the first n samples of y (S, C, m); return (S, C, m)."""
    if tail is None or not tail.shape[-1]:
        return y
    n = tail.shape[-1]
    rising = (np.arange(n, dtype=np.float32) + 0.5) / n
    faded = tail + (y[..., :n] - tail) * rising
    return np.concatenate([faded, y[..., n:]], -1)
