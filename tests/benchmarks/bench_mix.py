"""How fast `mix` makes items, and how much memory a long stream of them takes.

First: CPU time per item of 5 s at 16 kHz, of `Mixer.draw` and of the plain recipe: soundfile reads
into float64 and `scipy.signal.convolve`. Both make the same items: `Mixer.draw` decides
everything, and the plain recipe repeats what its record says (same files, stretches, rooms, SNR),
without having to draw anything. Speech and noise are each convolved with a 1 s RIR half of the
time; both keep the RIRs in memory; all files are 16-bit WAV made on the spot. Every item is let go
before the next one, as when items are written. A third line is the plain recipe with what glibc's
allocator does not do by itself, and a script would not know of: to keep the memory for the next
item, as `Mixer` has it. Then the same with targets of partial dereverberation, for which the
speech is convolved with two RIRs.

Second: CPU time of `sepcli mix` from start to end with rooms convolved in other ways: by scipy's
`oaconvolve`, and by `scipy.fft` in the blocks that `dsp.room` has. `dsp/wrapped.py` is worth its
lines as long as the first ratio is 1.3 or more.

Third: the peak memory of `sepcli mix` while 10,000 items go through a pipe.

    $ python tests/benchmarks/bench_mix.py
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

RATE = 16000
WARM_UP = 200  # items before time is taken
TURN = 50  # items at a time, so that all see the same machine, and their own caches
read_rir = lru_cache(lambda path: soundfile.read(path)[0])


def write_recordings(folder):
    """50 files each of speech (12 s), noise (30 s) and RIRs (1 s)."""
    from sepcli import audio
    from sepcli.dsp import room
    from sepcli.mixing import synthetic

    for k in range(50):
        rng = np.random.default_rng([1, k])
        rir = room.synthetic_rir(0.85, RATE, rng)[:RATE]
        sounds = {
            "speech": synthetic.speech(12 * RATE, RATE, rng, k),
            "noise": synthetic.noise(30 * RATE, RATE, rng, "pink"),
            "rir": np.pad(0.9 * rir, (0, RATE - rir.size)),
        }
        for name, sound in sounds.items():
            (folder / name).mkdir(exist_ok=True)
            audio.write(folder / name / f"{k}.wav", sound[None], RATE, subtype="PCM_16")


def plain_source(record, samples, decayed=False):
    """The reads, the RMS floor and the room of one source, as most scripts do it.

    Returns it as it is heard, and through the shortened room when `decayed`, else the same.
    """
    parts = []
    for piece in record["files"]:
        part, _ = soundfile.read(piece["path"], start=piece["start"], stop=piece["stop"])
        assert 10 * np.log10(np.mean(part**2)) > -38
        parts.append(part)
    signal = np.concatenate(parts)[:samples]
    if not record["rir"]:
        return signal, signal
    rir = read_rir(record["rir"]["path"])
    tap = np.argmax(np.abs(rir))
    rir = rir / rir[tap]
    heard = scipy.signal.convolve(signal, rir)[tap : tap + samples]
    if not decayed:
        return heard, heard
    late = np.maximum(0, np.arange(rir.size) - tap - 0.02 * RATE) / RATE  # s after the early part
    short = scipy.signal.convolve(signal, rir * 10 ** (-3 * late / 0.3))[tap : tap + samples]
    return heard, short


def plain_recipe(record, samples):
    """(mix, target, noise) in float64, from the record of an item."""
    decayed = record["target"] == "decayed"
    speech, target = plain_source(record["sources"]["speech"], samples, decayed)
    noise, _ = plain_source(record["sources"]["noise"], samples)
    gain = 10 ** (record["level_db"] / 20) / np.sqrt(np.mean(speech**2))
    speech, target = gain * speech, gain * target
    ratio = np.mean(speech**2) / np.mean(noise**2) / 10 ** (record["snr_db"] / 10)
    noise = noise * np.sqrt(ratio)
    mix = speech + noise
    scale = min(1, 0.99 / max(np.abs(mix).max(), np.abs(speech).max(), np.abs(noise).max()))
    return scale * mix, scale * target, scale * noise


def serve_plain(connection, keep_memory):
    """Make the items whose (record, samples) arrive; answer with (CPU seconds, the last item)."""
    if keep_memory:
        np.empty(31 << 20, np.uint8)  # see `sepcli.mixing.mixtures`
    while requests := connection.recv():
        start = time.process_time()
        for request in requests:
            item = plain_recipe(*request)
        connection.send((time.process_time() - start, item))


class Plain:
    """The plain recipe in a process of its own, as a script would have."""

    def __init__(self, *, keep_memory):
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve_plain, args=(theirs, keep_memory))
        self.process.start()

    def make(self, requests):
        """(CPU seconds, the last item) of those whose (record, samples) are given."""
        self.connection.send(requests)
        return self.connection.recv()

    def stop(self):
        self.connection.send(None)
        self.process.join()


def draw(mixer, indices):
    """(CPU seconds, the last item, (record, samples) of all)."""
    requests, start = [], time.process_time()
    for index in indices:
        item = mixer.draw(0, index)
        requests.append((item.record, item.mix.shape[1]))
    return time.process_time() - start, item, requests


def compare(items, target):
    """Print items per second of CPU time, and the ratios of turns: median and quartiles."""
    from sepcli.mixing.mixtures import Mixer, MixtureSpec

    plains = {
        "plain recipe": Plain(keep_memory=False),
        "memory kept": Plain(keep_memory=True),
    }
    seconds = {name: [] for name in ("Mixer.draw", *plains)}  # of each turn
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_recordings(folder)
        sources = {name: folder / name for name in ("speech", "noise", "rir")}
        spec = MixtureSpec(**sources, noise_rir_prob=0.5, duration_s=5.0, target=target)
        mixer = Mixer(spec)
        for first in range(0, WARM_UP + items, TURN):
            taken, item, requests = draw(mixer, range(first, first + TURN))
            seconds["Mixer.draw"].append(taken)
            for name, plain in plains.items():
                taken, (mix, speech, _) = plain.make(requests)
                seconds[name].append(taken)
                np.testing.assert_allclose(item.mix[0], mix, atol=1e-5)
                np.testing.assert_allclose(item.refs["speech"][0], speech, atol=1e-5)
    for plain in plains.values():
        plain.stop()
    print(f"--target {target}")
    turns = {name: np.array(taken[WARM_UP // TURN :]) for name, taken in seconds.items()}
    for name, taken in turns.items():
        ms = 1000 * taken.sum() / (taken.size * TURN)
        low, ratio, high = np.percentile(taken / turns["Mixer.draw"], (25, 50, 75))
        speed = f"{1000 / ms:5.0f} items/core-second  {ms:5.2f} ms"
        print(f"{name:<13}{speed}  x {ratio:.2f} ({low:.2f} to {high:.2f})")


BY_OACONVOLVE = """
from scipy.signal import oaconvolve

class Response:
    def __init__(self, rirs, samples, *, start=0, full=False):
        self.rirs, self.start = rirs, start
        self.length = samples + rirs.shape[-1] - 1 if full else samples

    def __call__(self, signal):
        shape = np.broadcast_shapes(signal.shape[:-1], self.rirs.shape[:-1])
        both = (np.broadcast_to(x, (*shape, x.shape[-1])) for x in (signal, self.rirs))
        return oaconvolve(*both, axes=-1)[..., self.start : self.start + self.length]
"""
BY_FFT = """
class Response(room.Response):
    def __init__(self, rirs, samples, *, start=0, full=False):
        super().__init__(rirs, samples, start=start, full=full)
        self.n = fft.next_fast_len(-(-self.length // self.blocks) + self.taps - 1, real=True)
        self.step = self.n - self.taps + 1
        self.spectra = fft.rfft(rirs, self.n)[..., None, :]

    def __call__(self, signal):
        wet = fft.irfft(fft.rfft(self._blocks(signal)) * self.spectra, self.n)
        wet = wet[..., self.taps - 1 :]
        return wet.reshape(*wet.shape[:-2], -1)[..., : self.length]
"""
RUN = """
import resource, sys
import numpy as np
from scipy import fft
from sepcli.cli import main
from sepcli.dsp import room
{way}
try:
    main(sys.argv[1:], standalone_mode=False)
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""


def convolutions(items, pairs=5):
    """Print CPU seconds of `sepcli mix` with rooms, by other convolutions re by its own."""
    ways = {"as it is": "", "oaconvolve": BY_OACONVOLVE, "scipy.fft": BY_FFT}
    seconds = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        sources = [f"--{name}={folder}/{name}" for name in ("speech", "noise", "rir")]
        command = ["mix", *sources, "--noise-rir-prob=0.5", "--duration=5", f"--count={items}"]
        for _ in range(pairs):
            for name, way in ways.items():
                code = RUN.format(way=way and f"{way}\nroom.Response = Response")
                done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True)
                seconds[name].append(float(done.stderr.split()[-1]))
    print(f"sepcli mix, {items} items of 5 s, half of speech and noise in rooms, with start-up")
    own = np.array(seconds["as it is"])
    for name, taken in seconds.items():
        ratio = np.median(np.array(taken) / own)
        print(f"{name:<13}{np.median(taken):7.2f} s of CPU  x {ratio:.2f}")


def stream(items):
    """Print the peak memory of `sepcli mix` while its items run through a pipe.

    On Linux ru_maxrss is never less than what the parent had taken, VmHWM is the process's own.
    """
    command = f"mix --count {items} --duration 1"
    code = (
        "import resource, sys; from sepcli.cli import main\n"
        "try: main(sys.argv[1:], standalone_mode=False)\n"
        "finally:\n"
        "    if sys.platform == 'linux':\n"
        "        peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
        "    else:\n"
        "        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "    print(int(peak) // 1024, file=sys.stderr)"
    )
    mix = subprocess.Popen(
        [sys.executable, "-c", code, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    size = sum(len(piece) for piece in iter(lambda: mix.stdout.read(1 << 16), b""))
    peak = mix.stderr.read().decode().strip()
    print(f"{command}: {size / 1e6:.0f} MB through the pipe, peak memory {peak} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=300, help="items whose time is taken")
    parser.add_argument("--stream", type=int, default=10_000, help="items through the pipe")
    args = parser.parse_args()
    for target in ("reverb", "decayed"):
        compare(args.items, target)
    convolutions(args.items)
    if args.stream:
        stream(args.stream)
