"""Long songs: memory and real-time factor of `sepcli separate`, and of Open-Unmix's own code.

Both get the same architecture (one network of 8.9 M parameters with random weights, which cost as
much as trained ones, and the rest of the mixture), one thread, and a Wiener filter of one
iteration, which is what `umx` does. The graph is made first, once, as `--engine onnx` does.
MINUTES=3,120 chooses the lengths; 120 take their time.
openunmix is only run up to 10 minutes, and where it and torchaudio are installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from sepcli.audio import Writer
from sepcli.models import build

RATE = 44100
THEIRS = """
import sys, soundfile, torch
from openunmix import predict
torch.set_num_threads(1)
audio, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
with torch.no_grad():
    audio = torch.from_numpy(audio.T.copy())
    found = predict.separate(audio, rate, sys.argv[2], ["vocals"], niter=1, residual=True)
for name, signal in found.items():
    soundfile.write(f"{sys.argv[3]}/{name}.wav", signal[0].T.numpy(), rate)
"""
MEASURE = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def make_song(path, minutes):
    piece = 0.1 * np.random.default_rng(0).standard_normal((2, 10 * RATE), np.float32)
    with Writer(path, RATE, 2, subtype="PCM_16") as writer:
        for _ in range(6 * minutes):
            writer.write(piece)


def make_model(folder):
    """A folder in Open-Unmix's layout."""
    folder.mkdir()
    state = build("open_unmix").networks["vocals"].state_dict()
    torch.save(state, folder / "vocals.pth")
    about = {"nfft": 4096, "nhop": 1024, "sample_rate": RATE, "nb_channels": 2}
    (folder / "separator.json").write_text(json.dumps(about))
    args = {"nfft": 4096, "nb_channels": 2, "hidden_size": 512}
    (folder / "vocals.json").write_text(json.dumps({"args": args}))


def measure(cache, *command):
    """CPU seconds and MB at the peak of a command in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "SEPCLI_CACHE": str(cache)}
    call = [sys.executable, "-W", "ignore", "-c", MEASURE, sys.executable, "-W", "ignore"]
    done = subprocess.run([*call, *map(str, command)], env=env, check=True, capture_output=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    lengths = [int(each) for each in os.environ.get("MINUTES", "1,3").split(",")]
    installed = all(map(importlib.util.find_spec, ("openunmix", "torchaudio")))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_model(folder / "umx")
        for minutes in lengths:
            song = folder / f"{minutes}.wav"
            make_song(song, minutes)
            common = (
                "--threads",
                1,
                "--subtype",
                "PCM_16",
                "--overwrite",
                song,
                "-o",
                folder / "out",
            )
            ours = ("-m", "sepcli", "separate", "-m", folder / "umx", *common)
            by_torch, filtered = ("--engine", "torch"), ("--wiener", 1)
            ways = {
                "sepcli": ours,
                "sepcli --wiener 1": (*ours, *filtered),
                "by torch": (*ours, *by_torch),
                "by torch --wiener 1": (*ours, *filtered, *by_torch),
            }
            measure(folder, *ours, "--engine", "onnx", "--duration", 1)
            if installed and minutes <= 10:
                ways["openunmix, niter 1"] = ("-c", THEIRS, song, folder / "umx", folder)
            for name, command in ways.items():
                seconds, mb = measure(folder, *command)
                factor = seconds / (60 * minutes)
                print(
                    f"{minutes:4} min  {name:20} {seconds:7.1f} s of CPU, real-time factor "
                    f"{factor:.3f}, peak {mb:5.0f} MB",
                    flush=True,
                )
            song.unlink()
    if not installed:
        print("openunmix is not installed")


if __name__ == "__main__":
    main()
