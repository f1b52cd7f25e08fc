"""Scores of the extraction of a speaker: present and absent, right and wrong, in one table."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.metrics.speaker import right_speaker, suppression
from sepcli.samples.streams import Sample, open_sample_writer

RATE = 16000


def sine(k, samples=RATE):
    """A whole number of periods: sines of other k are at right angles to it."""
    return np.sin(2 * np.pi * k * np.arange(samples) / samples)[None].astype(np.float32)


A, B, NOISE = sine(500), sine(700), 0.1 * sine(1900)


def test_suppression_is_the_level_of_the_mixture_over_that_of_the_estimate():
    silence = 0 * A
    assert suppression(0.1 * B, silence, RATE, B) == pytest.approx(20)
    assert suppression(B, silence, RATE, B) == pytest.approx(0)
    assert suppression(silence, silence, RATE, B) == pytest.approx(100)
    assert suppression(B, A, RATE, B).note == "the target is present"
    assert suppression(B, silence, RATE, silence).note == "silent mixture"


def test_the_right_speaker_is_the_nearest():
    mix = A + B + NOISE
    for k, right in ((0.9, 0), (1.1, 1)):
        assert right_speaker(k * A + B, A, RATE, mix, interferers=[B]) == right
    assert right_speaker(A, A, RATE, mix, interferers=[B, 0 * B]) == 1
    assert right_speaker(A + 2 * NOISE, A, RATE, mix, interferers=[B, NOISE]) == 1
    assert right_speaker(0 * A, A, RATE, mix, interferers=[B]) == 0
    assert right_speaker(A, 0 * A, RATE, mix, interferers=[B]).note == "silent reference"


def test_without_interferers_the_improvement_counts():
    mix = A + B
    for k, right in ((1.1, 1), (0.9, 0)):
        found = right_speaker(k * A + B, A, RATE, mix)
        assert (found, found.note) == (right, "by SI-SDRi: no interferers")


@pytest.mark.parametrize("metric", [suppression, right_speaker])
def test_signals_of_other_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"shapes differ"):
        metric(A[:, 1:], 0 * A, RATE, A)


def sample(key, estimate, target, **meta):
    made = Sample(key, {"sample_rate": RATE, "targets": ["speech"], **meta})
    signals = {"mix": target + B + NOISE, "ref.speech": target, "ref.interferers": B}
    signals |= {"ref.noise": NOISE, "enroll": sine(501), "est.speech": estimate}
    for name, signal in signals.items():
        made.set_audio(name, signal)
    return made


@pytest.fixture
def samples(tmp_path):
    with open_sample_writer(str(tmp_path / "x.tar")) as writer:
        writer.write(sample("good", A + 0.1 * B, A, target_present=True))
        writer.write(sample("wrong", B + 0.1 * A, A, target_present=True))
        writer.write(sample("absent", 0.1 * (B + NOISE), 0 * A, target_present=False))
    return str(tmp_path / "x.tar")


def evaluated(*args):
    result = CliRunner().invoke(main, ["eval", *args])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_one_table_has_the_present_and_the_absent(samples):
    report = json.loads(evaluated(samples, "--json"))
    scores = report["summary"]["speech"]
    assert report["scenes"] == {"speech": {"present": 2, "absent": 1}}
    counts = {name: entry["count"] for name, entry in scores.items()}
    one = {"suppression_db": 1}
    assert counts == dict.fromkeys(scores, 2) | one
    assert {"si_sdri_db", "si_sdr_db", "stoi", "right_speaker", *one} <= set(scores)
    assert scores["right_speaker"]["mean"] == 0.5
    assert scores["suppression_db"]["mean"] == pytest.approx(20)
    assert scores["si_sdr_db"]["mean"] == pytest.approx(0, abs=0.1)  # 20 dB and -20 dB
    good, wrong, absent = report["items"]
    assert (good["right_speaker"], wrong["right_speaker"]) == (1, 0)
    assert set(absent) == {"key", "target", "target_present", "suppression_db"}
    table = evaluated(samples)
    assert "right-speaker  suppression dB" in table
    assert "speech is present in 2 items and absent in 1: suppression is over the latter" in table


def test_metrics_that_are_asked_for_are_scored_in_their_scenes(samples):
    report = json.loads(evaluated(samples, "--metrics", "snr,suppression,right-speaker", "--json"))
    assert [
        set(item) & {"snr_db", "suppression_db", "right_speaker"} for item in report["items"]
    ] == [
        {"snr_db", "right_speaker"},
        {"snr_db", "right_speaker"},
        {"snr_db", "suppression_db"},
    ]


def test_limits_hold_for_the_share_and_the_suppression(samples):
    args = ["eval", samples, "--fail-under", "right-speaker=0.9", "--fail-under", "suppression=10"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 1
    assert "mean right-speaker of speech is 0.500, under the limit of 0.9" in result.stderr
    assert "suppression of" not in result.stderr


def test_samples_that_do_not_say_who_is_there_have_all_scores(tmp_path):
    with open_sample_writer(str(tmp_path / "x.tar")) as writer:
        writer.write(sample("good", A + 0.1 * B, A))
        writer.write(sample("absent", 0.1 * B, 0 * A))
    report = json.loads(evaluated(str(tmp_path / "x.tar"), "--json"))
    assert "scenes" not in report
    scores = report["summary"]["speech"]
    assert scores["suppression_db"]["undefined"] == {"the target is present": 1}
    assert scores["si_sdr_db"]["undefined"] == {"silent reference": 1}


def test_mixtures_without_enrolments_are_scored_as_ever(tmp_path):
    made = sample("x", A + 0.1 * B, A)
    del made.members["enroll.wav"]
    with open_sample_writer(str(tmp_path / "x.tar")) as writer:
        writer.write(made)
    [item] = json.loads(evaluated(str(tmp_path / "x.tar"), "--json"))["items"]
    assert "right_speaker" not in item
