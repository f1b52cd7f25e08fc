"""`sepcli eval`: which estimate belongs to which reference."""

import numpy as np
import pytest

from sepcli import audio
from tests.samples import to_tar
from tests.scores import RATE, SI, estimate_at, in_table, run, sample, scores, tone, write


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
