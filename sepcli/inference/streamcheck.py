"""Whether streaming equals separating the whole, and how long a chunk takes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcli.audio import open_blocks
from sepcli.errors import SepcliError
from sepcli.inference.live import given
from sepcli.inference.stream import Stream, batched, unbatched
from sepcli.nn.runner import Runner

TOLERANCE = 1e-5  # largest difference of torch to itself over the whole file
MOST_HOPS = 20  # per chunk, when their numbers are drawn
WARM_UP = 5  # chunks before times count
NOISE_SECONDS = 10.0


def verify(
    runner: Runner,
    name: str,
    path: str | Path,
    *,
    seconds: float | None = None,
    seed: int = 0,
    target: str | None = None,
    references: Sequence[str] = (),
) -> dict[str, Any]:
    """Stream the file `path` in random chunks, and compare with the model `name` over the whole.

    A graph, NAME.onnx, is compared with the model whose weights it was made from, beside it.
    references: the sound files that the runner was given.
    Returns a dict with `max_difference`, `tolerance` and `equal`. Raises SepcliError.
    """
    source = name if runner.engine == "torch" else weights(runner, name)
    audio = read(path, runner.sample_rate, seconds)
    stream, rng = Stream(runner, len(audio), target=target), np.random.default_rng([seed, 0])
    parts, at = [], 0
    while at < audio.shape[1]:
        stream.chunk = runner.hop * int(rng.integers(1, MOST_HOPS + 1))
        size = int(rng.integers(1, 2 * stream.chunk))
        parts.append(stream.push(audio[:, at : at + size]))
        at += size
    parts.append(stream.finish())
    whole = offline(runner, source, audio, target, references)
    difference = np.abs(np.concatenate(parts, 1) - whole).max()
    tolerance = getattr(runner, "tolerance", TOLERANCE)  # a graph has its own
    return {
        "file": str(path),
        "model": str(source),
        "engine": runner.engine,
        "samples": audio.shape[1],
        "pushes": len(parts) - 1,
        "max_difference": float(difference),
        "tolerance": tolerance,
        "equal": bool(difference <= tolerance),
    }


def weights(runner: Any, name: str) -> Path:
    """The file of the weights that a graph was made from; SepcliError when they are not there."""
    from sepcli.models.modelfile import digest, locate

    path = locate(name)
    if path.suffix != ".onnx":
        return path
    beside = path.with_suffix(".safetensors")
    if not beside.is_file():
        raise SepcliError(
            f"{path}: the weights that it was made from are missing, so there is nothing to "
            f"compare it with; put them beside it as {beside.name}"
        )
    if digest(beside) != runner.sha256:
        raise SepcliError(
            f"{beside}: not the weights that {path.name} was made from; make the graph again: "
            f"sepcli export {beside} -o {path} --overwrite"
        )
    return beside


def offline(
    runner: Any,
    name: str | Path,
    audio: np.ndarray,
    target: str | None,
    references: Sequence[str] = (),
) -> np.ndarray:
    """The target of the whole audio (C, T), separated by torch in one piece."""
    import torch

    from sepcli.models.modelfile import load_model

    model = runner.model if runner.engine == "torch" else load_model(name)[0]
    if model.conditioned:
        model = given(model, references)
    with torch.inference_mode():
        y = model.estimates(torch.from_numpy(batched(audio, model.channels)))
    y = unbatched(y.numpy(), len(audio))  # (S, C, T)
    return y[model.sources.index(target) if target else 0]


def measure(
    runner: Runner,
    path: str | Path | None = None,
    *,
    seconds: float | None = None,
    seed: int = 0,
    **choices: Any,
) -> dict[str, Any]:
    """Time every chunk of a file, or of synthetic noise, through `Stream(**choices)`.

    Returns a dict: `latency_ms` is the algorithm's, one chunk and the delay; `p50_ms` to `max_ms`
    are what the work on a chunk adds; `real_time_factor` is that work per length of audio.
    """
    if path is None:
        frames = int((seconds or NOISE_SECONDS) * runner.sample_rate)
        noise = np.random.default_rng([seed, 0]).standard_normal((runner.channels, frames))
        audio = (0.1 * noise).astype(np.float32)
    else:
        audio = read(path, runner.sample_rate, seconds)
    stream = Stream(runner, len(audio), **choices)
    times = []
    for at in range(0, audio.shape[1] - stream.chunk + 1, stream.chunk):
        start = time.perf_counter()
        stream.push(audio[:, at : at + stream.chunk])
        times.append(1000 * (time.perf_counter() - start))
    if len(times) <= WARM_UP:
        raise SepcliError(f"{path or 'noise'}: too short to measure; take {WARM_UP + 1} chunks")
    times = times[WARM_UP:]
    ms = 1000 / runner.sample_rate
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "engine": runner.engine,
        "channels": len(audio),
        "hop_ms": runner.hop * ms,
        "chunk_ms": stream.chunk * ms,
        "delay_ms": runner.delay * ms,
        "latency_ms": (stream.chunk + runner.delay) * ms,
        "chunks": len(times),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": max(times),
        "real_time_factor": sum(times) / (len(times) * stream.chunk * ms),
    }


def read(path: str | Path, sample_rate: int, seconds: float | None) -> np.ndarray:
    """The first `seconds` (all if None) of a sound file (C, T), which has to have that rate."""
    with open_blocks(path) as reader:
        if reader.sample_rate != sample_rate:
            raise SepcliError(
                f"{path}: {reader.sample_rate} Hz, but the model runs at {sample_rate} Hz; "
                "resample it first"
            )
        return reader.rest() if seconds is None else reader.rest(int(seconds * sample_rate))
