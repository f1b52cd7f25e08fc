"""Hours of audio through `stream`, `separate` and `mix -n 0`: is memory flat, and quality the same?

    python -m tests.torture.soak --hours 24
    python -m tests.torture.soak --items 100000 --files 10000

The audio is made on the fly and goes through pipes, as fast as it is taken: a mixture of 60 s,
whose parts are known, again and again. Prints one line of JSON for each command: the resident
memory in MB and the SI-SDR improvement in dB of its second hour (or second part, where there are
none) and of its last one. --items and --files are for many short things: samples in a pipe from
`mix` through `separate` to `eval`, whose memory is that of a quarter of the time and the most of
all, and a folder of files of several rates and numbers of channels; the model is a small one.
Exits with 1 where memory grew by over 16 MB, quality changed by over 0.1 dB, or something is
missing.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

from sepcli.metrics.sisdr import si_sdr
from sepcli.mixing.mixtures import Mixer, draw_among_good
from sepcli.mixing.specs import MixtureSpec
from sepcli.samples.sample import Sample
from sepcli.samples.tarreading import read_tar

ROOT = Path(__file__).parent.parent.parent
RATE = 16000
PERIOD_S = 60
MODEL = "denoise-tiny"
MOST_GROWTH_MB, MOST_CHANGE_DB = 16.0, 0.1
WAV_HEADER = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0"
    + struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    + b"data\xff\xff\xff\xff"
)  # float32, of unknown length
STREAM = ("stream", "-m", MODEL, "-t", "raw", "--chunk", "1000")
SEPARATE = ("separate", "-m", MODEL, "--target", "speech", "-o", "-", "-", "--threads", "1")
MIX = ("mix", "--snr", "0:10", "-n", "0", "--duration", "10")


def start(*args: str, **pipes: object) -> subprocess.Popen:
    """`sepcli` with these arguments."""
    command = [sys.executable, "-m", "sepcli", *args]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, **pipes)


def resident_mb(process: subprocess.Popen) -> float:
    """What a process and its children have in memory, in MB."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:  # it has just ended
            continue
        if process.pid in (int(told["Pid"]), int(told["PPid"])):
            total += int(told.get("VmRSS", "0 kB").split()[0])
    return total / 1024


def known_mixture() -> tuple[np.ndarray, np.ndarray]:
    """(mixture, speech), (T,) each, of one period."""
    length = (float(PERIOD_S), float(PERIOD_S))
    spec = MixtureSpec(snr_db=(5.0, 5.0), sample_rate=RATE, duration_s=length)
    sample = draw_among_good(Mixer(spec), 0, 0)[0]
    return sample.audio("mix")[0], sample.audio("ref.speech")[0]


class Log:
    """What was measured, one entry for each period."""

    def __init__(self) -> None:
        self.memory_mb: list[float] = []
        self.quality_db: list[float] = []
        self.began = time.monotonic()

    def told(self, name: str, audio_s: float, wrong: str = "") -> dict:
        """A line about the second hour and the last; parts are hours, or less of them."""
        count = len(self.memory_mb)
        part = max(1, min(count // 3, round(3600 * count / audio_s)))
        second, last = slice(part, 2 * part), slice(count - part, count)
        line = {"command": name, "audio_h": round(audio_s / 3600, 3), "model": MODEL}
        for what, values, digits in (
            ("memory_mb", self.memory_mb, 1),
            ("si_sdri_db", self.quality_db, 4),
        ):
            if values:
                line[f"{what}_second"] = round(float(np.mean(values[second])), digits)
                line[f"{what}_last"] = round(float(np.mean(values[last])), digits)
        grown = line["memory_mb_last"] - line["memory_mb_second"]
        changed = abs(line.get("si_sdri_db_last", 0) - line.get("si_sdri_db_second", 0))
        if grown > MOST_GROWTH_MB:
            wrong = wrong or f"grew by {grown:.0f} MB"
        if changed > MOST_CHANGE_DB:
            wrong = wrong or f"changed by {changed:.2f} dB"
        seconds = time.monotonic() - self.began
        return {**line, "seconds": round(seconds, 1), "wrong": wrong}


def through(name: str, args: tuple[str, ...], header: bytes, hours: float) -> dict:
    """Audio through a command that gives as much as it takes."""
    mixture, speech = known_mixture()
    before = si_sdr(mixture[None], speech[None])
    periods = max(3, round(hours * 3600 / PERIOD_S))
    process = start(*args, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    data = mixture.astype("<f4").tobytes()

    def feed():
        try:
            process.stdin.write(header)
            for _ in range(periods):
                process.stdin.write(data)
            process.stdin.close()
        except BrokenPipeError:
            pass

    threading.Thread(target=feed, daemon=True).start()
    log, wrong = Log(), ""
    if header:
        skip_header(process.stdout)
    for _ in range(periods):
        piece = process.stdout.read(len(data))
        if len(piece) != len(data):
            wrong = f"ended after {len(log.memory_mb)} of {periods} periods"
            break
        estimate = np.frombuffer(piece, "<f4")
        log.quality_db.append(float(si_sdr(estimate[None], speech[None])) - float(before))
        log.memory_mb.append(resident_mb(process))
    rest = len(process.stdout.read())
    if code := process.wait():
        wrong = wrong or f"exit code {code}"
    return log.told(name, periods * PERIOD_S, wrong or (f"{rest} bytes too many" if rest else ""))


def skip_header(stream) -> None:
    """Read a WAV header up to its samples."""
    head = stream.read(12)
    assert head[8:] == b"WAVE", head
    while True:
        tag, size = stream.read(4), struct.unpack("<I", stream.read(4))[0]
        if tag == b"data":
            return
        stream.read(size + size % 2)


def mixing(hours: float) -> dict:
    """`mix -n 0`: the last mixture is what it is when it is made alone."""
    count = max(30, round(hours * 360))
    process = start(*MIX, stdout=subprocess.PIPE)
    log, last = Log(), None
    for number, sample in enumerate(read_tar(process.stdout, strict=False), start=1):
        if number % max(1, count // 100) == 0:
            log.memory_mb.append(resident_mb(process))
        if number == count:
            last = sample
            break
    process.stdout.close()
    process.wait()
    spec = MixtureSpec(snr_db=(0.0, 10.0), sample_rate=RATE, duration_s=(10.0, 10.0))
    alone = draw_among_good(Mixer(spec), 0, count - 1)[0]
    same = isinstance(last, Sample) and np.array_equal(last.audio("mix"), alone.audio("mix"))
    return log.told("mix -n 0", count * 10, "" if same else "the last mixture is another one")


def tiny(folder: str) -> str:
    """A model file of few weights: what is tried with many short things is all but the model."""
    from tests.separators import save_tiny

    return save_tiny(Path(folder, "tiny.safetensors"))


def items(count: int) -> dict:
    """So many samples through a pipe of three commands."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        sources = []
        for kind in ("speech", "noise"):
            Path(folder, kind).mkdir()
            sources += [f"--{kind}", f"{folder}/{kind}"]
            for number in range(8):
                sound = 0.1 * rng.standard_normal(RATE)
                soundfile.write(Path(folder, kind, f"{number}.wav"), sound, RATE)
        return _items(count, sources, tiny(folder))


def _items(count, sources, model):
    short = ("--snr", "0:10", "-n", str(count), "--duration", "0.1")
    mix = start("mix", *sources, *short, stdout=subprocess.PIPE)
    to_speech = ("separate", "-m", model, "--target", "speech", "-")
    separate = start(*to_speech, stdin=mix.stdout, stdout=subprocess.PIPE)
    metrics = ("--metrics", "si-sdr", "--json")
    evaluate = start("eval", "-", *metrics, stdin=separate.stdout, stdout=subprocess.PIPE)
    mix.stdout.close()
    separate.stdout.close()
    began, memory = time.monotonic(), {"mix": [], "separate": [], "eval": []}

    def watch():
        while evaluate.poll() is None:
            for each, seen in zip((mix, separate, evaluate), memory.values(), strict=True):
                if each.poll() is None:
                    seen.append(round(resident_mb(each)))
            time.sleep(2)

    threading.Thread(target=watch, daemon=True).start()
    report = json.loads(evaluate.stdout.read() or b"{}")
    codes = [each.wait() for each in (mix, separate, evaluate)]
    done = len({item["key"] for item in report.get("items", ())})
    wrong = "" if codes == [0, 0, 0] and done == count else f"{done} items, exit codes {codes}"
    line = {"command": "mix | separate | eval", "items": done}
    line["peak_mb"] = {name: max(seen) for name, seen in memory.items() if seen}
    if min(map(len, memory.values())) > 120:  # minutes: all have long begun after a quarter
        quarter = {name: seen[len(seen) // 4] for name, seen in memory.items()}
        line["quarter_mb"] = quarter
        grown = {name: line["peak_mb"][name] - quarter[name] for name in ("mix", "separate")}
        if max(grown.values()) > MOST_GROWTH_MB:  # `eval` keeps the scores of every item
            wrong = wrong or f"grew by {grown} MB"
    return {**line, "seconds": round(time.monotonic() - began, 1), "wrong": wrong}


LAYOUTS = ((16000, 1), (44100, 2), (8000, 1), (48000, 3))


def files(count: int) -> dict:
    """A folder of so many files of several rates and numbers of channels."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        rng = np.random.default_rng(0)
        for number in range(count):
            rate, channels = LAYOUTS[number % len(LAYOUTS)]
            noise = 0.1 * rng.standard_normal((rate // 10, channels))
            soundfile.write(inputs / f"{number:06d}.wav", noise, rate)
        args = (
            "-m",
            tiny(folder),
            "--target",
            "speech",
            "-o",
            str(outputs),
            "--threads",
            "1",
            "-q",
        )
        process = start("separate", str(inputs), *args, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        found = sorted(outputs.rglob("*.wav"))
        wrong = "" if status == 0 and len(found) == count else f"{len(found)} files, {status}"
        for number, path in enumerate(found):
            about = soundfile.info(path)
            rate, channels = LAYOUTS[number % len(LAYOUTS)]
            if (about.samplerate, about.channels, about.frames) != (rate, channels, rate // 10):
                wrong = wrong or f"{path}: {about}"
    line = {"command": "separate DIR", "files": len(found), "peak_mb": usage.ru_maxrss // 1024}
    return {**line, "seconds": round(time.monotonic() - began, 1), "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description="Hours of audio, and many short things.")
    parser.add_argument("--hours", type=float, help="of audio, through each command")
    parser.add_argument("--only", choices=["stream", "separate", "mix"], action="append")
    parser.add_argument("--items", type=int, help="samples in a pipe")
    parser.add_argument("--files", type=int, help="files in a folder")
    args = parser.parse_args()
    jobs = {}
    if args.hours:
        jobs = {
            "stream": lambda: through("stream", STREAM, b"", args.hours),
            "separate": lambda: through("separate", SEPARATE, WAV_HEADER, args.hours),
            "mix": lambda: mixing(args.hours),
        }
        jobs = {name: job for name, job in jobs.items() if name in (args.only or jobs)}
    if args.items:
        jobs["items"] = lambda: items(args.items)
    if args.files:
        jobs["files"] = lambda: files(args.files)
    wrong = False
    for job in jobs.values():
        line = job()
        print(json.dumps(line), flush=True)
        wrong |= bool(line["wrong"])
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
