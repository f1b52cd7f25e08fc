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

from sepcli import audio
from sepcli.models.modelfile import METRICS
from sepcli.runs.tracking import Tracker
from sepcli.training.settings import Settings

FFT, HOP, RANGE_DB = 512, 256, 80.0  # of pictures


class RunLog:
    """The open logs of a run that goes on after step `step`; a context manager."""

    def __init__(self, folder: Path, *, sample_rate: int, step: int, settings: Settings) -> None:
        self.folder, self.sample_rate, self.step = folder, sample_rate, step
        self.settings = settings
        self.heard = False  # what validates does not change but for the estimates: once is enough

    def __enter__(self):
        self.tracker = Tracker(self.settings.wandb, self.folder)
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
        """Write a "train", "valid" or "audio" record; the other ones are for progress bars."""
        if record["event"] == "audio":
            self._write_audio(record, "train/")
            self.board.flush()
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
        if record.get("best") or (record["event"] == "valid" and self.settings.audio_every):
            self._write_audio(record)
        self.board.flush()

    def _write_audio(self, record, group=""):
        for name, signal in record["audio"].items():
            if group or "/est." in name or not self.heard:
                mono = signal.mean(0).clamp(-1, 1)  # (T,)
                sound = summary.audio(group + name, mono, sample_rate=self.sample_rate)
                self.board.add(sound, record["step"])
                picture = summary.image(group + name, spectrogram(mono), dataformats="CHW")
                self.board.add(picture, record["step"])
            if self.settings.audio_files:
                self._write_file((group or "valid/") + name, signal, record["step"])
        self.heard = self.heard or not group

    def _write_file(self, name, signal, step):
        """The signal (C, T) as audio/STEP/GROUP-NUMBER-NAME.wav."""
        path = self.folder / "audio" / f"{step:08d}" / f"{name.replace('/', '-')}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, signal.float().numpy(), self.sample_rate)


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
