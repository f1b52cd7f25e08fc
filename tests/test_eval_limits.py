"""`sepcli eval`: limits that fail, and comparisons with an earlier report."""

import re

import pytest

from tests.scores import SI, run, sample, scores, tone

# --- gates and comparison


@pytest.mark.parametrize(
    ("limits", "code", "message"),
    [
        (["si-sdr=14.9"], 0, ""),
        (["si-sdr=14.9", "snr=-3"], 0, ""),
        (
            ["si-sdr=15.5"],
            1,
            "Error: mean si-sdr of speech is 15.000 dB, under the limit of 15.5\n",
        ),
        (["snr=1", "si-sdri=99"], 1, "Error: mean si-sdri of speech is 12.500 dB, under the limit"),
    ],
)
def test_fail_under_sets_the_exit_code(limits, code, message):
    options = [option for limit in limits for option in ("--fail-under", limit)]
    result = run("-", *SI, *options, samples=[sample(0, 20, 5), sample(1, 10, 0)])
    assert result.exit_code == code
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == code
    assert result.stdout.startswith("target")


def test_fail_under_uses_the_aggregate_that_is_shown():
    samples = [sample(0, 3), sample(1, 20), sample(2, 20)]
    options = ("--fail-under", "si-sdr=19", "--metrics", "si-sdr")
    assert run("-", *options, samples=samples).exit_code == 1
    assert run("-", *options, "--aggregate", "median", samples=samples).exit_code == 0


def test_silent_estimates_do_not_pass_a_limit():
    samples = [sample(0, 20), sample(1, est_speech=0 * tone())]
    result = run("-", "--metrics", "si-sdr", "--fail-under", "si-sdr=5", samples=samples)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: mean si-sdr of speech is 20.000 dB, "
        "but that leaves out silent or unrelated estimates (1)\n"
    )


def test_silent_references_do_not_fail_a_limit():
    samples = [sample(0, 20), sample(1, ref_speech=0 * tone())]
    result = run("-", "--metrics", "si-sdr", "--fail-under", "si-sdr=5", samples=samples)
    assert result.exit_code == 0


def test_a_limit_for_which_there_is_no_number_is_not_met():
    samples = [sample(0, ref_speech=0 * tone())]
    result = run("-", "--metrics", "si-sdr", "--fail-under", "si-sdr=5", samples=samples)
    assert result.exit_code == 1
    assert "mean si-sdr of speech is nan dB, under the limit of 5" in result.stderr
    result = run("-", "--fail-under", "si-sdri=5", samples=[sample(mix=None)])
    assert result.exit_code == 1
    assert "nothing has a score of si-sdri, so it is not at least 5" in result.stderr


def test_comparison_goes_item_by_item(tmp_path):
    old = tmp_path / "old.json"
    run("--json", "-o", old, *SI, samples=[sample(i, db) for i, db in enumerate((20, 10, 15, 1))])
    new = [sample(i, db) for i, db in enumerate((21, 12, 14))] + [sample(7)]
    result = run("--compare", old, "--metrics", "si-sdr", samples=new)
    assert result.exit_code == 0
    _table, compared = result.stdout.split("\n\n")[:2]
    header, row = compared.splitlines()
    assert re.split("  +", header) == [
        "target", "metric", "old", "new", "change", "95% interval", "better", "worse", "count",
    ]  # fmt: skip
    assert re.fullmatch(
        r"speech  si-sdr dB +15\.00  15\.67   \+0\.67  -1\.00 to \+2\.00       2      1      3", row
    )
    assert result.stdout.splitlines()[-1] == (
        f"Compared with {old}: 3 items in both, 1 only there, 1 only here; "
        "change is the mean of the differences with its 95 % bootstrap interval."
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--aggregate", "median", "--metrics", "si-sdr"], "median"),
        (["--median-of-median", "--metrics", "sdr"], "median of median"),
    ],
)
def test_medians_are_compared_where_medians_are_shown(tmp_path, options, said):
    old = tmp_path / "old.json"
    run("--json", "-o", old, *options, samples=[sample(i, db) for i, db in enumerate((1, 10, 11))])
    new = [sample(i, db) for i, db in enumerate((30, 12, 11))]
    result = run("--compare", old, *options, samples=new)
    assert result.exit_code == 0
    shown, compared = result.stdout.split("\n\n")[:2]
    assert re.search(rf"speech  {said} +12\.00", shown)
    assert re.search(r"10\.00 +12\.00 +\+2\.00 ", compared)
    assert f"change is the difference of the {said}s with its 95 %" in result.stdout


def test_comparison_is_in_json_and_markdown_too(tmp_path):
    old = tmp_path / "old.json"
    samples = [sample(i, 10 + i) for i in range(3)]
    run("--json", "-o", old, *SI, samples=samples)
    compared = scores("--compare", old, *SI, samples=samples)["compared"]
    assert (compared["items"], compared["only_old"], compared["only_new"]) == (3, 0, 0)
    entry = compared["summary"]["speech"]["si_sdr_db"]
    assert (entry["mean_difference"], entry["better"], entry["worse"]) == (0, 0, 0)
    result = run("--compare", old, "--markdown", *SI, samples=samples)
    assert "| speech | si-sdr dB | 11.00 | 11.00 | +0.00 | +0.00 to +0.00 | 0 | 0 | 3 |" in (
        result.stdout
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"items": [1]}', '{"items": [{"key": 1}]}'])
def test_comparing_with_something_else_is_one_line(tmp_path, content):
    (tmp_path / "old.json").write_text(content)
    result = run("--compare", tmp_path / "old.json", samples=[sample()])
    assert result.exit_code == 1
    assert re.search(r"old\.json: not a report; write one with `sepcli eval --json", result.stderr)


def test_comparing_other_samples_is_one_line(tmp_path):
    old = tmp_path / "old.json"
    run("--json", "-o", old, *SI, samples=[sample(1)])
    result = run("--compare", old, *SI, samples=[sample(2)])
    assert result.exit_code == 1
    assert "has none of these items; compare scores of the same samples" in result.stderr
