"""Training with recordings that cannot be read: from the start, and in the middle."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.runs import runlog

RATE = 16000
TINY = """
model: {{name: conv_tasnet, sources: {sources}, filters: 8, kernel: 20, bottleneck: 4, hidden: 4,
        skip: 4, blocks: 1, repeats: 1}}
data:
  train: {{duration_s: 0.1, {data}}}
  valid: {{kind: mixtures, duration_s: 0.1, items: 2}}
train: {{steps: 6, batch: 2, warmup: 1, log_every: 1, validate_every: 3}}
"""
MIXTURES = "kind: mixtures, speech: speech, noise: noise, rir: rir, rir_prob: 0.5"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with ten recordings of each kind, and of songs, and a configuration for them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind, decay in (("speech", 0), ("noise", 0), ("rir", 8)):
        for n in range(10):
            sound = (
                0.1 * rng.standard_normal(RATE // 2) * np.exp(-decay * np.arange(RATE // 2) / RATE)
            )
            write(tmp_path / kind / f"s{n}" / "a.wav", sound)
            write(tmp_path / "songs" / f"{n}" / f"{kind}.wav", sound)
    return tmp_path


def write(path, sound):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE)


def train(*arguments, data=MIXTURES, sources="[speech, noise]"):
    Path("tiny.yaml").write_text(TINY.format(data=data, sources=sources))
    command = ["train", "tiny.yaml", "-o", "run", "--threads", "1", *arguments]
    return CliRunner().invoke(main, command)


def log():
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]


def at_step_3(monkeypatch, act):
    """Do something once, right after step 3 was logged."""
    write = runlog.RunLog.write

    def write_and_act(self, record):
        write(self, record)
        if record["event"] == "train" and record["step"] == 3:
            act()

    monkeypatch.setattr(runlog.RunLog, "write", write_and_act)


def as_text(path):
    path.write_text("no sound")


def as_nothing(path):
    path.write_bytes(b"")


def as_silence_of_no_length(path):
    soundfile.write(path, np.zeros(0), RATE)


KINDS = {
    "speech": MIXTURES,
    "noise": MIXTURES,
    "rir": MIXTURES,
    "speech of speakers": "kind: speakers, speech: speech, noise: noise, interferers: 1",
    "noise of excerpts": "kind: excerpts, speech: speech, noise: noise, excerpt_s: 0.2, "
    "speech_minutes: 0.01, noise_minutes: 0.01",
    "songs": "kind: stems, stems: songs, downmix: true",
}


@pytest.mark.parametrize("damage", [as_text, as_nothing, as_silence_of_no_length])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_that_cannot_be_read_is_found_before_the_first_step(kind, damage):
    bad = Path("songs/7/noise.wav" if kind == "songs" else f"{kind.partition(' ')[0]}/s7/a.wav")
    damage(bad)
    result = train(data=KINDS[kind])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith(f"Error: data.train: {bad}: ")
    assert result.stderr.count("\n") == 1
    assert not Path("run").exists()


def test_all_that_cannot_be_read_are_counted(folder):
    (folder / "list.txt").write_text("".join(f"speech/s{n}/a.wav\n" for n in range(12)))
    result = train(data="kind: mixtures, speech: list.txt")
    assert re.match(
        r"Error: data\.train: .*speech/s10/a\.wav: .* \(2 of 12 recordings cannot be read\)\n$",
        result.stderr,
    )


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_others_take_the_place_of_recordings_that_are_lost_later(monkeypatch, workers):
    """Of nine of ten, wherever they are drawn."""
    lost = [Path(f"speech/s{n}/a.wav") for n in range(9)]
    at_step_3(monkeypatch, lambda: [path.unlink() for path in lost])
    result = train("--set", f"train.workers={workers}")
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if "speech" in line]
    assert warnings
    line = re.compile(r"speech/s\d/a\.wav: .*; other recordings are drawn instead")
    assert all(map(line.fullmatch, warnings))
    assert [r for r in log() if r["event"] == "train"][-1]["unreadable"] == len(warnings)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_without_any_recordings_the_run_is_saved_and_goes_on_later(monkeypatch, workers):
    with monkeypatch.context() as patch:
        at_step_3(patch, lambda: Path("speech").rename("elsewhere"))
        result = train("--set", f"train.workers={workers}")
    assert result.exit_code == 1
    step = 3 if workers == 0 else max(r["step"] for r in log() if r["event"] == "train")
    assert re.search(
        rf"^Error: .*speech.*; saved at step {step}; resume with --resume\n$",
        result.stderr,
        re.MULTILINE,
    )
    assert "Traceback" not in result.stderr
    Path("elsewhere").rename("speech")
    assert train("--resume").exit_code == 0
    assert [r["step"] for r in log() if r["event"] == "train"] == [1, 2, 3, 4, 5, 6]
