"""Curves of a training as inline SVG, and where they come from: the log of a run."""

import json
import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from sepcli.errors import SepcliError
from sepcli.files import explained
from sepcli.models.modelfile import METRICS
from sepcli.scoring.boxes import round_ticks

WIDTH, HEIGHT, LEFT, TOP, PAD = 760, 240, 60, 40, 24  # pixels
COLOURS = ("#3f6db5", "#b3261e", "#2e7d32", "#8e5bb5", "#b58a00", "#00838f")


def of_run(folder: str | Path) -> list[dict[str, Any]]:
    """The records of the log in a run folder, in their order; none where there is no log.

    Raises SepcliError for a log that is damaged.
    """
    path = Path(folder, METRICS)
    if not path.is_file():
        return []
    with explained(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise SepcliError(
            f"{path}: a damaged line ({error}); omit --model, or train again"
        ) from None


def plots(records: Iterable[dict[str, Any]], step: int | None = None) -> str:
    """SVGs of the loss and of the SI-SDR over the steps of a training; `step` is marked."""
    records = list(records)
    valid = [record for record in records if record["event"] == "valid"]
    train = [record for record in records if record["event"] == "train"]
    loss = {"training": _points(train, "loss"), "validation": _points(valid, "loss")}
    names = [name for name in (valid or [{}])[0] if name.startswith("si_sdr_db_")]
    of_sources = {name.removeprefix("si_sdr_db_"): _points(valid, name) for name in names}
    quality = of_sources if len(names) > 1 else {"validation": _points(valid, "si_sdr_db")}
    return plot("Loss", loss, "", step) + plot("SI-SDR in validation", quality, "dB", step)


def _points(records, name):
    found = ((record["step"], record.get(name)) for record in records)
    return [(step, y) for step, y in found if y is not None and math.isfinite(y)]


def plot(
    title: str, lines: dict[str, list[tuple[float, float]]], unit: str, mark: float | None = None
) -> str:
    """An SVG of lines {label: [(step, y), …]}, with a vertical line at `mark`; "" of no points."""
    lines = {label: points for label, points in lines.items() if points}
    if not lines:
        return ""
    steps, values = zip(*(point for points in lines.values() for point in points), strict=True)
    across, up = round_ticks(0, max(steps)), round_ticks(min(values), max(values))

    def x(step):
        return f"{LEFT + (step - across[0]) * (WIDTH - LEFT - PAD) / (across[-1] - across[0]):.1f}"

    def y(value):
        return f"{HEIGHT - PAD - (value - up[0]) * (HEIGHT - TOP - PAD) / (up[-1] - up[0]):.1f}"

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="0" y="14">{escape(title)}</text>',
    ]
    for tick in up:
        label = f"{tick:g} {unit}".rstrip()
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - PAD}"/>')
        place = f'x="{LEFT - 6}" y="{float(y(tick)) + 4:.1f}"'
        parts.append(f'<text class="label" {place}>{escape(label)}</text>')
    for tick in across:
        parts.append(f'<text class="tick" x="{x(tick)}" y="{HEIGHT - 6}">{tick:g}</text>')
    if mark is not None:
        parts.append(f'<path class="median" d="M{x(mark)} {TOP}V{HEIGHT - PAD}"/>')
    for number, (label, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "L".join(f"{x(step)} {y(value)}" for step, value in points)
        parts.append(f'<path class="curve" style="stroke:{colour}" d="M{path}"/>')
        place = f'x="{LEFT + 120 + 110 * number}" y="14"'
        parts.append(f'<text {place} style="fill:{colour}">{escape(label)}</text>')
    return "".join([*parts, "</svg>\n"])
