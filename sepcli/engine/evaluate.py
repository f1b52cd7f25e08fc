"""Score the estimates in samples against their references."""

import itertools
from dataclasses import dataclass, field
from functools import partial

from sepcli import metrics
from sepcli.data.workers import in_order
from sepcli.errors import SepcliError

DEFAULT = ("si-sdri", "si-sdr", "pesq", "stoi")
SPEECH_ONLY = ("pesq", "stoi")
NOT_SPEECH = ("noise", "music", "vocals", "drums", "bass", "other", "accompaniment")


@dataclass(frozen=True)
class Row:
    """The scores of one estimate, metric name -> Score, or in `error` why there are none."""

    key: str
    target: str
    scores: dict = field(default_factory=dict)
    error: str = ""


def evaluate(samples, names=None, *, jobs=1):
    """Yield a `Row` for every estimate in `samples`, in their order.

    names: metrics out of `metrics.METRICS`. None means si-sdri where there is a mixture, si-sdr,
    and pesq (if its package is there) and stoi except for targets that are not speech by name.
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
    score = partial(score_sample, names=names)
    for rows in in_order(score, itertools.chain([first], samples), jobs=jobs):
        yield from rows


def score_sample(sample, names=None):
    """The `Row` of each estimate in a sample that has a reference; the others are not scored."""
    ests, refs = sample.ests(), sample.refs()
    targets = [target for target in ests if target in refs]
    if not ests:
        return [Row(sample.key, "", error=_without_estimate(sample))]
    if not targets:
        return [Row(sample.key, "", error=_without_reference(sample))]
    return [_score_target(sample, target, names) for target in targets]


def _score_target(sample, target, names):
    try:
        names, estimate, reference, mixture = _signals(sample, target, names)
    except SepcliError as error:
        return Row(sample.key, target, error=str(error))
    rate = sample.sample_rate
    return Row(
        sample.key,
        target,
        {name: metrics.load(name)(estimate, reference, rate, mixture) for name in names},
    )


def _signals(sample, target, names):
    """(names of metrics, estimate, reference, mixture or None), all (C, T) of one shape."""
    mixed = sample.has("mix")
    if names is None:
        names = default_metrics(target, mixed)
    needy = [name for name in names if metrics.METRICS[name].needs_mixture]
    if needy and not mixed:
        raise SepcliError(
            f"{sample.label()}: {needy[0]} needs the mixture; give it with --mix, "
            f"or leave {needy[0]} out of --metrics"
        )
    reference = sample.audio(f"ref.{target}")
    estimate = _like(reference, sample, f"est.{target}", f"ref.{target}")
    mixture = _like(reference, sample, "mix", f"ref.{target}") if needy else None
    return names, estimate, reference, mixture


def default_metrics(target, mixed):
    """Names of the metrics that make sense for a target, with or without a mixture, here."""
    return tuple(
        name
        for name in DEFAULT
        if (mixed or not metrics.METRICS[name].needs_mixture)
        and metrics.is_installed(name)
        and not (name in SPEECH_ONLY and target in NOT_SPEECH)
    )


def _like(reference, sample, name, reference_name):
    """The signal `name` of a sample, which must have the shape of its reference."""
    audio = sample.audio(name)
    for what, ours, theirs in zip(
        ("channels", "samples"), audio.shape, reference.shape, strict=True
    ):
        if ours != theirs:
            raise SepcliError(
                f"{sample.label()}: {name} has {ours} {what} but {reference_name} has {theirs}; "
                "nothing is cut or padded here, so make them equal first"
            )
    return audio


def _without_estimate(sample):
    return f"{sample.label()}: no estimate, only {', '.join(sample.ordered()) or 'nothing'}"


def _without_reference(sample):
    return (
        f"{sample.label()}: no reference for {', '.join(sample.ests())}, "
        f"only {', '.join(sample.refs()) or 'nothing'}; give both the same name"
    )
