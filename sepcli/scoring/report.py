"""What a list of scores says, as plain data that fits into JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import metrics
from sepcli.cluster.shard import WHOLE, Shard
from sepcli.errors import SepcliError
from sepcli.files import composed
from sepcli.metrics import aggregate
from sepcli.scoring.evaluate import Row
from sepcli.scoring.framewise import Framing
from sepcli.version import __version__


def build(
    rows: Sequence[Row],
    statistics: Sequence[str] | None = None,
    framing: Framing | None = None,
    shard: Shard = WHOLE,
) -> dict[str, Any]:
    """Make a report of `evaluate.Row`s, with the given statistics or the usual ones.

    {"sepcli": version, "metrics": {key: {"name", "unit", "definition"}}, "summary": {target: {key:
    `aggregate.summarise`}}, "items": [{"key", "target", key: score, ...}], "failed": [{"key",
    "target", "error"}]}, where key is the name of a metric with its unit, such as "si_sdr_db".
    Where a speaker is extracted, "scenes", {target: {"present", "absent"}}, says in how many items
    that one is. Scores may be NaN or infinite; "reasons" of an item says why. Scores out of frames
    are medians: "frames" of the metric has their length and distance (`framing`) in seconds,
    "frames" of an item how many there are and how many of them have a score. A report on a share of
    the items says which one in "shard": {"index", "count"}.
    """
    scored = [row for row in rows if not row.error]
    scenes = {target: _scenes(scored, target) for target in dict.fromkeys(r.target for r in scored)}
    return {
        "sepcli": __version__,
        **({} if shard == WHOLE else {"shard": asdict(shard)}),
        "metrics": {metrics.key(name): _describe(name, framing) for name in _names(scored)},
        "summary": {
            target: _summary([row for row in scored if row.target == target], statistics)
            for target in scenes
        },
        **(
            {"scenes": known}
            if (known := {t: n for t, n in scenes.items() if any(n.values())})
            else {}
        ),
        "items": [_item(row) for row in scored],
        "failed": [
            {"key": row.key, "target": row.target, "error": row.error} for row in rows if row.error
        ],
    }


def _scenes(rows, target):
    """In how many items the target is present, and absent, where that is known."""
    found = [row.present for row in rows if row.target == target]
    return {"present": found.count(True), "absent": found.count(False)}


def _describe(name, framing):
    metric = metrics.METRICS[name]
    entry = {"name": name, "unit": metric.unit, "definition": metric.definition}
    if metric.framewise and framing:
        entry["frames"] = {"statistic": "median", **framing._asdict()}
    return entry


def _names(rows):
    """All metrics in `rows`, in the order in which they first appear."""
    return dict.fromkeys(name for row in rows for name in row.scores)


def _summary(rows, statistics):
    return {
        metrics.key(name): aggregate.summarise(
            [row.scores[name] for row in rows if name in row.scores], statistics
        )
        for name in _names(rows)
    }


def _item(row):
    scores = {metrics.key(name): score for name, score in row.scores.items()}
    item = {"key": row.key, "target": row.target}
    item |= {} if row.present is None else {"target_present": row.present}
    item |= {key: float(score) for key, score in scores.items()}
    if row.frames:
        item["frames"] = {
            metrics.key(name): {"count": len(series), "finite": int(np.isfinite(series).sum())}
            for name, series in row.frames.items()
        }
    reasons = {
        key: score.note or str(score) for key, score in scores.items() if not math.isfinite(score)
    }
    return item | ({"reasons": reasons} if reasons else {})


def load(path: str | Path) -> dict[str, Any]:
    """Read a report that `sepcli eval --json` wrote; SepcliError for anything else."""
    try:
        old = json.loads(Path(path).read_bytes())
        items = {(composed(item["key"]), composed(item["target"])): item for item in old["items"]}
    except OSError as error:
        raise SepcliError(f"{path}: {error.strerror}; check the path") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SepcliError(
            f"{path}: not a report; write one with `sepcli eval --json -o {path}`"
        ) from None
    return {**old, "items": list(items.values())}


def compare(
    report: dict[str, Any], old: dict[str, Any], name: str, statistic: str = "mean"
) -> dict[str, Any]:
    """Compare a report with an older one item by item, by key and target.

    Returns {"file": name, "statistic": what is compared, "items": how many are in both, "only_old",
    "only_new": how many are not, "summary": {target: {key: `aggregate.compare`}}}. Raises
    SepcliError when no item is in both.
    """
    before, after = _by_name(old["items"]), _by_name(report["items"])
    both = [entry for entry in after if entry in before]
    if not both:
        raise SepcliError(f"{name}: has none of these items; compare scores of the same samples")
    summary = {}
    for target, keys in report["summary"].items():
        common = [entry for entry in both if entry[1] == composed(target)]
        compared = {
            key: aggregate.compare(
                [_number(before[entry].get(key)) for entry in common],
                [_number(after[entry].get(key)) for entry in common],
                statistic,
                more_is_better=metrics.find(report["metrics"][key]["name"]).more_is_better,
            )
            for key in keys
        }
        summary[target] = {key: result for key, result in compared.items() if result["count"]}
    return {
        "file": name,
        "statistic": statistic,
        "items": len(both),
        "only_old": len(before.keys() - after.keys()),
        "only_new": len(after.keys() - before.keys()),
        "summary": summary,
    }


def _by_name(items):
    return {(composed(item["key"]), composed(item["target"])): item for item in items}


def _number(value):
    return value if isinstance(value, int | float) else math.nan


def shortfalls(
    report: dict[str, Any], limits: Sequence[tuple[str, float]], statistic: str = "mean"
) -> list[str]:
    """Lines that say which `limits`, (metric name, number) pairs, a report stays under.

    A limit holds for every target that has the metric. It fails, too, where an estimate is silent
    or scores -inf, which the statistic of the finite scores does not show. Of a metric of which
    less is better, the limit is the largest score.
    """
    return [line for limit in limits for line in _shortfalls(report, *limit, statistic)]


def _shortfalls(report, name, limit, statistic):
    key, metric = metrics.key(name), metrics.METRICS[name]
    least, under, worst = ("least", "under", "-inf")
    if not metric.more_is_better:
        least, under, worst = ("most", "over", "inf")
    found = {t: scores[key] for t, scores in report["summary"].items() if key in scores}
    if not found:
        yield f"nothing has a score of {name}, so it is not at {least} {limit:g}"
    for target, summary in found.items():
        said = statistic.replace("_", " ")
        what = f"{said} {name} of {target} is {summary[statistic]:.3f} {metric.unit}".rstrip()
        hopeless = _count(report, target, key, ("silent estimate", worst))
        sign = 1 if metric.more_is_better else -1
        if not sign * summary[statistic] >= sign * limit:  # also where it is NaN
            yield f"{what}, {under} the limit of {limit:g}"
        elif hopeless:
            yield f"{what}, but that leaves out silent or unrelated estimates ({hopeless})"


def _count(report, target, key, reasons):
    return sum(
        item["target"] == target and item.get("reasons", {}).get(key) in reasons
        for item in report["items"]
    )
