import statistics

import numpy as np
import pytest
from scipy import stats

from sepcli.metrics.aggregate import compare, summarise
from sepcli.metrics.score import Score, undefined


def test_mean_median_and_count_are_over_the_finite_scores():
    scores = [Score(v) for v in (1, 2, 9, np.inf)] + [undefined("silent reference")] * 2
    summary = summarise(scores)
    assert summary["mean"] == pytest.approx(statistics.mean([1, 2, 9]))
    assert summary["median"] == statistics.median([1, 2, 9])
    assert summary["count"] == 3
    assert summary["infinite"] == 1
    assert summary["undefined"] == {"silent reference": 2}


def test_notes_on_finite_scores_are_counted():
    scores = [Score(1, "wide band"), Score(2, "wide band"), Score(3, "narrow band"), Score(4)]
    assert summarise(scores)["notes"] == {"wide band": 2, "narrow band": 1}


def test_one_statistic_can_be_chosen():
    assert list(summarise([Score(1)], ["median"])) == [
        "median", "count", "infinite", "undefined", "notes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [([np.inf, np.inf], np.inf), ([-np.inf], -np.inf), ([np.inf, -np.inf], np.nan), ([], np.nan)],
)
def test_without_a_finite_score_the_mean_is_infinite_or_nan(values, expected):
    summary = summarise([Score(v) for v in values] + [undefined("why")])
    np.testing.assert_equal([summary["mean"], summary["median"]], [expected] * 2)
    assert summary["count"] == 0


def test_comparison_counts_pairs_that_got_better_and_worse():
    old, new = [1, 2, 3, 4, np.nan, 5], [2, 3, 3, 3, 7, -np.inf]
    result = compare(old, new)
    assert (result["better"], result["worse"], result["count"]) == (2, 1, 4)
    assert result["old_mean"] == 2.5
    assert result["new_mean"] == 2.75
    assert result["mean_difference"] == 0.25


def test_the_interval_is_that_of_scipys_bootstrap():
    rng = np.random.default_rng(5)
    old = rng.normal(5, 3, 40)
    new = old + rng.normal(0.5, 1, 40)
    result = compare(old, new)
    expected = stats.bootstrap(
        [new - old], np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert result["low"] == pytest.approx(expected.low, abs=0.03)
    assert result["high"] == pytest.approx(expected.high, abs=0.03)
    assert compare(old, new) == result


@pytest.mark.parametrize("statistic", ["median", "median_of_median"])
def test_medians_are_compared_by_their_difference(statistic):
    rng = np.random.default_rng(5)
    old = rng.normal(5, 3, 41)
    new = old + rng.exponential(2, 41)
    result = compare([*old, np.nan], [*new, 3], statistic)
    assert result[f"old_{statistic}"] == statistics.median(old)
    assert result[f"new_{statistic}"] == statistics.median(new)
    change = statistics.median(new) - statistics.median(old)
    assert result[f"{statistic}_difference"] == pytest.approx(change, abs=1e-5)
    assert abs(change - np.median(new - old)) > 0.1  # not the median of the differences
    expected = stats.bootstrap(
        [old, new], lambda x, y, axis=-1: np.median(y, axis=axis) - np.median(x, axis=axis),
        n_resamples=20000, method="percentile", paired=True, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert result["low"] == pytest.approx(expected.low, abs=0.1)
    assert result["high"] == pytest.approx(expected.high, abs=0.1)


def test_nothing_to_compare_is_a_count_of_zero():
    assert compare([np.nan, 1], [1, np.inf]) == {"count": 0}
    assert compare([], []) == {"count": 0}
