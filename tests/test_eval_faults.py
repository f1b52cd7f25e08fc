"""`sepcli eval`: what cannot be scored, and how that is said."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest

from sepcli.scoring.pairs import pair
from tests.samples import to_tar
from tests.scores import SI, estimate_at, in_table, run, sample, tone, write

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
    assert "count              2" in result.stdout
    assert result.stderr.startswith("Failed: standard input")
    assert "1 of 3 could not be scored" in result.stderr
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
