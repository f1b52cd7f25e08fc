"""Some of the samples that are scored, to look at and to listen to: excerpts of bounded size."""

import io
import itertools
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli import metrics
from sepcli.audio import Writer
from sepcli.audio.writing import RATES
from sepcli.dsp.level import to_db
from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample
from sepcli.scoring.evaluate import Row
from sepcli.scoring.targets import find_targets, padded
from sepcli.signals.resampling import resample

ENDS = 3  # so many of the best and of the worst are kept
SECONDS = 10  # of an excerpt, so that a report does not grow with the length of the songs
ROWS, COLUMNS = 128, 400  # pixels of a spectrogram: frequencies, times
LOWEST_HZ, HIGHEST_HZ, RANGE_DB = 60, 16000, 70
COLOURS = (
    (0, 0, 4),
    (60, 15, 110),
    (140, 41, 129),
    (222, 73, 104),
    (254, 159, 109),
    (252, 253, 191),
)


@dataclass(frozen=True)
class Excerpt:
    """A part of one signal: MP3 bytes, and PNG bytes of its spectrogram."""

    name: str  # of the signal, as in a sample
    sound: bytes
    picture: bytes
    start_s: float  # where it begins
    seconds: float
    band_hz: tuple[float, float]  # of the picture, logarithmic from its lower edge to its upper


class Gallery:
    """The best and the worst of a stream of samples, by the first score of their first target.

    Only excerpts of these are kept, and samples that are not scored yet: memory grows neither with
    the number of the samples nor with their lengths.
    """

    def __init__(self) -> None:
        self._waiting = deque()  # samples that were read and are not scored yet
        self._kept = []  # (score, key, [Excerpt, ...]), from the worst to the best
        self._newest = None  # (score, sample, names of the targets seen so far)

    def watch(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Pass samples on, remembering them until `see` was given their rows."""
        for sample in samples:
            self._waiting.append(sample)
            yield sample

    def see(self, row: Row) -> None:
        """Take an `evaluate.Row`; rows come in the order of the samples."""
        while self._waiting and self._waiting[0].key != row.key:
            self._keep()
            self._waiting.popleft()
        if row.error or not self._waiting:
            return
        name, score = next(iter(row.scores.items()), ("", np.nan))
        if self._newest:
            self._newest[2].append(row.target)
        elif np.isfinite(score):
            sign = 1 if metrics.find(name).more_is_better else -1
            self._newest = sign * float(score), self._waiting[0], [row.target]

    def items(self) -> Iterator[tuple[str, list[Excerpt]]]:
        """Yield (key, [Excerpt, ...]) of the samples kept, from the worst to the best."""
        self._keep()
        for _, key, found in self._kept:
            yield key, found

    def _keep(self):
        """Take excerpts of the newest sample, all of whose rows were seen, if it is to be kept."""
        if not self._newest:
            return
        score, sample, targets = self._newest
        self._newest = None
        middle = self._kept[ENDS - 1 : ENDS + 1]  # the best of the worst, the worst of the best
        if len(self._kept) == 2 * ENDS and middle[0][0] <= score <= middle[1][0]:
            return
        with suppress(SepcliError):  # a mixture, say, that no score needed cannot be read
            entry = score, sample.key, list(excerpts(sample, targets))
            self._insert(entry)

    def _insert(self, entry):
        self._kept = sorted([*self._kept, entry], key=lambda entry: entry[0])
        if len(self._kept) > 2 * ENDS:
            del self._kept[ENDS]


def excerpts(sample: Sample, targets: Sequence[str]) -> Iterator[Excerpt]:
    """Yield an `Excerpt` of the mixture, and of every target's estimate and reference.

    All are from the same place, where the first target's reference is loudest.
    """
    found = {target.name: target for target in find_targets(sample, alone=True)}
    start = _loudest(sample, found[targets[0]].signals)
    signals: dict[str, tuple[str, ...]] = {"mixture": ("mix",)} if sample.has("mix") else {}
    for name in targets:
        signals[f"{name}, estimate"] = (found[name].estimate,)
        if found[name].reference:
            signals[f"{name}, reference"] = found[name].reference
    sounds = {name: _cut(sample, parts, start) for name, parts in signals.items()}
    powers = {name: _power(sound, sample.sample_rate) for name, sound in sounds.items()}
    top = max(power.max() for power in powers.values())
    for name, sound in sounds.items():
        rate, drawn = sample.sample_rate, picture(powers[name], top)
        span = start / rate, sound.shape[1] / rate
        yield Excerpt(name, _mp3(sound, rate), drawn, *span, band_of(rate))


def _loudest(sample, parts):
    """The first frame of the loudest `SECONDS` of the signals `parts`, which are added up."""
    rate, levels = sample.sample_rate, []
    with sample.open(parts[0]) as reader:
        for block in reader.blocks(rate):  # of 1 s
            levels.append(float(np.square(block).sum()))
    window = np.convolve(levels, np.ones(min(SECONDS, len(levels))), "valid")
    return int(np.argmax(window)) * rate


def _cut(sample, parts, start):
    """At most two channels (C, T) of an excerpt of the signals `parts`, added up."""
    cuts = []
    for name in parts:
        with sample.open(name) as reader:
            reader.skip(start)
            cuts.append(reader.rest(SECONDS * sample.sample_rate)[:2])
    longest = max(cut.shape[1] for cut in cuts)
    return np.sum([padded(cut, longest) for cut in cuts], axis=0)


def _mp3(sound, rate):
    buffer = io.BytesIO()
    rates = RATES["MPEG_LAYER_III"]
    nearest = max(r for r in rates if r <= max(rate, rates[0]))
    sound = resample(sound, rate, nearest)
    with Writer(buffer, nearest, len(sound), format="mp3") as writer:
        writer.write(np.clip(sound, -1, 1))
    return buffer.getvalue()


def _power(sound, rate):
    """The spectrogram of sound (C, T) in the pixels of a picture."""
    size = window_size(rate)
    mono = np.pad(sound.mean(0), (0, max(0, size - sound.shape[1])))
    starts = np.linspace(0, len(mono) - size, COLUMNS).astype(int)
    return band_powers(mono[starts[:, None] + np.arange(size)], rate)


def window_size(rate: int) -> int:
    """The samples of a frame of a spectrogram, some 50 ms."""
    return 2 ** int(np.log2(rate * 0.064))


def band_of(rate: int) -> tuple[float, float]:
    """The lowest and the highest frequency of a spectrogram in Hz."""
    top = min(HIGHEST_HZ, rate / 2)
    return min(LOWEST_HZ, top / 2), top


def band_powers(frames: np.ndarray, rate: int) -> np.ndarray:
    """The powers (ROWS, N) of frames (N, `window_size`) in bands, lowest frequency last."""
    size = frames.shape[1]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size))))  # (N, F)
    low, top = band_of(rate)
    edges = np.geomspace(top, low, ROWS + 1) * size / rate
    bins = [
        slice(int(low), max(int(high), int(low) + 1)) for high, low in itertools.pairwise(edges)
    ]
    return np.stack([power[:, each].mean(1) for each in bins])


def picture(power: np.ndarray, top: float) -> bytes:
    """PNG bytes of a spectrogram (rows, columns), `RANGE_DB` below the power `top`."""
    level = to_db(np.maximum(power, 1e-20) / max(top, 1e-20))
    shades = np.clip((level / RANGE_DB + 1) * 255, 0, 255).astype(np.uint8)
    at = np.linspace(0, 255, len(COLOURS))
    palette = np.stack([np.interp(np.arange(256), at, c) for c in zip(*COLOURS, strict=True)], 1)
    return png(shades, palette.astype(np.uint8))


def png(shades: np.ndarray, palette: Any) -> bytes:
    """PNG bytes of indices (rows, columns) uint8 into a palette (256, 3) uint8.

    W3C, "Portable Network Graphics (PNG) Specification", 2nd edition: no filter, no interlacing.
    """
    rows, columns = shades.shape
    lines = b"".join(b"\0" + line.tobytes() for line in shades)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
