"""CPU time of training items of 6 s of music: kept spectrograms beside sound and its transform.

Both give what Open-Unmix trains on, magnitudes of the mixture and of the vocals, of stems of
different songs with gains and swapped channels; the sound is in 16-bit WAV and in FLAC files.

$ python tests/benchmarks/bench_spectra.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from scipy import fft

from sepcli.data.spectra import SpectraMixer, SpectraSpec
from sepcli.mixing.music import StemMixer, StemSpec

RATE, SECONDS, SONGS, ITEMS, TURNS = 44100, 30, 4, 10, 5
WINDOW, HOP = 4096, 1024
HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
SETTINGS = {"augment": "swap,gain,remix", "duration_s": 6, "sample_rate": RATE}


def write_songs(folder, extension):
    """Four stems of stereo noise whose level goes up and down, for each song."""
    rng = np.random.default_rng(0)
    level = 0.1 * np.sin(np.arange(SECONDS * RATE) / RATE)[:, None] ** 2 + 0.01
    for song in range(SONGS):
        (folder / str(song)).mkdir(parents=True)
        for stem in ("vocals", "drums", "bass", "other"):
            noise = level * rng.standard_normal((len(level), 2))
            soundfile.write(folder / str(song) / f"{stem}.{extension}", noise, RATE)


def magnitudes_of_sound(mixer, index):
    item = mixer.draw(0, index)
    for signal in (item.mix, item.refs["vocals"]):
        padded = np.pad(signal, ((0, 0), (WINDOW // 2, WINDOW // 2)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, 1)[:, ::HOP]
        assert np.abs(fft.rfft(frames * HANN)).shape == (2, 259, 2049)


def magnitudes_kept(mixer, index):
    item = mixer.draw(0, index)
    for spectrum in (item.mix, item.refs["vocals"]):
        assert np.abs(spectrum).shape == (2, 2049, 259)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ways = {}
        for extension in ("wav", "flac"):
            write_songs(folder / extension, extension)
        for targets in ((), ("vocals", "accompaniment")):
            stems = "vocals and accompaniment" if targets else "four stems"
            for source in ("wav", "flac"):
                sound = StemSpec(stems=folder / source, targets=targets, **SETTINGS)
                ways[stems, f"sound in {source}"] = magnitudes_of_sound, StemMixer(sound)
            kept = SpectraSpec(
                stems=folder / "wav", folder=folder / "kept", targets=targets, **SETTINGS
            )
            ways[stems, "kept"] = magnitudes_kept, SpectraMixer(kept)
        best = dict.fromkeys(ways, np.inf)
        for turn in range(TURNS + 1):  # the first makes the files, and is not counted
            for way, (function, mixer) in ways.items():
                started = time.process_time()
                for index in range(ITEMS):
                    function(mixer, index)
                if turn:
                    best[way] = min(best[way], (time.process_time() - started) / ITEMS)
        for (stems, way), seconds in best.items():
            ratio = seconds / best[stems, "kept"]
            print(f"{stems}, {way}: {1000 * seconds:.1f} ms an item, {ratio:.1f} times kept")


if __name__ == "__main__":
    main()
