"""Which estimates `sepcli eval` scores with which references, and what it does with odd ones."""

import json

import numpy as np
import pytest

from sepcli import audio
from sepcli.samples.streams import Sample
from sepcli.scoring.targets import find_targets
from tests.samples import to_tar
from tests.scores import run
from tests.scores import scores as report

RATE = 4000
STEMS = ("vocals", "drums", "bass", "other")


def write(path, signal, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, signal.astype(np.float32), rate, subtype="FLOAT")


def stem(number, samples=3 * RATE):
    """A stem and its estimate, float32 (1, T)."""
    rng = np.random.default_rng(number)
    truth = 0.1 * rng.standard_normal((1, samples)).astype(np.float32)
    return truth, truth + 0.03 * rng.standard_normal((1, samples)).astype(np.float32)


@pytest.fixture
def song(tmp_path):
    """ref/song/STEM.wav and est/song/STEM.wav."""
    for number, name in enumerate(STEMS):
        for role, signal in zip(("ref", "est"), stem(number), strict=True):
            write(tmp_path / role / "song" / f"{name}.wav", signal)
    return tmp_path


def items(result):
    return {item["target"]: item for item in json.loads(result.stdout)["items"]}


# --- one odd stem


@pytest.mark.parametrize("odd", STEMS)
@pytest.mark.parametrize(
    ("signal", "rate", "message"),
    [
        (stem(9)[0][:, :-5], RATE, "est.{0} has 11995 samples but ref.{0} has 12000; nothing is"),
        (np.repeat(stem(9)[0], 2, 0), RATE, "est.{0} has 2 channels but ref.{0} has 1; nothing is"),
        (stem(9)[0], 8000, "est/song/{0}.wav is 8000 Hz but its sample is 4000 Hz; resample it"),
        (None, RATE, "est/song/{0}.wav: "),
    ],
    ids=["length", "channels", "rate", "broken"],
)
def test_an_odd_estimate_takes_no_score_of_the_others(song, odd, signal, rate, message):
    path = song / "est" / "song" / f"{odd}.wav"
    if signal is None:
        path.write_bytes(b"RIFFnonsense")
    else:
        write(path, signal, rate)
    places = [song / "est", song / "ref", "--metrics", "sdr,sir,si-sdr", "--json"]
    result = run(*places)
    assert result.exit_code == 1
    [failed] = json.loads(result.stdout)["failed"]
    assert failed["target"] == odd
    assert message.format(odd) in failed["error"]
    found = items(result)
    assert set(found) == set(STEMS) - {odd}
    path.unlink()
    (song / "ref" / "song" / f"{odd}.wav").unlink()
    for target, item in items(run(*places)).items():
        for name in ("sdr_db", "sir_db", "si_sdr_db"):
            assert item[name] == found[target][name]


@pytest.mark.parametrize("odd", STEMS)
@pytest.mark.parametrize("both", [False, True])
def test_an_odd_reference_takes_no_score_of_the_others(song, odd, both):
    for role in ("ref", "est") if both else ("ref",):
        write(song / role / "song" / f"{odd}.wav", stem(9)[0][:, ::2], 2000)
    result = run(song / "est", song / "ref", "--metrics", "sdr", "--json")
    assert result.exit_code == 1
    assert set(items(result)) == set(STEMS) - {odd}
    assert "2000 Hz but its sample is 4000 Hz" in result.stderr
    notes = json.loads(result.stdout)["summary"][STEMS[odd == "vocals"]]["sdr_db"]["notes"]
    assert notes == {f"scored without {odd}": 1}


def test_a_target_whose_signals_agree_but_with_no_others_is_the_odd_one(song):
    for role in ("ref", "est"):
        write(song / role / "song" / "vocals.wav", stem(9)[0][:, :-5])
    result = run(song / "est", song / "ref", "--metrics", "sdr", "--json")
    assert set(items(result)) == set(STEMS) - {"vocals"}
    assert "ref.vocals has 11995 samples but ref.bass has 12000" in result.stderr


def test_lengths_differ_by_choice(song, museval_metrics):
    """Zeros are appended to what is shorter, an estimate or a reference."""
    cuts = {("est", "vocals"): 100, ("ref", "bass"): 300}
    signals = {"ref": [], "est": []}
    for number, name in enumerate(STEMS):
        for role, signal in zip(("ref", "est"), stem(number), strict=True):
            kept = signal.copy()
            if cut := cuts.get((role, name)):
                kept[:, -cut:] = 0
                write(song / role / "song" / f"{name}.wav", signal[:, :-cut])
            signals[role].append(kept.T.astype(float))
    options = (song / "est", song / "ref", "--metrics", "sdr,isr,sir,sar,snr")
    assert run(*options).exit_code == 1
    found = {item["target"]: item for item in report(*options, "--pad")["items"]}
    expected = museval_metrics.bss_eval(signals["ref"], signals["est"], window=RATE, hop=RATE)
    for number, name in enumerate(STEMS):
        for metric, scores in zip(("sdr", "isr", "sir", "sar"), expected, strict=False):
            assert found[name][f"{metric}_db"] == pytest.approx(np.median(scores[number]), abs=1e-5)
        truth, noise = signals["ref"][number], signals["est"][number] - signals["ref"][number]
        snr = 10 * np.log10(np.sum(truth**2) / np.sum(noise**2))
        assert found[name]["snr_db"] == pytest.approx(snr, abs=1e-5)
    page = song / "report.html"
    assert run(*options, "--pad", "--html", page).exit_code == 0
    assert page.read_text().count("<figure>") == 8


# --- names


@pytest.mark.parametrize(
    "name", ["accompaniment", "no_vocals", "instrumental", "accomp", "residual"]
)
@pytest.mark.parametrize("truth", ["parts", "accompaniment", "instrumental"])
def test_the_accompaniment_has_several_names(tmp_path, museval_metrics, name, truth):
    vocals, voice = stem(0)
    parts = [stem(number)[0] for number in (1, 2, 3)]
    rest = sum(parts)
    guess = rest + 0.02 * stem(4)[0]
    for role, signals in (("est", {"vocals": voice, name: guess}), ("ref", {"vocals": vocals})):
        for each, signal in signals.items():
            write(tmp_path / role / "song" / f"{each}.wav", signal)
    if truth == "parts":
        for each, part in zip(STEMS[1:], parts, strict=True):
            write(tmp_path / "ref" / "song" / f"{each}.wav", part)
    else:
        write(tmp_path / "ref" / "song" / f"{truth}.wav", rest)
    found = report("--median-of-median", tmp_path / "est", tmp_path / "ref")["items"]
    assert sorted(item["target"] for item in found) == ["accompaniment", "vocals"]
    references, estimates = ([x.T.astype(float) for x in pair] for pair in
                             ((vocals, rest), (voice, guess)))  # fmt: skip
    expected = museval_metrics.bss_eval(references, estimates, window=RATE, hop=RATE)
    for item in found:
        index = ("vocals", "accompaniment").index(item["target"])
        for metric, scores in zip(("sdr", "isr", "sir", "sar"), expected, strict=False):
            assert item[f"{metric}_db"] == pytest.approx(np.median(scores[index]), abs=1e-4)


def targets(*names):
    """The targets of a sample with signals of these names: {target: (estimate, references…)}."""
    sample = Sample("a", members={f"{name}.wav": b"" for name in names})
    return {each.name: (each.estimate, *each.reference) for each in find_targets(sample)}


FOUR = [f"ref.{name}" for name in STEMS]


def test_a_residual_is_the_accompaniment_only_of_vocals():
    rest = {"accompaniment": ("est.residual", "ref.bass", "ref.drums", "ref.other")}
    assert targets("est.residual", *FOUR) == rest
    assert targets("est.residual", "est.vocals", *FOUR).keys() == {"accompaniment", "vocals"}
    assert targets("est.residual", "est.drums", *FOUR).keys() == {"drums"}
    assert targets("est.residual", "ref.residual", *FOUR) == {
        "residual": ("est.residual", "ref.residual")
    }
    assert targets("est.speech", "est.residual", "ref.speech").keys() == {"speech"}


def test_what_is_called_accompaniment_goes_before_what_counts_as_one():
    both = ("est.no_vocals", "est.accompaniment")
    assert targets(*both, *FOUR)["accompaniment"][0] == "est.accompaniment"
    assert targets(*both, *FOUR, "ref.instrumental") == {
        "accompaniment": ("est.accompaniment", "ref.instrumental")
    }


def test_an_accompaniment_is_not_made_of_some_of_its_parts():
    assert targets("est.accompaniment", "ref.drums", "ref.bass") == {}
    assert targets("est.accompaniment", "ref.vocals", "ref.piano") == {
        "accompaniment": ("est.accompaniment", "ref.piano")
    }


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("folder", ["song", ""])
def test_stems_of_any_names_are_scored_together(tmp_path, museval_metrics, mixture, folder):
    names = ("vocals", "guitar", "sitar")
    signals = [stem(number) for number in range(3)]
    for name, (truth, estimate) in zip(names, signals, strict=True):
        write(tmp_path / "ref" / folder / f"{name}.wav", truth)
        write(tmp_path / "est" / folder / f"{name}.wav", estimate + 0.2 * signals[0][0])
    if mixture:
        write(tmp_path / "ref" / folder / "mixture.wav", sum(truth for truth, _ in signals))
    found = report(tmp_path / "est", tmp_path / "ref", "--metrics", "sir")["items"]
    references = [truth.T.astype(float) for truth, _ in signals]
    estimates = [(estimate + 0.2 * signals[0][0]).T.astype(float) for _, estimate in signals]
    sir = museval_metrics.bss_eval(references, estimates, window=RATE, hop=RATE)[2]
    assert len({item["key"] for item in found}) == 1
    for item in found:
        wanted = np.median(sir[names.index(item["target"])])
        assert item["sir_db"] == pytest.approx(wanted, abs=1e-4)
    usual = report(tmp_path / "est", tmp_path / "ref")["summary"]
    music = {"sdr_db", "si_sdr_db"} | ({"si_sdri_db"} if mixture else set())
    assert {target: set(scores) for target, scores in usual.items()} == dict.fromkeys(names, music)


def test_files_without_names_of_stems_are_samples_of_their_own(tmp_path):
    for role in ("est", "ref"):
        for name in ("a", "b"):
            write(tmp_path / role / "speaker" / f"{name}.wav", stem(3)[role == "est"])
    found = report(tmp_path / "est", tmp_path / "ref", "--metrics", "snr")["items"]
    assert [(item["key"], item["target"]) for item in found] == [
        ("speaker/a", "audio"), ("speaker/b", "audio"),
    ]  # fmt: skip


# --- alone


@pytest.mark.parametrize("form", ["--json", "--markdown", "--csv"])
def test_a_target_alone_is_scored_with_a_warning(form):
    alone = Sample("a", {"sample_rate": RATE})
    alone.set_audio("ref.vocals", stem(0)[0], RATE)
    alone.set_audio("est.vocals", stem(0)[1], RATE)
    result = run("--median-of-median", form, data=to_tar([alone]))
    assert result.exit_code == 0
    if form == "--json":
        summary = json.loads(result.stdout)["summary"]["vocals"]
        warning = {"scored alone: interference cannot be distinguished from artifacts": 1}
        assert summary["isr_db"]["notes"] == summary["sar_db"]["notes"] == warning
        assert summary["sdr_db"]["notes"] == {}
        assert summary["sir_db"]["undefined"] == {"no other source that can interfere": 1}
    if form == "--markdown":
        assert "\nsar of vocals: scored alone: interference cannot be" in result.stdout
