"""The log of a training run: metrics.jsonl, and the same with examples to hear and to see for
TensorBoard."""

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from sepcli.models.modelfile import METRICS
from sepcli.runs.tracking import Tracker

FFT, HOP, RANGE_DB = 512, 256, 80.0  # of pictures


class RunLog:
    """The open logs of a run that goes on after step `step`; a context manager."""

    def __init__(self, folder: Path, *, sample_rate: int, step: int, wandb: str = "") -> None:
        self.folder, self.sample_rate, self.step = folder, sample_rate, step
        self.wandb = wandb  # a project, see `Tracker`
        self.heard = False  # mixtures and references do not change: once is enough

    def __enter__(self):
        self.tracker = Tracker(self.wandb, self.folder)
        self.metrics = open(self.folder / METRICS, "a", encoding="utf-8")
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        self.board = Board(open(self.folder / name, "wb"))
        if self.step:  # what an earlier process wrote after its last checkpoint is written again
            self.board.forget_after(self.step)
        return self

    def __exit__(self, *_error):
        self.tracker.close()
        try:
            self.metrics.close()
        finally:
            self.board.close()

    def write(self, record: dict[str, Any]) -> None:
        """Write a "train" or "valid" record; the other ones are for progress bars."""
        if record["event"] not in ("train", "valid"):
            return
        values = plain(record)
        self.metrics.write(json.dumps(values) + "\n")
        self.metrics.flush()
        self.tracker.write(record["event"], values)
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self.board.add(summary.scalar(f"{record['event']}/{name}", value), record["step"])
        for name, picture in record.get("pictures", {}).items():
            shown = (picture / picture.max().clamp(min=1e-12))[None]
            self.board.add(summary.image(name, shown, dataformats="CHW"), record["step"])
        if record.get("best"):
            self._write_audio(record)
        self.board.flush()

    def _write_audio(self, record):
        for name, audio in record["audio"].items():
            if "/est." in name or not self.heard:
                mono = audio.mean(0).clamp(-1, 1)  # (T,)
                sound = summary.audio(name, mono, sample_rate=self.sample_rate)
                self.board.add(sound, record["step"])
                picture = summary.image(name, spectrogram(mono), dataformats="CHW")
                self.board.add(picture, record["step"])
        self.heard = True


class Board:
    """An open file of TensorBoard's events.

    torch's SummaryWriter would do, but for the thread that it writes in: when the disk is full,
    that prints a traceback of its own.
    """

    def __init__(self, file: Any) -> None:
        self.file, self.records = file, RecordWriter(file)
        self._write(file_version="brain.Event:2")

    def add(self, values: Any, step: int) -> None:
        """Add what a function of `torch.utils.tensorboard.summary` made."""
        self._write(summary=values, step=step)

    def forget_after(self, step: int) -> None:
        """Make TensorBoard drop what is later than `step` in files before this one."""
        start = SessionLog(status=SessionLog.START)
        self._write(session_log=start, step=step + 1)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def _write(self, **event):
        self.records.write(Event(wall_time=time.time(), **event).SerializeToString())


def spectrogram(x: torch.Tensor) -> torch.Tensor:
    """A picture (1, F, N) of a signal (T,): from -80 dB (0) to a sine of full scale (1)."""
    window = torch.hann_window(FFT)
    spectrum = torch.stft(x, FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    level_db = 20 * torch.log10(spectrum.abs() / (window.sum() / 2) + 1e-10)
    return (1 + level_db / RANGE_DB).clamp(0, 1).flip(0)[None]  # high frequencies on top


def plain(record: dict[str, Any]) -> dict[str, float | None]:
    """A record as JSON knows it: without audio and pictures, None for NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
        if name not in ("audio", "pictures")
    }
