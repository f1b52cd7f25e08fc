"""`sepcli eval`: the report, in its forms, and its statistics."""

import csv
import io
import itertools
import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from sepcli.cluster.spread import Spread
from sepcli.errors import SepcliError
from sepcli.scoring.evaluate import default_metrics, evaluate
from tests.disks import disk_of
from tests.samples import to_tar
from tests.scores import SI, in_table, run, sample, scores, speech, tone

# --- what comes out


def test_the_table_in_a_pipe_is_plain_and_aligned():
    result = run("-", *SI, samples=[sample(0, 20, 5), sample(1, 10, 0), sample(2, 12, 4)])
    assert result.exit_code == 0
    assert result.stdout == (
        "target  statistic  si-sdr dB  si-sdri dB  snr dB\n"
        "speech  mean           14.00       11.00   14.00\n"
        "speech  median         12.00       10.00   12.00\n"
        "speech  count              3           3       3\n"
    )
    assert result.stderr == ""


def test_json_names_every_statistic_and_has_every_score():
    report = scores("-", *SI, samples=[sample(0, 20, 5), sample(1, 10, 0)])
    assert report["summary"]["speech"]["si_sdri_db"] == {
        "mean": in_table(12.5),
        "median": in_table(12.5),
        "count": 2,
        "infinite": 0,
        "undefined": {},
        "notes": {},
    }
    first = {"key": "000000", "target": "speech", "si_sdr_db": in_table(20)}
    assert report["items"][0] == {**first, "si_sdri_db": in_table(15), "snr_db": in_table(20)}
    assert report["metrics"]["si_sdr_db"]["name"] == "si-sdr"
    assert "zero-mean" in report["metrics"]["si_sdr_db"]["definition"]
    assert report["failed"] == []


def test_json_has_null_and_a_reason_for_what_is_no_number():
    samples = [
        sample(0, ref_speech=0 * tone()),
        sample(1, est_speech=0 * tone()),
        sample(2, est_speech=tone()),
        sample(3),
    ]
    result = run("-", "--json", *SI, samples=samples)
    report = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    items = report["items"]
    assert [item["si_sdr_db"] for item in items] == [None, None, None, in_table(20)]
    assert [item.get("reasons", {}).get("si_sdr_db") for item in items] == [
        "silent reference", "silent estimate", "inf", None,
    ]  # fmt: skip
    summary = report["summary"]["speech"]["si_sdr_db"]
    assert summary["undefined"] == {"silent reference": 1, "silent estimate": 1}
    assert (summary["mean"], summary["count"], summary["infinite"]) == (in_table(20), 1, 1)


def test_the_table_counts_what_is_no_number_and_says_why():
    samples = [sample(0, ref_speech=0 * tone()), sample(1, est_speech=tone()), sample(2)]
    result = run("-", "--metrics", "si-sdr", samples=samples)
    assert result.stdout == (
        "target  statistic  si-sdr dB\n"
        "speech  mean           20.00\n"
        "speech  median         20.00\n"
        "speech  count              1\n"
        "speech  infinite           1\n"
        "speech  undefined          1\n"
        "\n"
        "si-sdr of speech: undefined, silent reference (1)\n"
    )


def test_csv_has_a_line_per_item_and_empty_fields_for_what_is_undefined():
    samples = [sample(0), sample(1, ref_speech=0 * tone()), sample(2, est_speech=tone())]
    result = run("-", "--csv", "--metrics", "snr,si-sdr", samples=samples)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["key", "target", "snr_db", "si_sdr_db"]
    assert float(rows[0]["si_sdr_db"]) == in_table(20)
    assert rows[1] == {"key": "000001", "target": "speech", "snr_db": "", "si_sdr_db": ""}
    assert rows[2]["snr_db"] == "inf"


def test_markdown_is_the_same_table():
    result = run("-", "--markdown", "--metrics", "si-sdr", samples=[sample()])
    assert result.stdout == (
        "| target | statistic | si-sdr dB |\n"
        "| :-- | :-- | --: |\n"
        "| speech | mean | 20.00 |\n"
        "| speech | median | 20.00 |\n"
        "| speech | count | 1 |\n"
    )


def test_one_aggregate_can_be_chosen():
    result = run("-", "--metrics", "snr", "--aggregate", "median", samples=[sample(), sample(1)])
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "statistic", "median", "count",
    ]  # fmt: skip


def test_targets_have_rows_of_their_own():
    both = sample(0, 20, ref_noise=tone(9), est_noise=tone(9) + tone(11, 0.01))
    report = scores("-", *SI, samples=[both, sample(1, 10)])
    assert report["summary"]["speech"]["si_sdr_db"]["mean"] == in_table(15)
    assert report["summary"]["noise"]["si_sdr_db"]["mean"] == in_table(40)
    assert [(item["key"], item["target"]) for item in report["items"]] == [
        ("000000", "speech"), ("000000", "noise"), ("000001", "speech"),
    ]  # fmt: skip


def test_an_estimate_without_reference_is_left_out_where_another_has_one():
    report = scores("-", *SI, samples=[sample(est_residual=tone(3))])
    assert list(report["summary"]) == ["speech"]


def test_pesq_is_no_default_where_it_could_not_be_compiled(monkeypatch):
    monkeypatch.setattr("sepcli.metrics.find_spec", lambda package: None)
    assert default_metrics("speech", mixed=True) == ("si-sdri", "si-sdr", "stoi")
    noisy = speech() + 0.01 * np.random.default_rng(0).standard_normal(speech().shape)
    spoken = sample(mix=noisy, ref_speech=speech(), est_speech=noisy)
    result = run("-", samples=[spoken])
    assert result.exit_code == 0
    assert (
        result.stderr
        == "pesq is left out because its package is not installed; pip install 'sepcli[pesq]'\n"
    )
    assert run("-", "--metrics", "si-sdr", samples=[spoken]).stderr == ""
    result = run("-", "--metrics", "si-sdr", "--fail-under", "pesq=1", samples=[spoken])
    assert result.exit_code == 2


def test_default_metrics_depend_on_the_target_and_the_mixture():
    rough = speech() + 0.01 * np.random.default_rng(0).standard_normal(speech().shape)
    signals = {
        "ref_speech": speech(), "est_speech": rough, "ref_noise": speech(), "est_noise": rough,
    }  # fmt: skip
    report = scores("-", samples=[sample(mix=rough, **signals)])
    assert list(report["summary"]["speech"]) == ["si_sdri_db", "si_sdr_db", "pesq", "stoi"]
    assert list(report["summary"]["noise"]) == ["si_sdri_db", "si_sdr_db"]
    assert report["summary"]["speech"]["pesq"]["notes"] == {"wide band, 16000 Hz": 1}
    table = run("-", samples=[sample(mix=None, **signals)]).stdout
    assert table.splitlines()[0].split() == ["target", "statistic", "si-sdr", "dB", "pesq", "stoi"]
    assert re.search(r"^noise   mean +\d+\.\d\d      -      -$", table, re.MULTILINE)
    assert table.endswith("\npesq of speech: wide band, 16000 Hz (1)\n")


def test_more_jobs_give_the_same_report():
    samples = [sample(index, 3 * index) for index in range(6)]
    data = to_tar(samples)
    assert run("-j2", "--json", *SI, data=data).stdout == run("--json", *SI, data=data).stdout


@pytest.mark.parametrize(("jobs", "ahead"), [(1, 0), (2, 4)])
def test_samples_are_read_only_a_little_ahead(jobs, ahead):
    read = []
    endless = (read.append(index) or sample(index) for index in itertools.count())
    rows = evaluate(endless, ["snr"], spread=Spread(jobs=jobs))
    assert [next(rows).key for _ in range(3)] == ["000000", "000001", "000002"]
    assert len(read) <= 3 + ahead
    rows.close()


def test_python_callers_get_the_names_of_metrics_too():
    with pytest.raises(SepcliError, match="unknown metric 'sisdr'; choose from sdr, isr"):
        next(evaluate([sample()], ["sisdr"]))


def test_a_terminal_gets_a_table_with_lines(tmp_path):
    (tmp_path / "s.tar").write_bytes(to_tar([sample()]))
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "sepcli", "eval", str(tmp_path / "s.tar"), "--metrics", "snr"]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    subprocess.run(command, stdout=follower, stderr=subprocess.PIPE, env=environment, check=True)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "┃ target ┃ statistic ┃ snr dB ┃" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "20.00" in shown


# --- files


@pytest.mark.parametrize(
    ("name", "form"), [("a.json", '{\n  "sepcli"'), ("a.csv", "key,target,snr_db"), ("a.md", "| ")]
)
def test_the_extension_of_the_output_chooses_the_format(tmp_path, name, form):
    result = run("-", "--metrics", "snr", "-o", tmp_path / name, samples=[sample()])
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / name).read_text().startswith(form)
    assert os.listdir(tmp_path) == [name]


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "no").touch()
    result = run("-", "-o", tmp_path / "no" / "a.json", *SI, samples=[sample()])
    assert result.exit_code == 1
    assert f"{tmp_path}/no: a file, where a folder is needed; choose another" in result.stderr


def test_a_report_that_finds_no_room_in_the_end_is_shown_after_all(tmp_path):
    paths = {name: tmp_path / name for name in ("a.json", "r.html")}
    with disk_of(100):
        result = run("-", "-o", paths["a.json"], "--html", paths["r.html"], *SI, samples=[sample()])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["items"]
    errors = [f"Error: {path}: File too large; make room" for path in paths.values()]
    assert result.stderr.splitlines() == errors
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["-o", "--html", "--museval"])
def test_an_output_in_a_place_that_is_none_is_found_before_the_work(tmp_path, option):
    (tmp_path / "taken").touch()
    result = run("-", option, tmp_path / "taken" / "x", data=b"this is never read")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path}/taken: a file, where a folder is needed; choose another place\n"
    )
