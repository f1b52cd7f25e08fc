"""Pictures of decays, with matplotlib, which is loaded when the first one is drawn."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sepcli import files
from sepcli.dsp.level import TINY, to_db
from sepcli.errors import SepcliError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sepcli.rirs.responses import Room

MOST = 20  # responses in one picture
SMOOTH_MS = 2  # Hann window under which a squared response is shown


def _axes(title):
    """A new figure and its axes: dB over seconds."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SepcliError("--plot needs matplotlib; pip install 'sepcli[plot]'") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="time in s", ylabel="level in dB", ylim=(-90, 3))
    axes.grid(alpha=0.3)
    return figure, axes


def decay_figure(rooms: "Sequence[Room]") -> "Figure":
    """The decay curve of every `rooms.Room` that has one, with the line through it."""
    figure, axes = _axes("Decay")
    curves = [(room, curve) for room in rooms if (curve := room.measurement.curve)]
    for room, curve in curves[:MOST]:
        level, fit = curve.level_db, room.measurement.fit
        label = room.label
        if fit:
            label += f": {room.measurement.source} {room.measurement.rt60_s:.3f} s"
        seconds = np.arange(level.size) / room.sample_rate
        colour = axes.plot(seconds, level, label=label, linewidth=1)[0].get_color()
        if fit:
            ends = np.array([0, fit.line.reaches(-60)])
            axes.plot(ends / room.sample_rate, fit.line.at(ends), color=colour, linestyle="--")
    axes.legend(fontsize="small")
    return figure


def shortening_figure(responses: Sequence[Any]) -> "Figure":
    """Before and after `decay_rir`. responses: (label, before (R,), after (R,), sample rate)."""
    figure, axes = _axes("Response before and after")
    for label, before, after, rate in responses[:MOST]:
        window = np.hanning(round(SMOOTH_MS / 1000 * rate) + 2)[1:-1]
        window /= window.sum()
        levels = [
            to_db(np.convolve(np.square(x, dtype=np.float64), window), least=TINY)
            for x in (before, after)
        ]
        seconds = np.arange(levels[0].size) / rate
        peak = levels[0].max()
        line = axes.plot(seconds, levels[0] - peak, alpha=0.4, linewidth=1)[0]
        axes.plot(seconds, levels[1] - peak, color=line.get_color(), linewidth=1, label=label)
    axes.legend(fontsize="small", title="pale: before")
    return figure


def save(path: str | Path, figure: Any) -> None:
    """Write a figure to `path`, in the format of its extension, whole or not at all."""
    kind = Path(path).suffix[1:].lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise SepcliError(f"{path}: not a picture format; end the name in .png, .svg or .pdf")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=120)
    files.save(path, buffer.getvalue())
