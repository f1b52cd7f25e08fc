"""What a page shows of sounds: peaks, and pictures of spectrograms, in bounded memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sepcli import files
from sepcli.audio import open_blocks
from sepcli.scoring.gallery import ROWS, band_powers, picture, window_size

COLUMNS = 800  # of peaks, and of pictures
AT_ONCE = 100  # columns


def write_views(paths: dict[str, Path], folder: Path) -> None:
    """Write FILE.png of each sound and, of all, peaks.json = {name: [[lowest, highest], ...]}.

    The pictures have one scale, the loudest power of all of them.
    """
    seen = {name: seen_of(path) for name, path in paths.items()}
    top = max((power.max() for _, power in seen.values()), default=0.0)
    for name, (_, power) in seen.items():
        files.save(folder / f"{paths[name].stem}.png", picture(power, top))
    peaks = {name: np.round(peaks, 4).tolist() for name, (peaks, _) in seen.items()}
    files.save(folder / "peaks.json", json.dumps(peaks))


def seen_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(lowest and highest sample (N, 2), power (ROWS, N)) of N equal parts of a sound."""
    peaks, powers = [np.zeros((0, 2))], [np.zeros((ROWS, 0))]
    with open_blocks(path) as reader:
        latest = np.zeros(window_size(reader.sample_rate), np.float32)
        edges = np.linspace(0, reader.frames, min(COLUMNS, reader.frames) + 1).astype(int)
        for sizes in batches(np.diff(edges)):
            frames = []
            for block in map(reader.read, sizes):
                peaks.append(np.array([[block.min(), block.max()]]))
                latest = np.concatenate([latest, block.mean(0)])[-len(latest) :]
                frames.append(latest)
            powers.append(band_powers(np.stack(frames), reader.sample_rate))
    return np.concatenate(peaks), np.concatenate(powers, 1)


def batches(sizes: np.ndarray) -> Iterator[list[int]]:
    """Cut sizes into lists of at most `AT_ONCE`."""
    for at in range(0, len(sizes), AT_ONCE):
        yield sizes[at : at + AT_ONCE].tolist()
