"""Recordings of the speaker that is to be found: read, checked, and as a model takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcli.audio import open_blocks
from sepcli.dsp import level
from sepcli.dsp.voicing import voiced_share
from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample
from sepcli.signals.resampling import resample

SHORTEST_S, LONGEST_S = 0.5, 30.0  # more of a recording than that is not used
SILENT_DB = -80.0  # RMS re full scale
VOICED = 0.06  # share of voiced frames that nearly all speech has, and most noises do not


def read_references(paths: Sequence[str | Path], sample_rate: int) -> list[np.ndarray]:
    """The references in sound files of any rate and channels: mono (1, T) at `sample_rate`.

    Raises SepcliError for one that cannot be read, is silent, or shorter than 0.5 s.
    """
    found = []
    for path in paths:
        with open_blocks(path) as reader:
            found.append(_checked(reader, sample_rate))
    return found


def enrolments(sample: Sample, sample_rate: int) -> list[np.ndarray]:
    """The references in a sample, `enroll` or `enroll.…`: as `read_references` gives them."""
    names = [name.rpartition(".")[0] for name in sample.names("enroll")]
    if not names:
        raise SepcliError(
            f"{sample.label()} has no enroll; name a recording of the speaker with --ref, or let "
            "sepcli mix add one with --enroll"
        )
    found = []
    for name in names:
        with sample.open(name) as reader:
            found.append(_checked(reader, sample_rate))
    return found


def speech_in(references: Sequence[np.ndarray], sample_rate: int) -> float:
    """How much the references (1, T) are like speech: 1 where enough is voiced, 0 for noise."""
    share = max(voiced_share(reference[0], sample_rate) for reference in references)
    return min(1.0, share / VOICED)


def _checked(reader: Any, sample_rate: int) -> np.ndarray:
    name, rate = reader.name, reader.sample_rate
    audio = reader.rest(round(LONGEST_S * rate)).mean(0, keepdims=True)
    check_reference(audio, rate, name)
    return resample(audio, rate, sample_rate)


def check_reference(audio: np.ndarray, sample_rate: int, name: str) -> None:
    """Raise SepcliError for a reference (C, T) that is silent, or shorter than 0.5 s."""
    seconds = audio.shape[1] / sample_rate
    if seconds < SHORTEST_S:
        raise SepcliError(
            f"{name}: {seconds:.2f} s; a reference has at least {SHORTEST_S:g} s, better 3 s"
        )
    if level.rms_db(audio) < SILENT_DB:
        raise SepcliError(
            f"{name}: silent; as a reference, give a recording in which the speaker is heard"
        )
