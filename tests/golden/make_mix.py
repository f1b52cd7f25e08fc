"""What `sepcli mix` has made, kept to be compared with what it makes: mix.json.

    $ python -m tests.golden.make_mix        # after a change of what it is meant to make

Of every sample the JSON and some numbers of each signal are kept, which hold on every processor to
many digits. Where nothing but reading, gains and sums is involved, the bytes of all signals are the
same everywhere, and their SHA-256 is kept, too.
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from click.testing import CliRunner

from sepcli.cli import main

FILE = Path(__file__).with_name("mix.json")
SPEECH, NOISE = "--speech speech --noise noise/n.wav", "--speech speech --noise noise"
CASES = {  # options, and whether the bytes are the same on every processor
    "synthetic": ("-n 2 --duration 1", False),
    "seed": ("-n 1 --duration 0.5 --seed 7 --sample-rate 8000 --snr 3 --level -30:-20", False),
    "rooms": ("-n 3 --duration 1 --rir-prob 1 --noise-rir-prob 0.5 --target decayed", False),
    "preset": ("-n 2 --duration 0.5 --preset poconet", False),
    "recordings": (f"{SPEECH} -n 3 --duration 1 --seed 3", True),
    "resampled": (f"{NOISE} -n 2 --duration 1 --mixture-gain -6:6", False),
    "recorded-rooms": (f"{NOISE} --rir rir --target dry -n 2 --duration 0.5", False),
    "speakers": (f"{SPEECH} --enroll --interferers 1 -n 3 --duration 0.5", True),
    "voices": ("--enroll --interferers 1:2 --target-absent 0.5 -n 2 --duration 0.5", False),
    "music": ("--stems songs --augment swap,gain,polarity,remix -n 2 --duration 0.5", True),
    "changed": (
        "--stems songs --targets vocals,accompaniment --augment pitch,stretch,time-mask,freq-mask"
        " -n 2 --duration 0.5",
        False,
    ),
}


def write_recordings(folder):
    """Speech of two speakers, noises at two rates, a room and two songs, as 16-bit noise."""
    rng = np.random.default_rng(0)

    def write(name, frames, rate, channels=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = rng.integers(-9000, 9000, (frames, channels)).astype(np.int16)
        soundfile.write(path, sound, rate)

    for speaker in ("ann", "ben"):
        for k in range(2):
            write(f"speech/{speaker}/{k}.wav", 20000, 16000)
    write("noise/n.wav", 30000, 16000)
    write("noise/o.wav", 40000, 44100, 2)
    for song in ("one", "two"):
        for stem in ("vocals", "drums", "bass", "other"):
            write(f"songs/{song}/{stem}.wav", 40000, 44100, 2)
    rir = np.zeros(2000)
    rir[[100, 700, 1500]] = 0.9, -0.3, 0.2
    (folder / "rir").mkdir()
    soundfile.write(folder / "rir/r.wav", rir, 16000, subtype="FLOAT")


def made(options, exact):
    """What is kept of `sepcli mix` with `options`, run where the recordings are."""
    result = CliRunner().invoke(main, ["mix", *options.split()])
    assert result.exit_code == 0, result.stderr
    samples, audio = {}, hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(result.stdout_bytes)) as tar:
        for member in tar:
            key, _, name = member.name.partition(".")
            content = tar.extractfile(member).read()
            if name == "json":
                samples[key] = {"json": json.loads(content)}
            elif name:
                audio.update(content)
                samples[key][name] = numbers(content)
    return {"samples": samples, "sha256": audio.hexdigest() if exact else None}


def numbers(content):
    """Rate and shape of a WAV, and what each of four patterns has in common with it."""
    signal, rate = soundfile.read(io.BytesIO(content), always_2d=True)
    patterns = np.random.default_rng(1).standard_normal((4, *signal.shape))
    return [rate, *signal.shape, *(float((pattern * signal).sum()) for pattern in patterns)]


def everything():
    """{case: what is made of it}, run in a folder of its own."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        os.chdir(folder)
        try:
            return {name: made(*case) for name, case in CASES.items()}
        finally:
            os.chdir(here)


if __name__ == "__main__":
    FILE.write_text(json.dumps(everything(), indent=1) + "\n")
