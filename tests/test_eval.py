import csv
import io
import itertools
import json
import os
import pty
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.cluster.spread import Spread
from sepcli.errors import SepcliError
from sepcli.samples.streams import Sample
from sepcli.scoring.evaluate import default_metrics, evaluate
from sepcli.scoring.pairs import pair
from tests.disks import disk_of
from tests.samples import to_tar

RATE = 16000
T = 1000
SI = ("--metrics", "si-sdr,si-sdri,snr")


def tone(periods=5, gain=1.0):
    return gain * np.sin(2 * np.pi * periods * np.arange(T) / T)[None]


def estimate_at(level_db, target=None):
    """`target` (a sine) plus a sine 1/10^(level/20) of its size at right angles to it."""
    return (tone() if target is None else target) + tone(7, 10 ** (-level_db / 20))


def sample(index=0, est_db=20, mix_db=5, **signals):
    """A sample whose est.speech scores `est_db` and whose mix scores `mix_db` dB SI-SDR."""
    made = Sample(f"{index:06d}", {"sample_rate": RATE, "targets": ["speech"]})
    named = {
        "mix": estimate_at(mix_db),
        "ref.speech": tone(),
        "est.speech": estimate_at(est_db),
    } | {name.replace("_", "."): signal for name, signal in signals.items()}
    for name, signal in named.items():
        if signal is not None:
            made.set_audio(name, signal, RATE)
    return made


def run(*arguments, samples=(), data=None):
    data = to_tar(samples) if data is None else data
    return CliRunner().invoke(main, ["eval", *map(str, arguments)], input=data)


def scores(*arguments, **settings):
    result = run(*arguments, "--json", **settings)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def write(path, signal, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, np.asarray(signal, dtype=np.float32), rate)


def in_table(value):
    return pytest.approx(value, abs=1e-4)  # signals are stored in single precision


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


def speech(seconds=1.0):
    t = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(240 * np.pi * k * t) / k for k in range(1, 25))
    return (0.2 * buzz * np.abs(np.sin(8 * np.pi * t)))[None]


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


def test_two_files_are_scored_against_each_other(tmp_path):
    write(tmp_path / "est.wav", estimate_at(20))
    write(tmp_path / "ref.wav", tone())
    write(tmp_path / "mix.wav", estimate_at(5))
    places = [tmp_path / "est.wav", tmp_path / "ref.wav"]
    report = scores(*places, "--metrics", "si-sdr")
    assert report["items"] == [{"key": "est", "target": "audio", "si_sdr_db": in_table(20)}]
    report = scores(*places, "--mix", tmp_path / "mix.wav", *SI)
    assert report["items"][0]["si_sdri_db"] == in_table(15)
    report = scores(tmp_path / "mix.wav", tmp_path / "ref.wav", "--metrics", "si-sdr")
    assert report["items"][0]["si_sdr_db"] == in_table(5)


@pytest.mark.parametrize(
    ("est", "ref", "mix", "targets"),
    [
        ("{key}.wav", "{key}.wav", None, ["audio"]),
        ("{key}.wav", "{key}.flac", "{key}.wav", ["audio"]),
        ("room/{key}.wav", "room/{key}.wav", "room/{key}.wav", ["audio"]),
        ("{key}/est.{t}.wav", "{key}/ref.{t}.wav", "ref/{key}/mix.wav", ["speech", "noise"]),
        ("{key}/est.{t}.wav", "{key}.wav", None, ["speech"]),
        ("{key}.wav", "{key}/ref.speech.wav", "ref/{key}/mix.wav", ["speech"]),
        ("{key}/{t}.wav", "{key}/ref.{t}.wav", "ref/{key}/mix.wav", ["speech", "noise"]),
        ("{key}/{t}.wav", "{key}/{t}.wav", "ref/{key}/mixture.wav", ["drums", "vocals"]),
        ("{key}/{t}.wav", "test/{key}/{t}.wav", "ref/test/{key}/mixture.wav", ["bass", "other"]),
        ("{key}/est.{t}.wav", "{key}/ref.{t}.wav", "est/{key}/mix.wav", ["speech"]),
    ],
)
def test_folders_are_matched_by_name(tmp_path, est, ref, mix, targets):
    for index, key in enumerate(["one", "two"]):
        for number, target in enumerate(targets):
            truth = tone(5 + 10 * index + number)
            estimate = estimate_at(10 * (1 + index + number), truth)
            write(tmp_path / "est" / est.format(key=key, t=target), estimate)
            write(tmp_path / "ref" / ref.format(key=key, t=target), truth)
        if mix:
            name = mix.format(key=key)
            where = tmp_path / name if "/mix" in name else tmp_path / "mix" / name
            write(where, estimate_at(5, truth))
    options = ("--mix", tmp_path / "mix") if (tmp_path / "mix").exists() else ()
    report = scores(
        tmp_path / "est", tmp_path / "ref", *options, *(SI if mix else ("--metrics", "snr"))
    )
    found = {
        (item["key"].split("/")[-1], item["target"]): item["snr_db"] for item in report["items"]
    }
    expected = {
        (key, target): in_table(10 * (1 + index + number))
        for index, key in enumerate(["one", "two"])
        for number, target in enumerate(targets)
    }
    assert found == expected


def test_two_folders_that_are_one_sample_each_belong_together(tmp_path):
    write(tmp_path / "mine" / "vocals.wav", estimate_at(20))
    write(tmp_path / "song" / "vocals.wav", tone())
    write(tmp_path / "song" / "mixture.wav", estimate_at(5))
    report = scores(tmp_path / "mine", tmp_path / "song", *SI)
    assert report["items"][0]["target"] == "vocals"
    assert report["items"][0]["si_sdri_db"] == in_table(15)


def test_a_folder_or_tar_of_complete_samples_needs_no_second_argument(tmp_path):
    (tmp_path / "s.tar").write_bytes(to_tar([sample()]))
    write(tmp_path / "d" / "a" / "est.speech.wav", estimate_at(20))
    write(tmp_path / "d" / "a" / "ref.speech.wav", tone())
    for place in ("s.tar", "d"):
        report = scores(tmp_path / place, "--metrics", "si-sdr")
        assert report["summary"]["speech"]["si_sdr_db"]["mean"] == in_table(20)


def test_an_estimate_can_come_through_a_pipe(tmp_path):
    write(tmp_path / "ref.wav", tone())
    piped = audio.encode_wav(estimate_at(20).astype(np.float32), RATE)
    report = scores("-", tmp_path / "ref.wav", "--metrics", "snr", data=piped)
    assert report["items"] == [{"key": "stdin", "target": "audio", "snr_db": in_table(20)}]


def test_estimates_nobody_has_a_reference_for_go_with_their_siblings(tmp_path):
    for name in ("speech", "residual"):
        write(tmp_path / "est" / "a" / f"{name}.wav", estimate_at(20))
    write(tmp_path / "ref" / "a" / "ref.speech.wav", tone())
    report = scores(tmp_path / "est", tmp_path / "ref", "--metrics", "snr")
    assert report["items"] == [{"key": "a", "target": "speech", "snr_db": in_table(20)}]


def test_no_argument_means_standard_input():
    assert run(*SI, samples=[sample()]).stdout == run("-", *SI, samples=[sample()]).stdout


def test_references_are_never_taken_for_estimates(tmp_path):
    for name in ("mix", "ref.speech"):
        write(tmp_path / "a" / f"{name}.wav", tone())
        write(tmp_path / "b" / f"{name}.wav", tone())
    result = run(tmp_path, tmp_path)
    assert result.exit_code == 1
    assert "no estimates, a has mix.wav, ref.speech.wav; name the folder" in result.stderr


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


# --- what goes wrong


def test_samples_without_estimates_say_which_step_is_missing():
    result = run("-", samples=[sample(est_speech=None)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "Error: standard input: sample 000000: no estimate, only mix.wav, ref.speech.wav; "
        "pipe samples through `sepcli separate -` first, or name both: sepcli eval EST REF\n"
    )


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({"est_speech": None}, "sample 000001: no estimate, only mix.wav, ref.speech.wav"),
        (
            {"ref_speech": None, "ref_voice": tone()},
            "sample 000001: no reference for speech, only voice; give both the same name",
        ),
        ({"ref_speech": None}, "sample 000001: no reference for speech, only nothing;"),
        (
            {"est_speech": estimate_at(9)[:, :-3]},
            "sample 000001: est.speech has 997 samples but ref.speech has 1000; "
            "nothing is cut, --pad appends zeros",
        ),
        (
            {"est_speech": np.repeat(estimate_at(9), 2, axis=0)},
            "sample 000001: est.speech has 2 channels but ref.speech has 1;",
        ),
        ({"mix": tone()[:, :-1]}, "sample 000001: mix has 999 samples but ref.speech has 1000;"),
        (
            {"mix": None},
            "sample 000001: si-sdri needs the mixture; give it with --mix, "
            "or leave si-sdri out of --metrics",
        ),
    ],
)
def test_a_sample_that_cannot_be_scored_is_named_and_the_others_are_scored(signals, message):
    samples = [sample(0, 20), sample(1, **signals), sample(2, 10)]
    result = run("-", "--json", *SI, samples=samples)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["summary"]["speech"]["si_sdr_db"]["mean"] == in_table(15)
    assert [failed["key"] for failed in report["failed"]] == ["000001"]
    failed, error = result.stderr.splitlines()
    assert failed.startswith(f"Failed: standard input: {message}")
    assert error == "Error: 1 of 3 could not be scored, see above"


def test_a_broken_file_is_named_and_the_others_are_scored(tmp_path):
    for key in ("a", "b"):
        write(tmp_path / "est" / f"{key}.wav", estimate_at(20))
        write(tmp_path / "ref" / f"{key}.wav", tone())
    (tmp_path / "est" / "a.wav").write_bytes(b"RIFFnonsense")
    write(tmp_path / "est" / "c.wav", tone())
    write(tmp_path / "ref" / "d.wav", tone())
    result = run(tmp_path / "est", tmp_path / "ref", "--metrics", "si-sdr")
    assert result.exit_code == 1
    assert "audio   mean           20.00" in result.stdout
    lines = result.stderr.splitlines()
    assert "est/a.wav" in lines[0]
    assert lines[1].startswith("Failed: sample c: no reference for audio, only nothing")
    assert lines[2] == "Failed: sample d: no estimate, only ref.audio.wav"
    assert lines[3] == "Error: 3 of 4 could not be scored, see above"


def test_rates_that_differ_are_named(tmp_path):
    write(tmp_path / "est.wav", tone(), 8000)
    write(tmp_path / "ref.wav", tone())
    result = run(tmp_path / "est.wav", tmp_path / "ref.wav", "--metrics", "si-sdr")
    assert result.exit_code == 1
    assert re.search("8000 Hz but its sample is 16000 Hz; resample it first", result.stderr)


def test_when_nothing_can_be_scored_there_is_no_table():
    samples = [sample(0, mix=None), sample(1, mix=None)]
    result = run("-", *SI, samples=samples)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "Error: none of 2 could be scored, see above"


def test_only_the_first_failures_are_named():
    samples = [sample(0), *(sample(i, mix=None) for i in range(1, 31))]
    lines = run("-", *SI, samples=samples).stderr.splitlines()
    assert len(lines) == 22
    assert lines[-2] == "Failed: 10 more"
    assert lines[-1] == "Error: 30 of 31 could not be scored, see above"


def test_a_stream_that_was_cut_off_is_an_error_unless_told_otherwise():
    data = to_tar([sample(0), sample(1)], close=False)
    result = run("-", *SI, data=data)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "standard input" in result.stderr
    result = run("-", "--no-strict", *SI, data=data)
    assert result.exit_code == 0
    assert "count              2" in result.stdout


def test_a_stream_without_samples_is_an_error():
    result = run("-", data=to_tar([]))
    assert result.exit_code == 1
    assert "nothing to score: no samples; check the command upstream" in result.stderr


def test_folders_without_names_in_common_are_an_error(tmp_path):
    write(tmp_path / "est" / "a_enhanced.wav", tone())
    write(tmp_path / "ref" / "a.wav", tone())
    write(tmp_path / "ref" / "b.wav", tone())
    result = run(tmp_path / "est", tmp_path / "ref")
    assert result.exit_code == 1
    assert "no names in common, here a_enhanced, there a; give an estimate" in result.stderr


def test_a_mixture_that_is_missing_is_an_error(tmp_path):
    for place, key in itertools.product(("est", "ref", "mix"), ("a", "b")):
        write(tmp_path / place / f"{key}.wav", tone())
    (tmp_path / "mix" / "b.wav").unlink()
    result = run(tmp_path / "est", tmp_path / "ref", "--mix", tmp_path / "mix")
    assert result.exit_code == 1
    assert "mix: no mixture for b; add it, or omit --mix" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--metrics", "sisdr"],
            "No such metric 'sisdr'. Did you mean 'si-sdr'? There are sdr, isr,",
        ),
        (["--metrics", "si_sdri"], "Did you mean 'si-sdri'?"),
        (["--metrics", "loudness"], "No such metric 'loudness'. There are sdr, isr, sir"),
        (["--fail-under", "pesk=1"], "Did you mean 'pesq'?"),
        (["--fail-under", "pesq"], "'pesq' is not METRIC=NUMBER, such as si-sdri=5"),
        (["--fail-under", "pesq=high"], "'pesq=high' is not METRIC=NUMBER"),
        (["--fail-under", "pesq=1", "--metrics", "snr"], "--fail-under pesq: add it to --metrics."),
        (["--fail-under", "snr=1"], "--fail-under snr: add it to --metrics."),
        (["-", "--mix", "m.wav"], "--mix goes with EST and REF"),
        (["--csv", "--compare", __file__], "--csv cannot show --compare"),
        (["--compare", "nowhere.json"], "does not exist"),
    ],
)
def test_wrong_questions_are_usage_errors(arguments, message):
    result = run(*arguments, samples=[sample()])
    assert result.exit_code == 2
    assert message in result.stderr


def test_progress_can_be_read_by_machines():
    result = run("--progress", "json", *SI, samples=[sample(0), sample(1)])
    assert [json.loads(line) for line in result.stderr.splitlines()] == [
        {"key": "000000", "target": "speech", "error": ""},
        {"key": "000001", "target": "speech", "error": ""},
    ]


def test_pairs_carry_the_audio_unread(tmp_path):
    write(tmp_path / "a.wav", tone())
    shutil.copy(tmp_path / "a.wav", tmp_path / "b.wav")
    (made,) = pair(tmp_path / "a.wav", tmp_path / "b.wav")
    assert made.members == {
        "est.audio.wav": tmp_path / "a.wav",
        "ref.audio.wav": tmp_path / "b.wav",
    }
