"""Scores that take all sources of a sample at once and come frame by frame."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sepcli import metrics
from sepcli.metrics.bsseval import Frames
from sepcli.metrics.score import Score, undefined
from sepcli.samples.sample import Sample
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS
from sepcli.scoring.targets import Target, UnfitError, read_blocks

ALONE = "scored alone: interference cannot be distinguished from artifacts"
OF_ALL = ("isr", "sar")  # what says little of a source alone; sir has no value then


class Framing(NamedTuple):
    """How long frames are, and how far apart they begin."""

    window_s: float = 1.0
    hop_s: float = 1.0

    def samples(self, sample_rate: int) -> tuple[int, ...]:
        """(window, hop) in samples, rounded down as in museval, but at least 1."""
        return tuple(max(1, int(seconds * sample_rate)) for seconds in self)


def score_frames(
    sample: Sample,
    targets: Sequence[Target],
    names: Mapping[str, Sequence[str]],
    framing: Framing,
    *,
    pad: bool = False,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Score `Target`s of a sample by metrics that are framewise, such as those of BSS Eval v4.

    names: target -> names of metrics. Returns two dicts by target: {name: `Score`}, the medians of
    frames, or else the SepcliError that says why there are none; and {name: array (frames,)}. As in
    museval, targets are scored together, but "vocals" and "accompaniment", which has all other
    targets in it, as a pair. A target that does not fit is left out, and the others are scored.
    """
    scores, frames = {}, {}
    for together, scored in _scenarios([target for target in targets if names[target.name]]):
        wanted = list(dict.fromkeys(name for target in scored for name in names[target.name]))
        together, result, errors = _evaluate(sample, together, wanted, framing, pad)
        scores |= {t.name: errors[t.name] for t in scored if t.name in errors}
        for target in scored:
            if target not in together:
                continue
            index, own, others = together.index(target), names[target.name], len(together) - 1
            frames[target.name] = {name: result[name][index] for name in own}
            silent, notes = result.silent[:, index], _notes(own, together, errors)
            scores[target.name] = {
                name: _median(series, silent, notes[name], alone=name == "sir" and not others)
                for name, series in frames[target.name].items()
            }
    return scores, frames


def _scenarios(targets):
    """Pairs of lists: targets that are scored together, and those whose scores are kept."""
    pair = [target for target in targets if target.name in (VOCALS, ACCOMPANIMENT)]
    if len(pair) < 2:
        return [(targets, targets)] if targets else []
    stems = [target for target in targets if target.name != ACCOMPANIMENT]
    others = [target for target in stems if target.name != VOCALS]
    return [(pair, pair), *([(stems, others)] if others else [])]


def _evaluate(sample, targets, names, framing, pad):
    """(the targets that fit, their `Frames`, {name of another: why it does not})."""
    errors = {}
    while targets:
        try:
            window, hop = framing.samples(sample.sample_rate)
            blocks = partial(read_blocks, sample, targets, pad=pad)
            result = Frames({}, None)
            for function, own in _by_function(names).items():
                found = function(blocks, window=window, hop=hop, names=own)
                result.update(found)
                result.silent = found.silent
            return targets, result, errors
        except UnfitError as error:
            errors[error.target] = error
            targets = [target for target in targets if target.name != error.target]
    return [], Frames({}, None), errors


def _by_function(names):
    """{function: the names of metrics that it computes at once}."""
    found = {}
    for name in names:
        found.setdefault(metrics.load(name), []).append(name)
    return found


def _notes(names, together, errors):
    """{metric: what to say of its scores} where not all sources were scored together."""
    without = f"scored without {', '.join(sorted(errors))}" if errors else ""
    alone = OF_ALL if len(together) == 1 else ()
    return {name: ALONE if name in alone else without for name in names}


def _median(series, silent, note, *, alone):
    """The `Score` of a track: the median of its frames' finite scores, (frames,).

    silent: bool (2, frames) of this estimate and this reference. alone: whether the score
    is undefined for want of another. Infinite where all scores that are no NaN are; NaN, with the
    reason, without any.
    """
    finite = series[np.isfinite(series)]
    if finite.size:
        return Score(np.median(finite), note)
    if np.isinf(series).any():
        return Score(series[np.isinf(series)][0])
    if silent[0].all():
        return undefined("silent estimate")
    if silent[1].all():
        return undefined("silent reference")
    if alone:
        return undefined("no other source that can interfere")
    return undefined("at least one source is silent in every frame")
