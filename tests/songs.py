"""Songs of tones and noise, in the layouts of corpora."""

import numpy as np
import soundfile

from sepcli.mixing.music import StemMixer, StemSpec

RATE = 8000
CUT = {"duration_s": 0.5, "sample_rate": RATE}


def tone(hz, seconds=2.0, rate=RATE, channels=2):
    """(T, C); the right channel has half the amplitude."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * hz * t)[:, None] * (1, 0.5)[:channels]


def write_musdb(folder):
    """Three tracks in MUSDB's layout, with noise of their own in every stem; the folder."""
    rng = np.random.default_rng(0)
    for track in ("A - One", "B - Two", "C - Three"):
        (folder / "train" / track).mkdir(parents=True)
        stems = {name: 0.1 * rng.standard_normal((2 * RATE, 2)) for name in "vdbo"}
        stems = dict(zip(("vocals", "drums", "bass", "other"), stems.values(), strict=True))
        for name, signal in (*stems.items(), ("mixture", sum(stems.values()))):
            path = folder / "train" / track / f"{name}.wav"
            soundfile.write(path, signal, RATE, subtype="FLOAT")
    return folder


def write_tones(folder):
    """One song of a 500 Hz voice and a 1000 Hz accompaniment, in folders of stems; the folder."""
    for name, hz in (("vocals", 500), ("accomp", 1000)):
        (folder / name).mkdir()
        soundfile.write(folder / name / "song.wav", tone(hz), RATE, subtype="FLOAT")
    return folder


def draw(folder, index=0, **spec):
    return StemMixer(StemSpec(**{**CUT, "stems": folder, **spec})).draw(0, index)


def peak_hz(signal):
    return np.argmax(np.abs(np.fft.rfft(signal * np.hanning(signal.size)))) * RATE / signal.size
