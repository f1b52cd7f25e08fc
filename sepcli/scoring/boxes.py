"""Box plots as inline SVG: drawn in the colours of the page, without a library."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

MOST = 100  # boxes in one plot
ROW, LABEL, WIDTH, PAD = 18, 220, 760, 24  # pixels
LONGEST = 30  # characters of a label


def plot(title: str, rows: Iterable[tuple[str, Any]], unit: str) -> str:
    """An SVG of a box per row: (label, scores), any number of scores of which some may be NaN.

    A box is the middle half, its line the median; whiskers go from the 5th to the 95th percentile.
    Rows without a finite score are left out; of more than `MOST` rows some are, too.
    """
    rows = [(label, np.asarray(scores)[np.isfinite(scores)]) for label, scores in rows]
    rows = [
        (label, np.percentile(scores, [5, 25, 50, 75, 95])) for label, scores in rows if scores.size
    ]
    if not rows:
        return ""
    if len(rows) > MOST:
        title += f" ({MOST} of {len(rows)})"
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, MOST).round().astype(int)]
    ticks = round_ticks(min(q[0] for _, q in rows), max(q[4] for _, q in rows))
    scale = (WIDTH - LABEL - PAD) / (ticks[-1] - ticks[0])

    def x(value):
        return f"{LABEL + (value - ticks[0]) * scale:.1f}"

    height = ROW * len(rows) + 2 * PAD
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="0" y="14">{escape(title)}</text>',
    ]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{x(tick)} {PAD}V{height - PAD}"/>')
        label = f"{tick:g} {unit}".rstrip()
        parts.append(f'<text class="tick" x="{x(tick)}" y="{height - 8}">{escape(label)}</text>')
    for i, (label, quantiles) in enumerate(rows):
        y = PAD + ROW * i
        low, first, median, third, high = map(x, quantiles)
        box = float(third) - float(first)
        parts += [
            f"<g><title>{escape(label)}: median {quantiles[2]:.2f} {escape(unit)}</title>",
            f'<text x="{LABEL - 8}" y="{y + 13}" class="label">{escape(_short(label))}</text>',
            f'<path class="whisker" d="M{low} {y + 9}H{high}"/>',
            f'<rect class="box" x="{first}" y="{y + 3}" width="{max(box, 1):.1f}" height="12"/>',
            f'<path class="median" d="M{median} {y + 2}V{y + 16}"/></g>',
        ]
    return "".join([*parts, "</svg>\n"])


def _short(label):
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def round_ticks(low: float, high: float) -> list[float]:
    """Some round numbers, the first at most `low` and the last at least `high`."""
    span = max(high - low, 1e-3)
    power = 10.0 ** np.floor(np.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    first, last = np.floor(low / step), np.ceil(high / step)
    return [float(f"{n * step:.6g}") for n in np.arange(first, max(last, first + 1) + 1)]
