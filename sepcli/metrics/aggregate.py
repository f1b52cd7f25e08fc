"""Many scores in a few numbers, each with the name of its statistic."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sepcli.metrics.score import Score

STATISTICS = {"mean": np.mean, "median": np.median, "median_of_median": np.median}
DEFAULT = ("mean", "median")
RESAMPLES = 2000
ENDS = (2.5, 97.5)  # percentiles


def summarise(scores: Sequence[Score], statistics: Sequence[str] | None = None) -> dict[str, Any]:
    """What a list of `Score` says: {"mean": ..., "median": ..., "count": ..., ...}.

    statistics: names out of `STATISTICS`; "median_of_median" for scores that are medians already.
    The statistics are over the scores that are finite, and "count" is how many those are (all
    infinite: infinity; none at all: NaN). "undefined" maps the reasons of the NaN to how often they
    occurred, "infinite" counts the infinite scores, "notes" maps remarks on finite scores to how
    often they were made.
    """
    values = np.array(scores, dtype=np.float64)
    finite = values[np.isfinite(values)]
    infinite = values[np.isinf(values)]
    summary = {}
    for name in statistics or DEFAULT:
        if finite.size:
            summary[name] = float(STATISTICS[name](finite))
        else:  # NaN, too, where both infinities occur
            summary[name] = float(infinite[0]) if len(set(infinite)) == 1 else np.nan
    return {
        **summary,
        "count": int(finite.size),
        "infinite": int(infinite.size),
        "undefined": dict(Counter(s.note for s in scores if np.isnan(s))),
        "notes": dict(Counter(s.note for s in scores if np.isfinite(s) and s.note)),
    }


def compare(
    old: Sequence[float],
    new: Sequence[float],
    statistic: str = "mean",
    *,
    more_is_better: bool = True,
) -> dict[str, Any]:
    """Paired comparison of two lists of numbers for the same items.

    statistic: a name out of `STATISTICS`, in which "old_…" and "new_…" are compared. Pairs with a
    number that is not finite are left out. Differences are rounded to 1e-5, below which another
    machine's rounding decides. The interval "low" to "high" holds "…_difference", that of the
    statistics, with 95 % confidence: percentile bootstrap over the pairs (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993, ch. 13), with a fixed seed.
    """
    pairs = np.array([old, new], dtype=np.float64)
    before, after = pairs[:, np.isfinite(pairs).all(axis=0)]
    difference = np.round(after - before, 5)
    n = difference.size
    if n == 0:
        return {"count": 0}

    def change(drawn=slice(None)):
        if statistic == "mean":  # the difference of the means is the mean of the differences
            return difference[drawn].mean()
        of = STATISTICS[statistic]
        return np.round(of(after[drawn]) - of(before[drawn]), 5)

    rng = np.random.default_rng(0)
    low, high = np.percentile([change(rng.integers(n, size=n)) for _ in range(RESAMPLES)], ENDS)
    gains = difference if more_is_better else -difference
    return {
        f"old_{statistic}": float(STATISTICS[statistic](before)),
        f"new_{statistic}": float(STATISTICS[statistic](after)),
        f"{statistic}_difference": float(change()),
        "low": float(low),
        "high": float(high),
        "better": int(np.sum(gains > 0)),
        "worse": int(np.sum(gains < 0)),
        "count": n,
    }
