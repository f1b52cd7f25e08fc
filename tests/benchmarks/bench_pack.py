"""CPU time of random 4 s crops to float32: from a pack, from FLAC files, from HDF5 by utterance.

A pack checks each block of 64 KiB when it is first met; how fast crops are then is measured apart.

$ python tests/benchmarks/bench_pack.py
"""

import os
import tempfile
import time

import h5py
import numpy as np
import soundfile

from sepcli.recordings.packing import Packing, find_sources
from sepcli.samples.pack import Pack

FILES, SECONDS, CROP_S = 200, 10, 4  # 0.7 GB in passing
RATES = (16000, 48000)  # Hz


def rates_of(crops, rng, sample_rate):
    """The most crops per core-second of each, in five runs of a quarter of a second, in turns."""
    best, span = dict.fromkeys(crops, 0.0), (SECONDS - CROP_S) * sample_rate
    for crop in 5 * list(crops):
        begin, done = time.process_time(), 0
        while (spent := time.process_time() - begin) < 0.25:
            for _ in range(20):
                index, start = int(rng.integers(FILES)), int(rng.integers(span))
                signal = crop(index, start, start + CROP_S * sample_rate)
                done += 1
        assert signal.shape == (CROP_S * sample_rate,)
        assert signal.dtype == np.float32
        best[crop] = max(best[crop], done / spent)
    return best.values()


def rate_of_first(path, rng, sample_rate):
    """The most crops per core-second, each of another item, that an opened pack reads first."""
    best, span = 0.0, (SECONDS - CROP_S) * sample_rate
    for _ in range(5):
        pack = Pack(path)
        group = pack.groups["speech/voices"]
        begin = time.process_time()
        for index in range(FILES):
            start = int(rng.integers(span))
            pack.read(group, index, start=start, stop=start + CROP_S * sample_rate)
        best = max(best, FILES / (time.process_time() - begin))
    return best


def make(folder, sample_rate):
    """FLAC files of noise whose level goes up and down, the same sound by utterance, and a pack."""
    rng = np.random.default_rng(0)
    level = 0.1 * np.sin(np.arange(SECONDS * sample_rate) / sample_rate) ** 2 + 0.01
    os.mkdir(f"{folder}/voices")
    with h5py.File(f"{folder}/utterances.h5", "w") as file:
        for index in range(FILES):
            signal = (level * rng.standard_normal(level.size)).astype(np.float32)
            soundfile.write(f"{folder}/voices/{index:03d}.flac", signal, sample_rate)
            file[f"voices/{index:03d}"] = signal
    packing = Packing(find_sources("speech", [f"{folder}/voices"]))
    list(packing.run(f"{folder}/pack.h5"))


def main():
    for sample_rate in RATES:
        rng = np.random.default_rng(1)
        with tempfile.TemporaryDirectory() as folder:
            make(folder, sample_rate)
            pack = Pack(f"{folder}/pack.h5")
            group = pack.groups["speech/voices"]

            def from_pack(index, start, stop, pack=pack, group=group):
                return pack.read(group, index, start=start, stop=stop)[0]

            def from_flac(index, start, stop, folder=folder):
                path = f"{folder}/voices/{index:03d}.flac"
                return soundfile.read(path, start=start, stop=stop, dtype="float32")[0]

            with h5py.File(f"{folder}/utterances.h5") as file:

                def from_utterances(index, start, stop, file=file):
                    return file[f"voices/{index:03d}"][start:stop]

                crops = from_pack, from_flac, from_utterances
                ours, flac, utterances = rates_of(crops, rng, sample_rate)
            first = rate_of_first(pack.path, rng, sample_rate)
        print(
            f"{sample_rate} Hz, crops per core-second: pack {ours:.0f} "
            f"({first:.0f} at first), FLAC files {flac:.0f} "
            f"({ours / flac:.0f}x), float32 HDF5 by utterance {utterances:.0f} "
            f"({ours / utterances:.1f}x)"
        )


if __name__ == "__main__":
    main()
