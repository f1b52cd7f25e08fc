"""Griffin-Lim beside librosa's and torchaudio's: 60 s at 44.1 kHz, mono, float32, 32 iterations.

CPU time on one thread, in turns, the least of some: other work on the machine hardly matters.
"""

import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch are imported

import librosa
import numpy as np
import torch

from sepcli.dsp.griffin_lim import griffin_lim

WINDOW, HOP, ITERATIONS, RATE, SECONDS, TURNS = 4096, 1024, 32, 44100, 60, 2


def theirs():
    """torchaudio's function, or None where it is missing or of another torch."""
    try:
        from torchaudio.functional import griffinlim
    except (ImportError, OSError, RuntimeError):
        return None
    return griffinlim


def main():
    torch.set_num_threads(1)
    length = SECONDS * RATE
    signal = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    magnitude = np.abs(librosa.stft(signal, n_fft=WINDOW, hop_length=HOP))
    window, target = torch.hann_window(WINDOW), torch.from_numpy(magnitude)
    geometry = {"n_fft": WINDOW, "hop_length": HOP, "n_iter": ITERATIONS, "momentum": 0.99}
    ways = {
        "sepcli": lambda: griffin_lim(target + 0j, window, HOP, length, iterations=ITERATIONS),
        "librosa": lambda: librosa.griffinlim(magnitude, init=None, length=length, **geometry),
    }
    if griffinlim := theirs():
        ways["torchaudio"] = lambda: griffinlim(
            target,
            window=window,
            win_length=WINDOW,
            power=1.0,
            length=length,
            rand_init=False,
            **geometry,
        )
    else:
        print("torchaudio is not installed, or for another torch")
    took = dict.fromkeys(ways, float("inf"))
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            took[name] = min(took[name], time.process_time() - start)
    for name, seconds in took.items():
        print(f"{name:10} {seconds:6.2f} s   {seconds / took['sepcli']:4.1f} times sepcli's")


if __name__ == "__main__":
    main()
