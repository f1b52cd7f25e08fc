"""Figures of merit of a room after ISO 3382-1, from its impulse response (RIR)."""

import math
from dataclasses import dataclass, field

import numpy as np

from sepcli.dsp import decay, octaves
from sepcli.dsp.level import to_db
from sepcli.dsp.octaves import Band

METHODS = ("schroeder", "regression")
RANGES = {"edt": (0, -10), "t20": (-5, -25), "t30": (-5, -35)}  # dB; ISO 3382-1, 3.5 and A.2.2
EARLY_MS = {"c50_db": 50, "c80_db": 80}
STRAIGHT = 0.8  # least r² of T20 and T30; half a straight line with a direct sound on top has 0.9
DIRECT_MS = 2.5  # each side of the main tap: the direct sound (Zahorik, JASA 112(5), 2002)
CLARITY_DB = 20  # that a decay has to have above the noise before its energy is split


@dataclass
class Measurement:
    """What one RIR says about its room, in one band or in all; NaN where it says nothing.

    rt60_s is T30, or else T20, or what was found in the range asked for, as `source` tells. Times
    are in s, c50, c80 and drr in dB, d50 is 0 to 1, and decay_db is how far the decay stands out
    from the noise.
    reasons: for everything that is NaN, why. curve and fit: what rt60_s was read from, or None;
    their sample 0 is the onset.
    """

    rt60_s: float = math.nan
    source: str | None = None
    edt_s: float = math.nan
    t20_s: float = math.nan
    t30_s: float = math.nan
    c50_db: float = math.nan
    c80_db: float = math.nan
    d50: float = math.nan
    drr_db: float = math.nan
    decay_db: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)
    curve: decay.Curve | None = None
    fit: decay.Fit | None = None


def measure_rir(
    rir: np.ndarray,
    sample_rate: int,
    *,
    method: str = "schroeder",
    range_db: float | None = None,
    band: Band | None = None,
    window_ms: float | None = None,
) -> Measurement:
    """Measure one RIR (R,): a `Measurement`.

    method: "schroeder" integrates backwards, "regression" averages under a Hann window of
    `window_ms`; see `decay`. Clarity is always integrated. range_db: (start, stop), 0 >= start >
    stop, of the line for rt60_s instead of T30 or T20. band: an `octaves.Band`, or None for all.
    """
    if method not in METHODS:
        raise ValueError(f"method must be {' or '.join(METHODS)}, not {method!r}")
    if rir.ndim != 1:
        raise ValueError(f"expected one response (samples,), got shape {rir.shape}")
    result = Measurement()
    if not rir.any():
        return _without_decay(result, "silent")
    rir = np.trim_zeros(np.asarray(rir, np.float64), "b")
    rir = rir / np.abs(rir).max()  # so that the squares of quiet ones do not vanish
    heard = _hear(rir, sample_rate, band)
    if heard is None:
        return _without_decay(result, "nothing decays above the noise")
    if method == "schroeder":
        result.curve = decay.schroeder_curve(heard.power, heard.tail)
    else:
        window_ms = decay.WINDOW_MS if window_ms is None else window_ms
        result.curve = decay.regression_curve(
            heard.power, heard.tail, sample_rate, window_ms=window_ms
        )
    result.decay_db = result.curve.depth_db
    _find_times(result, sample_rate, range_db, band, heard.tail.seen)
    _find_clarity(result, rir, sample_rate, band, heard)
    return result


@dataclass(frozen=True)
class _Heard:
    """A squared response from its onset at sample `start` of the RIR on, and the energy before."""

    power: np.ndarray
    tail: decay.Tail
    start: int
    before: float


def _hear(rir, sample_rate, band):
    """The `_Heard` of a RIR (R,) in a band, or None where nothing decays."""
    start = first = decay.onset(rir)
    if band is not None:
        rir, lead = octaves.filter_backwards(rir, sample_rate, band)
        # Filtered backwards, everything comes earlier by what the filter delays.
        first = max(0, start + lead - round(band.delay_s * sample_rate))
    power = rir**2
    before = power[:first].sum() if band is not None else 0.0
    tail = decay.find_tail(power[first:], sample_rate)
    return tail and _Heard(power[first:], tail, start, float(before))


def _without_decay(result, reason):
    names = ("rt60_s", *(f"{name}_s" for name in RANGES), "c50_db", "c80_db", "d50", "drr_db")
    result.reasons = dict.fromkeys(names, reason)
    return result


def _find_times(result, sample_rate, range_db, band, noise_seen):
    """Fill in the decay times."""
    fits = {}
    for name, levels in {**RANGES, "rt60": range_db}.items():
        if levels is None:
            continue
        fit, reason = _fit(result.curve, levels, sample_rate, band, noise_seen)
        if reason is not None:
            result.reasons[f"{name}_s"] = reason
            continue
        fits[name] = fit
        setattr(result, f"{name}_s", _seconds(fit, sample_rate))
    if range_db is not None:
        if "rt60" in fits:
            result.fit, result.source = fits["rt60"], f"{range_db[0]:g}:{range_db[1]:g} dB"
        return
    for name in ("t30", "t20"):
        if name in fits:
            result.fit, result.source = fits[name], name.upper()
            result.rt60_s = _seconds(fits[name], sample_rate)
            return
    result.reasons["rt60_s"] = result.reasons["t20_s"]


def _fit(curve, levels, sample_rate, band, noise_seen):
    """The line between two levels and None, or None and why there is no decay to measure."""
    needed = decay.HEADROOM_DB - levels[1]
    if curve.depth_db < needed:
        floor = "the noise" if noise_seen else "the end of the response"
        has = max(curve.depth_db, 0)
        return None, f"needs a decay of {needed:g} dB above {floor}, there are {has:.1f} dB"
    fit = decay.fit(curve, *levels)
    if fit is None or fit.line.slope >= 0:
        return None, "falls too abruptly to be measured"
    if levels[1] < RANGES["edt"][1] and fit.correlation < STRAIGHT:
        return None, f"not a straight decay (r² = {fit.correlation:.2f}, at least {STRAIGHT})"
    if band is not None and (bt := band.width * _seconds(fit, sample_rate)) < octaves.LEAST_BT:
        return None, f"decays as fast as the band's filter (B·T = {bt:.1f})"
    return fit, None


def _seconds(fit, sample_rate):
    """The time in which a line falls by 60 dB."""
    return -60 / (fit.line.slope * sample_rate)


def _find_clarity(result, rir, sample_rate, band, heard):
    """Fill in C50, C80, D50 and DRR: what arrives early against what arrives late."""
    start = heard.start
    windows = {
        name: (start, start + max(1, round(ms / 1000 * sample_rate)))
        for name, ms in EARLY_MS.items()
    }
    if band is None:
        tap, side = int(np.argmax(np.abs(rir))), round(DIRECT_MS / 1000 * sample_rate)
        windows["drr_db"] = max(start, tap - side), tap + side + 1
    else:
        result.reasons["drr_db"] = "the direct sound is too short to have bands"
    for name, (first, last) in windows.items():
        share, reason = _share(rir, first, last, sample_rate, band, heard)
        if share is not None:
            setattr(result, name, float(to_db(share / (1 - share))))
        else:
            result.reasons[name] = reason
        if name == "c50_db" and reason is None:
            result.d50 = share
        elif name == "c50_db":
            result.reasons["d50"] = reason


def _share(rir, first, last, sample_rate, band, heard):
    """The share of samples [first, last) in the energy of a RIR, and None; or None and why not."""
    depth_db = decay.schroeder_curve(heard.power, heard.tail).depth_db
    if depth_db < CLARITY_DB:
        has = max(depth_db, 0)
        return None, f"needs a decay of {CLARITY_DB} dB above the noise, there are {has:.1f} dB"
    if last - heard.start >= heard.tail.knee:
        return None, f"the decay ends {heard.tail.knee / sample_rate * 1000:.0f} ms after the onset"
    part = rir[first:last]  # before it is filtered, which would smear it over the ends
    if band is not None:
        part = octaves.filter_backwards(part, sample_rate, band)[0]
    total = heard.before + float(decay.backward_sums(heard.power, heard.tail)[0])
    share = float(part @ part) / total
    return (share, None) if share < 1 else (None, "nothing arrives later")
