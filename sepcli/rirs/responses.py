"""Impulse responses (RIRs) from files, folders and pipes: measured, and shortened."""

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.dsp import acoustics, decay, octaves
from sepcli.errors import SepcliError, note
from sepcli.recordings.pools import find_audio
from sepcli.recordings.stored import checked
from sepcli.samples.inputs import distinct, folders_of

STDIN = "stdin"  # what standard input is called
FIGURES = {  # of a Measurement: (title in the table, decimals)
    "rt60_s": ("RT60 s", 3),
    "source": ("from", None),
    "edt_s": ("EDT s", 3),
    "t20_s": ("T20 s", 3),
    "t30_s": ("T30 s", 3),
    "c50_db": ("C50 dB", 1),
    "c80_db": ("C80 dB", 1),
    "d50": ("D50", 2),
    "drr_db": ("DRR dB", 1),
    "decay_db": ("decay dB", 1),
}
PER_OCTAVE = {"octave": 1, "third": 3}


@dataclass(frozen=True)
class Room:
    """One row of results: a channel (from 1) of a file, in a band (None: all frequencies)."""

    file: str
    channel: int
    channels: int
    sample_rate: int
    band: octaves.Band | None
    method: str
    measurement: acoustics.Measurement

    @property
    def label(self) -> str:
        """What to call it in a message."""
        parts = [self.file]
        if self.channels > 1:
            parts.append(f"channel {self.channel}")
        if self.band:
            parts.append(f"{self.band.nominal} Hz")
        return ", ".join(parts)

    @property
    def measurable(self) -> bool:
        """Whether there is a reverberation time."""
        return not math.isnan(self.measurement.rt60_s)


def find_responses(inputs: Sequence[str]) -> Iterator[str]:
    """The paths that files, folders, globs and lists stand for, sorted by input; "-" stays."""
    for source in inputs:
        yield from (source,) if source == "-" else find_audio(source)


def open_response(path: str | Path) -> Any:
    """An `audio.Reader` of a file, or of standard input for "-"."""
    if path != "-":
        return audio.open_blocks(checked(path))
    if sys.stdin is None or sys.stdin.isatty():
        raise SepcliError("nothing on standard input; pipe a WAV in, or name a file")
    return audio.open_blocks(sys.stdin.buffer, name=STDIN)


def check_response(response: np.ndarray, name: str | Path) -> np.ndarray:
    """Return (C, R), or raise SepcliError if it cannot be an impulse response."""
    if not response.any():
        raise SepcliError(f"{name}: silent, so it is not an impulse response; remove it")
    return response


def measure_rooms(
    path: str | Path,
    *,
    band: str = "none",
    method: str = "schroeder",
    range_db: float | None = None,
    window_ms: float | None = None,
) -> Iterator[Room]:
    """Yield a `Room` for every channel and band of a file or, for "-", of standard input.

    band: "octave", "third" or "none". The rest is for `acoustics.measure_rir`. Raises SepcliError.
    """
    with open_response(path) as reader:
        name = STDIN if path == "-" else path
        response = check_response(reader.rest(), name)
        rate, channels = reader.sample_rate, reader.channels
    bands = octaves.bands(rate, PER_OCTAVE[band]) if band != "none" else [None]
    if not bands:
        raise SepcliError(f"{name}: no {band} fits below half of its {rate} Hz; use --band none")
    for channel, rir in enumerate(response, start=1):
        for part in bands:
            found = acoustics.measure_rir(
                rir, rate, method=method, range_db=range_db, band=part, window_ms=window_ms
            )
            yield Room(str(name), channel, channels, rate, part, method, found)


def as_json(room: Room) -> str:
    """One line of JSON: null is what could not be measured, `not_measurable` tells why."""
    found = room.measurement
    record = {
        "file": room.file,
        "channel": room.channel,
        "band_hz": room.band and room.band.nominal,
        "method": room.method,
    }
    for name in FIGURES:
        value = getattr(found, name)
        if isinstance(value, float):
            value = round(value, 6) if math.isfinite(value) else None
        record[name] = value
    record["r2"] = found.fit and round(found.fit.correlation, 6)
    record["not_measurable"] = found.reasons
    return json.dumps(record)


def table(rooms: Sequence[Room]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of strings for a list of rooms; channels and bands only where there are."""
    labels = {"file": lambda room: room.file}
    if any(room.channels > 1 for room in rooms):
        labels["channel"] = lambda room: str(room.channel)
    if any(room.band for room in rooms):
        labels["band Hz"] = lambda room: str(room.band.nominal)
    header = [*labels, *(title for title, _ in FIGURES.values())]
    rows = [
        [*(label(room) for label in labels.values()), *_cells(room.measurement)] for room in rooms
    ]
    return header, rows


def _cells(found):
    for name, (_, decimals) in FIGURES.items():
        value = getattr(found, name)
        if isinstance(value, float):
            value = None if math.isnan(value) else f"{value:.{decimals}f}"
        yield value or "-"


def remarks(rooms: Sequence[Room]) -> list[str]:
    """A line for every room that has no reverberation time, saying why."""
    return [
        f"{room.label}: not measurable, {room.measurement.reasons['rt60_s']}"
        + ("" if room.band else "; --band octave may find more")
        for room in rooms
        if not room.measurable
    ]


def output_paths(inputs: Sequence[str], folder: str | Path) -> dict[Any, Path]:
    """{path: where its shortened copy goes below `folder`}, keeping the tree of folders.

    Files of the same name in several of the inputs get the names of their folders in front.
    """
    found = {}  # where it is: (path, name, folders above)
    for source in inputs:
        for path in find_audio(source):
            is_folder = os.path.isdir(source)
            name = os.path.relpath(path, source) if is_folder else os.path.basename(path)
            above = folders_of(source if is_folder else path)
            found.setdefault(os.path.abspath(path), (path, name, above))
    paths, names, above = zip(*found.values(), strict=True)
    return {path: Path(folder, n) for path, n in zip(paths, distinct(names, above), strict=True)}


def shorten(path: str | Path, target: Any, **settings: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Write the RIRs of `path` ("-": standard input) through `decay.decay_rir` to `target`.

    target: a path, or a binary stream that gets WAV. Rate, channels and, where the format can hold
    it, the sample format stay. Samples that clip are told in a note. Returns (before, after, sample
    rate), the responses (C, R).
    """
    with open_response(path) as reader:
        before = check_response(reader.rest(), STDIN if path == "-" else path)
        rate, subtype, container = reader.sample_rate, reader.subtype, reader.format
    after = decay.decay_rir(before, rate, **settings)
    extension = Path(target).suffix[1:].lower() if isinstance(target, str | Path) else "wav"
    if extension not in audio.FORMATS and container.lower() in audio.FORMATS:
        extension = container.lower()
    known = audio.FORMATS.get(extension, (None, ()))[1]
    subtype = subtype if subtype in known else None
    with audio.Writer(target, rate, len(after), subtype=subtype, format=extension) as writer:
        writer.write(after)
    if writer.clipped:
        note(writer.remark)
    return before, after, rate
