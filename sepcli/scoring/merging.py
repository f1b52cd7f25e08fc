"""Put the reports of all shards of a run together."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sepcli.errors import SepcliError
from sepcli.metrics import aggregate
from sepcli.metrics.score import Score
from sepcli.scoring import report


def merge(paths: Sequence[str], statistics: Sequence[str] | None = None) -> dict[str, Any]:
    """The report that one run would have made of what the reports in `paths` are about.

    Items come shard by shard. statistics: as for `report.build`; they are computed from all items.
    Raises SepcliError for what is no report, and for shards that are missing, are given twice, or
    are of different runs.
    """
    parts = {path: report.load(path) for path in paths}
    _check_shards({path: part.get("shard") for path, part in parts.items()})
    merged: dict[str, Any] = {"sepcli": "", "metrics": {}, "summary": {}, "items": [], "failed": []}
    for part in parts.values():
        merged["sepcli"] = part["sepcli"]
        merged["metrics"] |= part["metrics"]
        for entry in ("items", "failed"):
            merged[entry] += part[entry]
    for target in dict.fromkeys(target for part in parts.values() for target in part["summary"]):
        merged["summary"][target] = _summary(target, list(parts.values()), merged, statistics)
    if scenes := _scenes(list(parts.values())):
        merged["scenes"] = scenes
    return merged


def _check_shards(shards):
    """Raise SepcliError unless these, {path: {"index", "count"} or None}, are all of one run."""
    path, first = next(iter(shards.items()))
    if first is None and len(shards) == 1:
        return
    first = first or {"count": 0}
    for other, shard in shards.items():
        if shard is None or shard["count"] != first["count"]:
            raise SepcliError(
                f"{other}: made with another number of shards than {path}; merge the reports of "
                "one run, each made with --shard i/n"
            )
    found = Counter(shard["index"] for shard in shards.values())
    missing = [str(n) for n in range(1, first["count"] + 1) if n not in found]
    if missing:
        raise SepcliError(
            f"{path}: shard {', '.join(missing)} of {first['count']} is missing; name the reports "
            "of all shards"
        )
    if twice := [str(n) for n, count in found.items() if count > 1]:
        raise SepcliError(f"{path}: shard {', '.join(twice)} is there twice; name each once")


def _summary(target, parts, merged, statistics):
    items = [item for item in merged["items"] if item["target"] == target]
    known = [part["summary"][target] for part in parts if target in part["summary"]]
    return {
        key: _statistics(
            [_number(item.get(key)) for item in items if key in item],
            [summary[key] for summary in known if key in summary],
            statistics,
        )
        for key in dict.fromkeys(key for summary in known for key in summary)
    }


def _statistics(numbers, summaries, statistics):
    """Statistics of all numbers, beside what was counted in each of the shards."""
    found = aggregate.summarise([Score(number) for number in numbers], statistics)
    found["infinite"] = sum(summary["infinite"] for summary in summaries)
    for entry in ("undefined", "notes"):
        found[entry] = dict(sum((Counter(summary[entry]) for summary in summaries), Counter()))
    return found


def _number(value):
    return math.nan if value is None else value


def _scenes(parts):
    """In how many items each target is present, and absent; {} where nobody knows."""
    scenes = {}
    for part in parts:
        for target, counts in part.get("scenes", {}).items():
            scenes[target] = dict(Counter(scenes.get(target, {})) + Counter(counts))
    return {
        target: {"present": counts.get("present", 0), "absent": counts.get("absent", 0)}
        for target, counts in scenes.items()
    }
