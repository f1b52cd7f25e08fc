"""How the energy of room impulse responses (RIRs) falls: decay curves, lines through them, noise.

Curves are in dB re their start, one value per sample. Two methods:

schroeder   What is still to come, summed backwards. Noise is handled as ISO 3382-1 (5.3.3) asks:
            its power is subtracted (Chu, JASA 63(5), 1978), the sum starts where the decay sinks
            into it, and what lies beyond is taken from the line down to there (Lundeby, Vigran,
            Bietz & Vorländer, "Uncertainties of measurements in room acoustics", Acustica 81,
            1995; likewise the search for that place).
regression  The squared response averaged under a Hann window.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sepcli.dsp.level import TINY, from_db, multiplier, to_db

WINDOW_MS = 20  # of the Hann window of `regression_curve`
HEADROOM_DB = 10  # of the end of a fit above the noise; ISO 3382-1, 5.3.3
ONSET_DB = -20  # re the peak: where a response starts; ISO 3382-1, 5.3.3
BLOCK_S = 0.01  # of Lundeby's first average; later ones last as long as the decay takes for 2 dB
LATE_DB = 20  # of the decay above noise and headroom: the line that goes on into the noise
ROUNDS = 10  # at most, of finding the noise by the decay and the decay by the noise
_level = partial(to_db, least=TINY)  # silence is a very low level instead of minus infinity


@dataclass(frozen=True)
class Line:
    """A level that falls by `slope` dB per sample from `level_db` at sample 0."""

    slope: float
    level_db: float

    def at(self, sample: Any) -> Any:
        """Level in dB at `sample`."""
        return self.level_db + self.slope * sample

    def reaches(self, level_db: float) -> float:
        """The sample, a float, at which the level is `level_db`."""
        return (level_db - self.level_db) / self.slope


@dataclass(frozen=True)
class Tail:
    """Where a decay ends: at sample `knee`, in noise of mean square `noise_power`.

    seen: whether there is noise behind the knee. If not, the response itself ends there, and
        `noise_power` is what it has come down to. late: the line of the squared response, in dB.
    """

    knee: int
    noise_power: float
    seen: bool
    late: Line


@dataclass(frozen=True)
class Curve:
    """A decay `level_db` (N,), of which the first `depth_db` dB stand out from the noise.

    depth_db counts down to the noise itself, not to the headroom above it.
    """

    level_db: np.ndarray
    depth_db: float


@dataclass(frozen=True)
class Fit:
    """The straight `line` through samples [start, stop) of a curve; correlation is its r²."""

    line: Line
    start: int
    stop: int
    correlation: float


def onset(rir: np.ndarray) -> int:
    """The sample at which the direct sound of one RIR (R,) starts.

    The first difference is searched rather than the response: rumble before the direct sound,
    common in measured rooms, does not move it.
    """
    steps = np.abs(np.diff(rir, prepend=0))
    return int(np.argmax(steps >= steps.max() * multiplier(ONSET_DB)))


def find_tail(power: np.ndarray, sample_rate: int) -> Tail | None:
    """The `Tail` of a squared response (N,) from its onset on, or None where nothing decays."""
    block = max(1, round(BLOCK_S * sample_rate))
    last = power.size - max(1, power.size // 10)  # at least a tenth is taken for noise
    noise, knee, late = power[last:].mean(), power.size, None
    for _ in range(ROUNDS):
        found = _late_line(power, block, noise)
        if found is None:
            break
        late, before = found, knee
        knee = round(min(max(late.reaches(_level(noise)), 1), power.size))
        block = max(1, round(-2 / late.slope))
        noise = power[min(last, round(knee - 5 / late.slope)) :].mean()
        if abs(knee - before) <= 1:
            break
    return late and Tail(knee, float(noise), knee < last, late)


def _late_line(power, block, noise):
    """The line through the last `LATE_DB` of a decay above noise and headroom, or None."""
    count = power.size // block
    level = _level(power[: count * block].reshape(count, block).mean(axis=1))  # (count,)
    floor = _level(noise) + HEADROOM_DB
    start = int(np.argmax(level)) if count else 0
    low = level[start:] < floor
    low[:-1] &= low[1:]  # a gap between two reflections is not the end
    stop = start + int(np.argmax(low)) if low.any() else count
    late = start + int(np.argmax(level[start:] <= floor + LATE_DB)) if stop > start else start
    start = late if stop - late >= 3 else start
    if stop - start < 3:
        return None
    line, _ = _straight(level[start:stop])
    slope = line.slope / block
    if slope >= 0:
        return None
    return Line(slope, line.level_db - slope * ((start + 0.5) * block - 0.5))


def backward_sums(power: np.ndarray, tail: Tail) -> np.ndarray:
    """The energy (knee,) that a squared response (N,) has left at every sample, without noise."""
    heard = power[: tail.knee] - (tail.noise_power if tail.seen else 0.0)
    # Every sample from the knee on, as if the late line went on for ever: a geometric series.
    beyond = from_db(tail.late.at(tail.knee)) / (1 - from_db(tail.late.slope))
    return np.cumsum(heard[::-1])[::-1] + beyond


def schroeder_curve(power: np.ndarray, tail: Tail) -> Curve:
    """The `Curve` of a squared response (N,) from its onset on, integrated backwards."""
    sums = backward_sums(power, tail)
    level = _level(np.maximum(sums, 0) / max(sums[0], TINY))
    # What the late line has left of `sums[0]` when it reaches the noise.
    left = tail.noise_power / (1 - from_db(tail.late.slope))
    return Curve(level, float(_level(sums[0]) - _level(left)))


def regression_curve(
    power: np.ndarray, tail: Tail, sample_rate: int, *, window_ms: float = WINDOW_MS
) -> Curve:
    """The `Curve` of a squared response (N,) from its onset on, averaged under a Hann window."""
    size = min(max(1, round(window_ms / 1000 * sample_rate)), power.size)
    window = np.hanning(size + 2)[1:-1]
    level = _level(np.convolve(power, window / window.sum(), mode="valid"))
    level = level[int(np.argmax(level)) :]
    return Curve(level - level[0], float(level[0] - _level(tail.noise_power)))


def fit(curve: Curve, start_db: float, stop_db: float) -> Fit | None:
    """The `Fit` to the part of a curve between two levels, 0 >= start_db > stop_db.

    Returns None where the curve does not come down to `stop_db`.
    """
    if curve.level_db.min() > stop_db:
        return None
    start = int(np.argmax(curve.level_db <= start_db))
    stop = start + int(np.argmax(curve.level_db[start:] <= stop_db)) + 1
    if stop - start < 3:
        return None
    line, correlation = _straight(curve.level_db[start:stop])
    line = Line(line.slope, line.level_db - line.slope * start)
    return Fit(line, start, stop, correlation)


def _straight(level):
    """Least squares through (n,): the `Line` and r²."""
    x = np.arange(level.size) - (level.size - 1) / 2
    y = level - level.mean()
    slope = (x @ y) / (x @ x)
    correlation = (x @ y) ** 2 / ((x @ x) * (y @ y)) if y.any() else 0.0
    return Line(float(slope), float(level.mean() + slope * x[0])), float(correlation)


def decay_rir(
    rirs: np.ndarray,
    sample_rate: int,
    *,
    rt60_s: float = 0.3,
    early_ms: float = 20,
    signed: bool = False,
    joint: bool = False,
) -> np.ndarray:
    """Shorten RIRs (..., R) for partial dereverberation; keeps shape and dtype.

    Every response stays as it is until `early_ms` behind its main tap, the largest |sample| (the
    largest sample if `signed`), and from there on falls by 60 dB per `rt60_s` seconds *more* than
    it did: a room of T seconds gets 1 / (1/T + 1/rt60_s). joint: all have the main tap of the
    loudest, so that what lies between the channels of one recording stays true.
    """
    if not rt60_s > 0 or not early_ms >= 0:
        raise ValueError(f"rt60_s must be above 0 and early_ms 0 or more: {rt60_s}, {early_ms}")
    size = rirs if signed else np.abs(rirs)
    tap = np.argmax(size, axis=-1)[..., None]  # (..., 1)
    if joint:
        tap = np.unravel_index(np.argmax(size), size.shape)[-1]
    late = np.arange(rirs.shape[-1]) - (tap + round(early_ms / 1000 * sample_rate))
    gain = 10 ** (-3 * np.maximum(late, 0) / (rt60_s * sample_rate))
    return (rirs * gain).astype(rirs.dtype)
