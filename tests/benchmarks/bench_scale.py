"""What an hour of audio costs one core, and from that what a million hours cost.

CPU time of this process with one thread, reading and writing included, the loading of models not;
the least of three runs on a synthetic recording, which other processes disturb least. Storage is
that of the files that are read and written. The price of a core-hour and of a terabyte-month are
options, as they are anybody's.

$ python tests/benchmarks/bench_scale.py [--hours 1e6] [--core-hour 0.04] [--tb-month 20]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import sepcli
from sepcli.jobs.extract import Extracting
from sepcli.jobs.outputs import Form, Models
from sepcli.jobs.work import Task, Work
from sepcli.mixing.mixtures import Mixer, draw_sample
from sepcli.mixing.specs import MixtureSpec
from sepcli.recordings.encoding import Recording, encode_input
from sepcli.scoring.evaluate import score_sample

SECONDS, RUNS = 30, 3
SAMPLE_S = 4  # of mix and eval


def recording(folder, rate, channels):
    """A recording of speech-like sound and noise."""
    mixer = Mixer(MixtureSpec(duration_s=(SECONDS, SECONDS), sample_rate=16000))
    mix = mixer.draw(0, channels).mix
    sound = np.tile(np.resize(mix, (1, SECONDS * rate)), (channels, 1))
    path = Path(folder, f"{rate}-{channels}.wav")
    sepcli.write(path, sound, rate, subtype="PCM_16")
    return path


def least(act):
    """CPU seconds of the fastest of some runs, after one that loads what is needed."""
    act()
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return min(times)


def separation(path, model, target, extension):
    """Separating a recording, as `sepcli separate` does."""
    form = Form(None, extension, "PCM_16")
    work = Work(Models((model,), threads=1), targets=(target,), form=form)
    outputs = {target: path.with_name(f"{model}.{extension}")}
    return lambda: checked(work.perform(Task("x", "x", sound=path, outputs=outputs)))


def extraction(path):
    work = Extracting(Models(("extract",), threads=1), references=[str(path)])
    outputs = {"speech": path.with_name("extract.wav")}
    return lambda: checked(work.perform(Task("x", "x", sound=path, outputs=outputs)))


def checked(result):
    assert not result.failed, result.record


def evaluation(mixer):
    sample = draw_sample(mixer, 0, 0)
    sample.set_audio("est.speech", 0.9 * sample.audio("mix"))
    return lambda: score_sample(sample, ["si-sdr", "pesq", "stoi"])


def costs(folder):
    """{what: CPU seconds per hour of audio}."""
    torch.set_num_threads(1)
    voice, song = recording(folder, 16000, 1), recording(folder, 44100, 2)
    mixer = Mixer(MixtureSpec(duration_s=(SAMPLE_S, SAMPLE_S)))
    packed = Recording("speech/x", str(voice), "x", "", "int16", 16000, False)
    acts = {
        "separate -m denoise": (separation(voice, "denoise", "speech", "flac"), SECONDS),
        "separate -m denoise-tiny": (separation(voice, "denoise-tiny", "speech", "flac"), SECONDS),
        "separate -m vocals (stereo, 44.1 kHz)": (
            separation(song, "vocals", "vocals", "flac"),
            SECONDS,
        ),
        "extract": (extraction(voice), SECONDS),
        "mix (synthetic)": (lambda: draw_sample(mixer, 0, 1), SAMPLE_S),
        "pack": (lambda: encode_input(packed), SECONDS),
        "eval --metrics si-sdr,pesq,stoi": (evaluation(mixer), SAMPLE_S),
    }
    return {name: least(act) * 3600 / seconds for name, (act, seconds) in acts.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=1e6)
    parser.add_argument("--core-hour", type=float, default=0.04)
    parser.add_argument("--tb-month", type=float, default=20.0)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        found = costs(folder)
        sizes = {p.name: p.stat().st_size for p in Path(folder).iterdir()}
    print(f"{'':38} {'core-s per h':>12} {'x real time':>12} {'core-hours':>11} {'price':>9}")
    for name, seconds in found.items():
        hours = seconds * args.hours / 3600
        print(
            f"{name:38} {seconds:12.2f} {3600 / seconds:12.0f} {hours:11.0f} "
            f"{hours * args.core_hour:9.0f}"
        )
    for name in ("16000-1.wav", "denoise.flac", "extract.wav", "44100-2.wav"):
        terabytes = sizes[name] * 3600 / SECONDS * args.hours / 1e12
        print(f"{name:38} {terabytes:12.1f} TB, {terabytes * args.tb_month:9.0f} per month")


if __name__ == "__main__":
    main()
