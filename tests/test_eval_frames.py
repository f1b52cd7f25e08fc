"""`sepcli eval` of what comes frame by frame: SDR, ISR, SIR, SAR, and the median of medians."""

import importlib.metadata
import io
import json
import os
import re

import jsonschema
import numpy as np
import pytest

from sepcli import audio
from sepcli.samples.streams import Sample
from sepcli.scoring.framewise import Framing, score_frames
from sepcli.scoring.targets import find_targets
from tests.samples import to_tar
from tests.scores import run
from tests.scores import scores as report

RATE = 4000
NAMES = ("sdr", "isr", "sir", "sar")
STEMS = ("vocals", "drums", "bass", "other")


def write(path, signal):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, signal.astype(np.float32), RATE, subtype="FLOAT")


def song(index, *, channels=1, seconds=3.0):
    """(estimates, references) of four stems by name, float32 (C, T)."""
    rng = np.random.default_rng(index)
    shape = (4, channels, round(seconds * RATE) + 40 * index)
    references = np.cumsum(rng.standard_normal(shape), axis=-1)
    references = 0.05 * np.diff(references, n=1, append=0, axis=-1).astype(np.float32)
    loudness = rng.uniform(0.2, 1, (4, 1, 1))
    noise = 0.02 * (index + 1) * rng.standard_normal(shape)
    estimates = references + loudness * (0.2 * references.sum(axis=0) + noise)
    estimates = estimates.astype(np.float32)
    return dict(zip(STEMS, estimates, strict=True)), dict(zip(STEMS, references, strict=True))


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    """Three songs: est/TRACK/{vocals,accompaniment}.wav, ref/test/TRACK/{four stems}.wav."""
    root = tmp_path_factory.mktemp("musdb")
    for index in range(3):
        estimates, references = song(index)
        if index == 1:
            references["vocals"][:, RATE : 2 * RATE] = 0
        for stem, signal in references.items():
            write(root / "ref" / "test" / f"Song {index}" / f"{stem}.wav", signal)
        write(root / "ref" / "test" / f"Song {index}" / "mixture.wav", sum(references.values()))
        rest = sum(estimates[stem] for stem in STEMS[1:])
        write(root / "est" / f"Song {index}" / "vocals.wav", estimates["vocals"])
        write(root / "est" / f"Song {index}" / "accompaniment.wav", rest)
    return root


@pytest.fixture(scope="module")
def expected(musdb, museval_metrics):
    """museval's scores of the songs: track -> target -> name -> (frames,)."""
    scores = {}
    for index in range(3):
        ref, est = musdb / "ref" / "test" / f"Song {index}", musdb / "est" / f"Song {index}"
        stems = {stem: audio.read(ref / f"{stem}.wav")[0].astype(np.float64) for stem in STEMS}
        references = [stems["vocals"], sum(stems[stem] for stem in STEMS[1:])]
        targets = ("vocals", "accompaniment")
        estimates = [audio.read(est / f"{target}.wav")[0] for target in targets]
        *found, _ = museval_metrics.bss_eval(
            np.swapaxes(references, 1, 2),
            np.swapaxes(np.float64(estimates), 1, 2),
            window=RATE,
            hop=RATE,
        )
        scores[f"Song {index}"] = {
            target: {name: found[n][t] for n, name in enumerate(NAMES)}
            for t, target in enumerate(targets)
        }
    return scores


def test_one_command_prints_the_median_of_medians_of_a_musdb_folder(musdb, expected):
    result = run("--median-of-median", musdb / "est", musdb / "ref")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert re.split("  +", lines[0])[2:] == ["sdr dB", "isr dB", "sir dB", "sar dB"]
    tracks = [
        [np.nanmedian(track["vocals"][name]) for name in NAMES] for track in expected.values()
    ]
    numbers = [f"{number:.2f}" for number in np.median(tracks, axis=0)]
    (row,) = (line for line in lines if line.startswith("vocals") and "median" in line)
    assert re.split("  +", row) == ["vocals", "median of median", *numbers]
    assert lines[-1] == (
        "sdr, isr, sir, sar: BSS Eval v4, of each item the median of its frames of 1 s every 1 s"
    )


def test_the_report_equals_museval_on_every_track(musdb, expected):
    found = report("--median-of-median", musdb / "est", musdb / "ref", "-j2")
    assert len(found["items"]) == 6
    for item in found["items"]:
        for name in NAMES:
            series = expected[item["key"]][item["target"]][name]
            assert item[f"{name}_db"] == pytest.approx(np.nanmedian(series), abs=2e-6)
    counts = {item["key"]: item["frames"]["sdr_db"] for item in found["items"]}
    assert counts["Song 0"] == {"count": 3, "finite": 3}
    assert counts["Song 1"] == {"count": 3, "finite": 2}  # a second without voice
    assert list(found["summary"]["vocals"]["sdr_db"])[:2] == ["median_of_median", "count"]
    assert found["metrics"]["sdr_db"]["frames"] == {
        "statistic": "median", "window_s": 1, "hop_s": 1,
    }  # fmt: skip


def test_files_for_museval_keep_its_schema_and_numbers(musdb, expected, tmp_path):
    result = run(musdb / "est", musdb / "ref", "--museval", tmp_path)
    assert result.exit_code == 0
    path = importlib.metadata.distribution("museval").locate_file("museval/musdb.schema.json")
    schema = json.loads(path.read_text())
    assert sorted(os.listdir(tmp_path / "test")) == [f"Song {index}.json" for index in range(3)]
    for key, targets in expected.items():
        written = json.loads((tmp_path / "test" / f"{key}.json").read_text())
        jsonschema.validate(written, schema)
        for target in written["targets"]:
            assert [frame["time"] for frame in target["frames"]] == [0, 1, 2]
            for name in NAMES:
                series = [frame["metrics"][name.upper()] for frame in target["frames"]]
                np.testing.assert_allclose(series, targets[target["name"]][name], atol=6e-6)


def test_all_stems_are_scored_together_but_accompaniment_in_a_pair(museval_metrics):
    estimates, references = song(0)
    estimates["accompaniment"] = sum(estimates[stem] for stem in STEMS[1:])
    sample = Sample("a", {"sample_rate": RATE})
    for role, signals in (("est", estimates), ("ref", references)):
        for target, signal in signals.items():
            sample.set_audio(f"{role}.{target}", signal, RATE)
    targets = (*STEMS, "accompaniment")
    found, names = find_targets(sample), {target: ["sir"] for target in targets}
    scores, _ = score_frames(sample, found, names, Framing())
    references["accompaniment"] = sum(references[stem].astype(np.float64) for stem in STEMS[1:])

    def sir(targets):
        signals = [np.float64([s[t].T for t in targets]) for s in (references, estimates)]
        found = museval_metrics.bss_eval(*signals, window=RATE, hop=RATE)[2]
        return dict(zip(targets, np.median(found, axis=1), strict=True))

    for target, value in ({**sir(STEMS), **sir(("vocals", "accompaniment"))}).items():
        assert scores[target]["sir"] == pytest.approx(value, abs=1e-5)


def test_sdr_is_a_default_of_stems_of_music_only(musdb):
    assert list(report(musdb / "est", musdb / "ref")["metrics"]) == [
        "sdr_db", "si_sdri_db", "si_sdr_db",
    ]  # fmt: skip


def sample(target="speech", **changes):
    estimates, references = song(0)
    made = Sample("000000", {"sample_rate": RATE})
    signals = {f"est.{target}": estimates["vocals"], f"ref.{target}": references["vocals"]}
    signals |= {"est.noise": estimates["drums"], "ref.noise": references["drums"]}
    for name, signal in {**signals, **changes}.items():
        made.set_audio(name, signal, RATE)
    return made


def test_window_and_hop_are_in_seconds():
    options = ("--metrics", "sdr", "--window", "0.5", "--hop", "0.25")
    found = report(*options, data=to_tar([sample()]))
    assert found["items"][0]["frames"]["sdr_db"]["count"] == 11
    found = report(*options[:4], data=to_tar([sample()]))
    assert found["items"][0]["frames"]["sdr_db"]["count"] == 6
    assert found["metrics"]["sdr_db"]["frames"]["hop_s"] == 0.5


def test_metrics_of_frames_stand_beside_others():
    found = report("--metrics", "si-sdr,sdr", data=to_tar([sample()]))
    assert list(found["items"][0])[:4] == ["key", "target", "si_sdr_db", "sdr_db"]
    assert list(found["summary"]["speech"]["sdr_db"])[:2] == ["mean", "median"]


@pytest.mark.parametrize(
    ("silent", "reasons"),
    [
        ("est.speech", ["silent estimate", "at least one source is silent in every frame"]),
        ("ref.noise", ["at least one source is silent in every frame", "silent reference"]),
    ],
)
def test_a_silent_source_takes_the_scores_of_all_and_says_so(silent, reasons):
    silence = np.zeros((1, 3 * RATE), np.float32)
    found = report("--metrics", "sdr,sir", data=to_tar([sample(**{silent: silence})]))
    items = sorted(found["items"], key=lambda item: item["target"], reverse=True)
    assert [item["reasons"]["sir_db"] for item in items] == reasons
    assert [item["sdr_db"] for item in items] == [None, None]


def test_a_target_alone_has_no_interference():
    alone = sample()
    del alone.members["est.noise.wav"]
    (item,) = report("--metrics", "sdr,sir", data=to_tar([alone]))["items"]
    assert item["reasons"] == {"sir_db": "no other source that can interfere"}
    assert item["sdr_db"] > 0


def test_a_perfect_estimate_is_infinite():
    perfect = song(0)[1]["vocals"]
    result = run("--metrics", "sdr", data=to_tar([sample(**{"est.speech": perfect})]))
    assert re.search(r"^speech +infinite +1$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.ones((1, 99)), "est.noise has 99 samples but ref.noise has 12000; nothing is cut"),
        (np.ones((2, 12000)), "est.noise has 2 channels but ref.noise has 1; nothing is cut"),
    ],
)
def test_signals_of_different_shapes_are_refused(signal, message):
    data = to_tar([sample(**{"est.noise": signal}), sample()])
    result = run("--metrics", "sdr", data=data)
    assert result.exit_code == 1
    assert message in result.stderr
    assert re.search(r"^speech +count +2$", result.stdout, re.MULTILINE)
    assert re.search(r"^noise +count +1$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("cut", [0, 10])
def test_lengths_that_no_header_tells_are_found_out(cut):
    stream = io.BytesIO()
    with audio.Writer(stream, RATE, 1) as writer:
        signal = song(0)[0]["drums"]
        writer.write(signal[:, : signal.shape[1] - cut])
    untold = sample()
    untold.members["est.noise.wav"] = stream.getvalue()
    result = run("--metrics", "sdr", "--json", data=to_tar([untold]))
    assert result.exit_code == (1 if cut else 0)
    if cut:
        assert "but ref.noise has 12000; nothing is cut" in result.stderr
        assert [item["target"] for item in json.loads(result.stdout)["items"]] == ["speech"]
    else:
        told = report("--metrics", "sdr", data=to_tar([sample()]))
        assert json.loads(result.stdout)["summary"] == told["summary"]


def test_a_limit_holds_for_the_median_of_medians(musdb):
    options = ("--median-of-median", "--metrics", "sdr", "--fail-under", "sdr=30")
    result = run(*options, musdb / "est", musdb / "ref")
    assert result.exit_code == 1
    assert "median of median sdr of vocals is" in result.stderr


def test_files_for_museval_stay_in_their_folder(tmp_path):
    outside = sample()
    outside.key = "../outside"
    result = run("--museval", tmp_path / "in", data=to_tar([outside]))
    assert result.exit_code == 1
    assert "'../outside'" in result.stderr
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--median-of-median", "--metrics", "sdr,pesq"], "is for metrics of frames: sdr, isr,"),
        (["--median-of-median", "--aggregate", "mean"], "excludes --aggregate"),
        (["--museval", "d", "--metrics", "sdr"], "--museval needs all of sdr, isr, sir, sar"),
        (["--window", "0"], "Invalid value for '--window'"),
        (["--hop", "-1"], "Invalid value for '--hop'"),
        (["--fail-under", "sdr=1", "--metrics", "si-sdr"], "--fail-under sdr: add it to"),
    ],
)
def test_wrong_questions_are_usage_errors(arguments, message):
    result = run(*arguments, data=to_tar([sample()]))
    assert result.exit_code == 2
    assert message in result.stderr
