"""Score the estimates in samples against their references."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sepcli import metrics
from sepcli.cluster.spread import ALONE, Spread
from sepcli.errors import SepcliError
from sepcli.samples.remote import staged
from sepcli.samples.sample import Sample
from sepcli.samples.stems import STEMS, is_music
from sepcli.scoring.framewise import Framing, score_frames
from sepcli.scoring.targets import find_targets, read_pair, settle_rate

NOT_SPEECH = ("noise", "music", *STEMS)


@dataclass(frozen=True)
class Row:
    """The scores of one estimate, metric name -> Score, or in `error` why there are none.

    frames: metric name -> array (frames,), for metrics that are framewise. present: whether the
    speaker who is to be extracted is in the mixture at all, None where nobody says so.
    """

    key: str
    target: str
    scores: dict = field(default_factory=dict)
    error: str = ""
    frames: dict = field(default_factory=dict, compare=False)
    present: bool | None = None


def evaluate(
    samples: Iterable[Sample],
    names: Sequence[str] | None = None,
    *,
    framing: Framing | None = None,
    pad: bool = False,
    spread: Spread = ALONE,
) -> Iterator[Row]:
    """Yield a `Row` for every estimate in `samples`, in their order.

    names: metrics out of `metrics.METRICS`. None means sdr for stems of music, si-sdri where there
    is a mixture, si-sdr, and pesq (if its package is there) and stoi except for targets that are
    not speech by name. Where a speaker is extracted, these are scored if the target is present, and
    right-speaker; suppression if it is absent.
    framing: of metrics that are framewise; frames of 1 s in a row by default.
    pad: whether zeros are appended to what is shorter than the longest signal it is scored with.
    spread: which of the samples are scored, and by how many processes; samples are read only a
        little ahead of their turn.
    Raises SepcliError when there are no samples, or already the first has no estimate: then there
    is a step missing, which more samples (maybe endlessly many) cannot bring back.
    """
    for name in names or ():
        metrics.find(name)
    score = partial(_score_staged, names=names, framing=framing, pad=pad)
    for rows in spread.each(score, spread.shard.of(_with_estimates(samples))):
        yield from rows


def _with_estimates(samples):
    """Pass samples on; SepcliError if there are none, or the first of them has no estimate."""
    number = -1
    for number, sample in enumerate(samples):
        if number == 0 and not (sample.ests() or sample.fault):
            raise SepcliError(
                f"{_without_estimate(sample)}; pipe samples through `sepcli separate -` first, "
                "or name both: sepcli eval EST REF"
            )
        yield sample
    if number < 0:
        raise SepcliError("nothing to score: no samples; check the command upstream")


def _score_staged(sample, **settings):
    """The rows of a sample, whose members may be in a store."""
    try:
        with staged(sample) as local:
            return score_sample(local, **settings)
    except SepcliError as error:
        return [Row(sample.key, "", error=str(error))]


def score_sample(
    sample: Sample,
    names: Sequence[str] | None = None,
    framing: Framing | None = None,
    pad: bool = False,
) -> list[Row]:
    """The `Row` of each estimate in a sample that has a reference; the others are not scored."""
    if sample.fault:
        return [Row(sample.key, "", error=sample.fault)]
    alone = [name for name in names or () if not metrics.METRICS[name].needs_reference]
    targets = find_targets(sample, alone=bool(alone))
    if not sample.ests():
        return [Row(sample.key, "", error=_without_estimate(sample))]
    if not targets:
        return [Row(sample.key, "", error=_without_reference(sample))]
    settle_rate(sample, targets)
    music, mixed = is_music(list(sample.refs())), sample.has("mix")
    present = {t.name: _presence(sample, t.name) for t in targets}
    wanted = {
        t.name: _of_scene(names or default_metrics(t.name, mixed, **kinds), present[t.name], names)
        if t.reference
        else alone
        for t in targets
        for kinds in [{"music": music, "extraction": _is_extracted(sample, t.name)}]
    }
    series = {name: list(filter(_is_framewise, wanted[name])) for name in wanted}
    scores, frames = score_frames(sample, targets, series, framing or Framing(), pad=pad)
    return [
        replace(
            _score_target(sample, t, wanted[t.name], scores.get(t.name), frames.get(t.name), pad),
            present=present[t.name],
        )
        for t in targets
    ]


def _is_extracted(sample, target):
    """Whether the target is a speaker who was extracted by an enrolment."""
    known = "target_present" in sample.meta or sample.names("enroll")
    return bool(known) and target in sample.targets


def _presence(sample, target):
    return sample.meta.get("target_present") if _is_extracted(sample, target) else None


def _of_scene(names, present, asked):
    """Those of the metrics that make sense where the target is present, or absent.

    Nothing else than suppression does where it is absent, unless it was `asked` for.
    """
    if present is None:
        return tuple(names)
    wanted = ("", "present") if present else ("", "absent") if asked else ("absent",)
    return tuple(name for name in names if metrics.METRICS[name].scene in wanted)


def _is_framewise(name):
    return metrics.METRICS[name].framewise


def _score_target(sample, target, names, scores, frames, pad):
    """The `Row` of a `Target`, given what `score_frames` made of it."""
    try:
        if isinstance(scores, SepcliError):
            raise scores
        pairwise = [name for name in names if not _is_framewise(name)]
        scores = {**(scores or {}), **_score_pair(sample, target, pairwise, pad)}
    except SepcliError as error:
        return Row(sample.key, target.name, error=str(error))
    return Row(sample.key, target.name, {n: scores[n] for n in names}, frames=frames or {})


def _score_pair(sample, target, names, pad):
    """{name: `Score`} of metrics that are of one estimate and its reference."""
    if not names:
        return {}
    needy = [name for name in names if metrics.METRICS[name].needs_mixture]
    if needy and not sample.has("mix"):
        raise SepcliError(
            f"{sample.label()}: {needy[0]} needs the mixture; give it with --mix, "
            f"or leave {needy[0]} out of --metrics"
        )
    estimate, reference, mixture = read_pair(sample, target, mixed=bool(needy), pad=pad)
    signals = estimate, reference, sample.sample_rate, mixture
    return {name: metrics.load(name)(*signals, **_others(sample, target, name)) for name in names}


def _others(sample, target, name):
    """The references of who else speaks, for metrics that take these."""
    if not metrics.METRICS[name].needs_interferers:
        return {}
    others = [each for each in sample.refs() if each not in (target.name, *NOT_SPEECH)]
    return {"interferers": [sample.audio(f"ref.{each}") for each in others]}


def default_metrics(
    target: str, mixed: bool, *, music: bool = False, extraction: bool = False
) -> tuple[str, ...]:
    """Names of the metrics that make sense for a target, with or without a mixture, here.

    music: whether the others are stems of a song, and so it is one, whatever its name. extraction:
    whether it is a speaker who was extracted.
    """
    sensible = _sensible_metrics(target, mixed, music, extraction)
    return tuple(filter(metrics.is_installed, sensible))


def left_out(targets: Iterable[str]) -> list[str]:
    """Names of the default metrics of some targets whose packages are not installed."""
    sensible = dict.fromkeys(n for target in targets for n in _sensible_metrics(target, True))
    return [name for name in sensible if not metrics.is_installed(name)]


def _sensible_metrics(target, mixed, music=False, extraction=False):
    """The metrics that make sense for a target, whether or not their packages are installed."""
    kinds = {
        "any": True,
        "stems": music or target in STEMS,
        "speech": not (music or target in NOT_SPEECH),
        "extraction": extraction,
    }
    return tuple(
        name
        for name, metric in metrics.METRICS.items()
        if kinds.get(metric.default_for) and (mixed or not metric.needs_mixture)
    )


def _without_estimate(sample):
    return f"{sample.label()}: no estimate, only {', '.join(sample.ordered()) or 'nothing'}"


def _without_reference(sample):
    return (
        f"{sample.label()}: no reference for {', '.join(sample.ests())}, "
        f"only {', '.join(sample.refs()) or 'nothing'}; give both the same name"
    )
