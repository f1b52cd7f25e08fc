"""Score the estimates in samples against their references."""

import itertools
from dataclasses import dataclass, field
from functools import partial

from sepcli import metrics
from sepcli.errors import SepcliError
from sepcli.samples.workers import in_order
from sepcli.scoring.framewise import Framing, references, score_frames, unequal

DEFAULT = ("sdr", "si-sdri", "si-sdr", "pesq", "stoi")
STEMS = ("vocals", "drums", "bass", "other", "accompaniment")
STEMS_ONLY = ("sdr",)
SPEECH_ONLY = ("pesq", "stoi")
NOT_SPEECH = ("noise", "music", *STEMS)


@dataclass(frozen=True)
class Row:
    """The scores of one estimate, metric name -> Score, or in `error` why there are none.

    frames: metric name -> array (frames,), for metrics that are framewise.
    """

    key: str
    target: str
    scores: dict = field(default_factory=dict)
    error: str = ""
    frames: dict = field(default_factory=dict, compare=False)


def evaluate(samples, names=None, *, framing=None, jobs=1):
    """Yield a `Row` for every estimate in `samples`, in their order.

    names: metrics out of `metrics.METRICS`. None means sdr for stems of music, si-sdri where there
    is a mixture, si-sdr, and pesq (if its package is there) and stoi except for targets that are
    not speech by name.
    framing: of metrics that are framewise; frames of 1 s in a row by default.
    jobs: processes; samples are read only a little ahead of their turn.
    Raises SepcliError when there are no samples, or already the first has no estimate: then there
    is a step missing, which more samples (maybe endlessly many) cannot bring back.
    """
    for name in names or ():
        metrics.find(name)
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        raise SepcliError("nothing to score: no samples; check the command upstream")
    if not first.ests():
        raise SepcliError(
            f"{_without_estimate(first)}; pipe samples through `sepcli separate -` first, "
            "or name both: sepcli eval EST REF"
        )
    score = partial(score_sample, names=names, framing=framing)
    for rows in in_order(score, itertools.chain([first], samples), jobs=jobs):
        yield from rows


def score_sample(sample, names=None, framing=None):
    """The `Row` of each estimate in a sample that has a reference; the others are not scored."""
    ests, refs = sample.ests(), references(sample)
    targets = [target for target in ests if target in refs]
    if not ests:
        return [Row(sample.key, "", error=_without_estimate(sample))]
    if not targets:
        return [Row(sample.key, "", error=_without_reference(sample))]
    wanted = {
        target: default_metrics(target, sample.has("mix")) if names is None else names
        for target in targets
    }
    series = {target: list(filter(_is_framewise, wanted[target])) for target in targets}
    scores, frames = score_frames(sample, series, framing or Framing())
    return [
        _score_target(sample, target, wanted[target], scores.get(target), frames.get(target))
        for target in targets
    ]


def _is_framewise(name):
    return metrics.METRICS[name].framewise


def _score_target(sample, target, names, scores, frames):
    """The `Row` of a target, given what `score_frames` made of it."""
    try:
        if isinstance(scores, SepcliError):
            raise scores
        pairwise = [name for name in names if not _is_framewise(name)]
        scores = {**(scores or {}), **_score_pair(sample, target, pairwise)}
    except SepcliError as error:
        return Row(sample.key, target, error=str(error))
    return Row(sample.key, target, {name: scores[name] for name in names}, frames=frames or {})


def _score_pair(sample, target, names):
    if not names:
        return {}
    signals = _signals(sample, target, names)
    return {name: metrics.load(name)(*signals) for name in names}


def _signals(sample, target, names):
    """(estimate, reference, rate in Hz, mixture or None), the signals (C, T) of one shape."""
    needy = [name for name in names if metrics.METRICS[name].needs_mixture]
    if needy and not sample.has("mix"):
        raise SepcliError(
            f"{sample.label()}: {needy[0]} needs the mixture; give it with --mix, "
            f"or leave {needy[0]} out of --metrics"
        )
    first, *more = references(sample)[target]
    reference = sample.audio(first)
    reference = sum((_like(reference, sample, name, first) for name in more), reference)
    estimate = _like(reference, sample, f"est.{target}", first)
    mixture = _like(reference, sample, "mix", first) if needy else None
    return estimate, reference, sample.sample_rate, mixture


def default_metrics(target, mixed):
    """Names of the metrics that make sense for a target, with or without a mixture, here."""
    return tuple(filter(metrics.is_installed, _sensible_metrics(target, mixed)))


def left_out(targets):
    """Names of the default metrics of some targets whose packages are not installed."""
    sensible = dict.fromkeys(name for target in targets for name in _sensible_metrics(target, True))
    return [name for name in sensible if not metrics.is_installed(name)]


def _sensible_metrics(target, mixed):
    """The metrics that make sense for a target, whether or not their packages are installed."""
    return tuple(
        name
        for name in DEFAULT
        if (mixed or not metrics.METRICS[name].needs_mixture)
        and not (name in SPEECH_ONLY and target in NOT_SPEECH)
        and not (name in STEMS_ONLY and target not in STEMS)
    )


def _like(reference, sample, name, reference_name):
    """The signal `name` of a sample, which must have the shape of its reference."""
    audio = sample.audio(name)
    for what, ours, theirs in zip(
        ("channels", "samples"), audio.shape, reference.shape, strict=True
    ):
        if ours != theirs:
            raise SepcliError(unequal(sample, name, ours, what, reference_name, theirs))
    return audio


def _without_estimate(sample):
    return f"{sample.label()}: no estimate, only {', '.join(sample.ordered()) or 'nothing'}"


def _without_reference(sample):
    return (
        f"{sample.label()}: no reference for {', '.join(sample.ests())}, "
        f"only {', '.join(sample.refs()) or 'nothing'}; give both the same name"
    )
