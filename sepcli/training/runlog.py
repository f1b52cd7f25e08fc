"""The log of a training run: metrics.jsonl, and the same with examples to hear and to see for
TensorBoard."""

import json
import math

import torch
from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
FFT, HOP, RANGE_DB = 512, 256, 80.0  # of pictures


class RunLog:
    """The open logs of a run that goes on after step `step`; a context manager."""

    def __init__(self, folder, sample_rate, step):
        self.folder, self.sample_rate, self.step = folder, sample_rate, step
        self.heard = False  # mixtures and references do not change: once is enough

    def __enter__(self):
        self.metrics = open(self.folder / METRICS, "a", encoding="utf-8")
        # What an earlier process wrote after its last checkpoint is about to be written again.
        self.board = SummaryWriter(self.folder, purge_step=self.step + 1 if self.step else None)
        return self

    def __exit__(self, *_error):
        self.metrics.close()
        self.board.close()

    def write(self, record):
        """Write a "train" or "valid" record; the other ones are for progress bars."""
        if record["event"] not in ("train", "valid"):
            return
        values = plain(record)
        self.metrics.write(json.dumps(values) + "\n")
        self.metrics.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self.board.add_scalar(f"{record['event']}/{name}", value, record["step"])
        if record.get("best"):
            self._write_audio(record)
        self.board.flush()

    def _write_audio(self, record):
        for name, audio in record["audio"].items():
            if "/est." in name or not self.heard:
                mono = audio.mean(0).clamp(-1, 1)  # (T,)
                self.board.add_audio(name, mono, record["step"], sample_rate=self.sample_rate)
                self.board.add_image(name, spectrogram(mono), record["step"])
        self.heard = True


def spectrogram(x):
    """A picture (1, F, N) of a signal (T,): from -80 dB (0) to a sine of full scale (1)."""
    window = torch.hann_window(FFT)
    spectrum = torch.stft(x, FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    level_db = 20 * torch.log10(spectrum.abs() / (window.sum() / 2) + 1e-10)
    return (1 + level_db / RANGE_DB).clamp(0, 1).flip(0)[None]  # high frequencies on top


def plain(record):
    """A record as JSON knows it: without audio, and None for NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
        if name != "audio"
    }
