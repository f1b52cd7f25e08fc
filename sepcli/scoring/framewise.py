"""Scores that take all sources of a sample at once and come frame by frame."""

from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from sepcli.errors import SepcliError
from sepcli.metrics.score import Score, undefined

PIECE = 1 << 16  # frames read at a time
PARTS = {"accompaniment": ("drums", "bass", "other")}  # what MUSDB leaves to be added up
FIX = "nothing is cut or padded here, so make them equal first"


class Framing(NamedTuple):
    """How long frames are, and how far apart they begin."""

    window_s: float = 1.0
    hop_s: float = 1.0

    def samples(self, sample_rate):
        """(window, hop) in samples, rounded down as in museval, but at least 1."""
        return tuple(max(1, int(seconds * sample_rate)) for seconds in self)


def references(sample):
    """Target -> the signals that add up to its reference; "accompaniment" may be made of stems."""
    there = sample.refs()
    found = {target: (f"ref.{target}",) for target in there}
    for target, parts in PARTS.items():
        if target not in there and all(part in there for part in parts):
            found[target] = tuple(f"ref.{part}" for part in parts)
    return found


def score_frames(sample, names, framing):
    """Score the estimates in a sample by BSS Eval v4.

    names: target -> names of metrics. Returns two dicts by target: {name: `Score`}, the medians of
    frames, or else the SepcliError that says why there are none; and {name: array (frames,)}. As in
    museval, targets are scored together, but "vocals" and "accompaniment", which has all other
    targets in it, as a pair.
    """
    scores, frames = {}, {}
    for together, scored in _scenarios(list(names)):
        wanted = list(dict.fromkeys(name for target in scored for name in names[target]))
        if not wanted:
            continue
        try:
            result = _evaluate(sample, together, wanted, framing)
        except SepcliError as error:
            scores |= dict.fromkeys(scored, error)
            continue
        for target in scored:
            index = together.index(target)
            frames[target] = {name: result[name][index] for name in names[target]}
            scores[target] = {
                name: _median(series, name, result.silent[:, index], len(together))
                for name, series in frames[target].items()
            }
    return scores, frames


def _scenarios(targets):
    """Pairs of lists: targets that are scored together, and those whose scores are kept."""
    pair = ["vocals", "accompaniment"]
    if not set(pair) <= set(targets):
        return [(targets, targets)]
    others = [target for target in targets if target not in pair]
    stems = [target for target in targets if target != "accompaniment"]
    return [(pair, pair), *([(stems, others)] if others else [])]


def _evaluate(sample, targets, names, framing):
    from sepcli.metrics.bsseval import bss_eval_blocks

    made_of = references(sample)
    signals = [(f"est.{target}",) for target in targets] + [made_of[target] for target in targets]
    window, hop = framing.samples(sample.sample_rate)
    return bss_eval_blocks(lambda: _blocks(sample, signals), window=window, hop=hop, names=names)


def _blocks(sample, signals):
    """Yield (2, S, C, n) of the estimates and the references, which `signals` names in this order.

    Each of `signals` is a tuple of names that are added up.
    """
    with ExitStack() as opened:
        readers = {
            name: opened.enter_context(sample.open(name)) for parts in signals for name in parts
        }
        _check_layouts(sample, readers, of=signals[len(signals) // 2][0])
        while True:
            pieces = {name: reader.read(PIECE) for name, reader in readers.items()}
            lengths = {piece.shape[1] for piece in pieces.values()}
            if len(lengths) > 1:
                raise SepcliError(f"{sample.label()}: {', '.join(pieces)} differ in length; {FIX}")
            if lengths == {0}:
                return
            block = np.stack([sum(pieces[name] for name in parts) for parts in signals])
            yield block.reshape(2, len(signals) // 2, *block.shape[1:])


def _check_layouts(sample, readers, *, of):
    """Raise SepcliError unless all `readers`, by name, have the layout of the one called `of`."""
    wanted = readers[of]
    for name, reader in readers.items():
        if reader.sample_rate != sample.sample_rate:
            raise SepcliError(
                f"{reader.name} is {reader.sample_rate} Hz but its sample is "
                f"{sample.sample_rate} Hz; resample it first"
            )
        for what, ours, theirs in (
            ("channels", reader.channels, wanted.channels),
            ("samples", reader.frames, wanted.frames),
        ):
            if ours != theirs and None not in (ours, theirs):  # a length that only the end tells
                raise SepcliError(unequal(sample, name, ours, what, of, theirs))


def unequal(sample, name, ours, what, other, theirs):
    """The message that the signal `name` has not as many channels or samples as the `other`."""
    return f"{sample.label()}: {name} has {ours} {what} but {other} has {theirs}; {FIX}"


def _median(series, name, silent, together):
    """The `Score` of a track: the median of its frames' finite scores, (frames,).

    silent: bool (2, frames) of this estimate and this reference; together: how many sources were
    scored. Infinite where all scores that are no NaN are; NaN, with the reason, without any.
    """
    finite = series[np.isfinite(series)]
    if finite.size:
        return Score(np.median(finite))
    if np.isinf(series).any():
        return Score(series[np.isinf(series)][0])
    if silent[0].all():
        return undefined("silent estimate")
    if silent[1].all():
        return undefined("silent reference")
    if name == "sir" and together == 1:
        return undefined("no other source that could interfere")
    return undefined("some source is silent in every frame")
