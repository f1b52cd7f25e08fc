"""Live streams over WebSockets: frames of raw samples in, frames of one source out.

A client asks for /stream?model=NAME&rate=HZ&channels=N&encoding=f32le|s16le&target=SOURCE
&atten_lim_db=DB. The server first sends the text {"event": "ready", "sample_rate", "hop", "delay",
"latency_ms", "sources", ...}; from then on every binary message holds interleaved samples of any
number of frames, and is answered by one binary message with what is ready, which may be empty.

    {"do": "reference"}  the binary messages that follow are a reference, for models that take one
    {"do": "start"}      the reference is complete; answered by "ready"
    {"do": "reset"}      the past is forgotten
    {"do": "end"}        answered by the rest, and the end of the connection

Errors are the text {"event": "error", "error"}, and the end of the connection.
"""

import asyncio
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli.audio import Resampler
from sepcli.inference.live import open_runner
from sepcli.inference.references import LONGEST_S, check_reference
from sepcli.inference.stream import Stream
from sepcli.nn.runner import TorchRunner
from sepcli.serving.metrics import Metrics
from sepcli.serving.settings import RequestError, Settings
from sepcli.signals import pcm

SHARE = 0.75  # of the cores, that live streams may take
MOST_CORES = 1.5  # that one process can use: its threads wait for one another in Python
MESSAGE_S = 0.35e-3  # of a core, for receiving a message, handing it to a thread, and answering
MOST_STREAMS = 1000
MOST_CHANNELS = 8
LONGEST_MESSAGE_S = 2.0
SILENCE_S = 60.0  # without a message, until a connection is closed
ENCODINGS = ("f32le", "s16le")
RATES = (8000, 192_000)  # Hz
RESAMPLING_MS = 74.0  # where the client's rate is not the model's: there and back
TRIAL_HOPS = 40


@dataclass(frozen=True)
class Asked:
    """What a client asked for in the address of a stream."""

    model: str
    rate: int | None = None
    channels: int = 1
    encoding: str = "f32le"
    target: str | None = None
    atten_lim_db: float | None = None


def asked_for(query: Any, default: str) -> Asked:
    """The `Asked` of a query, a mapping of texts; RequestError for what makes no sense."""
    known = ("model", "rate", "channels", "encoding", "target", "atten_lim_db")
    if unknown := sorted(set(query) - set(known)):
        raise RequestError(400, f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
    limit = query.get("atten_lim_db")
    asked = Asked(
        query.get("model") or default,
        _whole(query, "rate", None, *RATES),
        _whole(query, "channels", 1, 1, MOST_CHANNELS) or 1,
        query.get("encoding", "f32le"),
        query.get("target") or None,
        None if limit is None else _decibels(limit),
    )
    if asked.encoding not in ENCODINGS:
        raise RequestError(400, f"encoding is not one of {', '.join(ENCODINGS)}")
    return asked


def _whole(query, name, default, low, high):
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
        raise RequestError(400, f"{name} is not a whole number from {low} to {high}")
    return int(text)


def _decibels(text):
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise RequestError(400, "atten_lim_db is not a number of 0 dB or more")
    return limit


class Streams:
    """The live streams of a server: they are admitted while the processor carries them.

    What a stream takes of a core is measured once for each model.
    """

    def __init__(self, settings: Settings, cores: int, metrics: Metrics) -> None:
        self.settings, self.cores, self.metrics = settings, cores, metrics
        self.facts: dict[str, Any] = {}  # of the models, as the workers tell them
        self.count, self._load = 0, 0.0
        self._executor = ThreadPoolExecutor(cores, "stream")
        self._runners: dict[str, Any] = {}
        self._loads: dict[str, float] = {}
        self._opening = asyncio.Lock()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def check(self, asked: Asked) -> None:
        """Raise RequestError for what is not to be had."""
        about = self.facts.get(asked.model)
        if about is None:
            raise RequestError(404, f"no model of that name; known are {', '.join(self.facts)}")
        if not about["causal"]:
            raise RequestError(400, f"{asked.model} is not causal: it needs the whole signal")
        if asked.target not in (None, *about["sources"]):
            raise RequestError(400, f"target is not one of {', '.join(about['sources'])}")
        if about["channels"] not in (1, 2, asked.channels):
            raise RequestError(400, f"{asked.model} takes {about['channels']} channels")

    def check_room(self, asked: Asked) -> None:
        """Raise RequestError 503 when there is no room for another stream."""
        most = self.settings.streams
        full = self._load + self._load_of(asked) > SHARE * min(self.cores, MOST_CORES)
        if (full if most is None else self.count >= most) or self.count >= MOST_STREAMS:
            self.metrics.refused_stream()
            raise RequestError(503, "no room for another live stream; try again later", retry_s=10)

    def _load_of(self, asked):
        return self._loads.get(asked.model, 0.0) * asked.channels

    @contextmanager
    def admitted(self, asked: Asked) -> Iterator[None]:
        """Take the place of a stream while this lasts; RequestError 503 where there is none."""
        self.check_room(asked)
        load = self._load_of(asked)
        self.count += 1
        self._load += load
        try:
            yield
        finally:
            self.count -= 1
            self._load -= load

    async def run(self, function: Any, *args: Any) -> Any:
        """Call a function in a thread of its own, while others go on."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def prepare(self, name: str) -> None:
        """Load a model and measure it, unless that is done."""
        async with self._opening:
            if name not in self._runners:
                await self.run(self._open, name)

    def _open(self, name):
        path = self.settings.models[name]
        if self.facts[name]["takes_reference"]:
            from sepcli.inference.loading import load

            separator: Any = load(path)
            self._runners[name] = separator
            second = np.random.default_rng(0).standard_normal((1, separator.sample_rate))
            self._loads[name] = load_of(self.runner(name, second, separator.sample_rate))
            return
        self._runners[name] = runner = open_runner(path)
        if runner.engine == "torch":
            import torch

            torch.set_num_threads(1)  # the others have streams of their own
        self._loads[name] = load_of(runner)

    def runner(self, name: str, reference: np.ndarray | None = None, rate: int = 0) -> Any:
        """What runs the model `name`, on a recording of what `reference` (C, T) holds."""
        found = self._runners[name]
        if not self.facts[name]["takes_reference"]:
            return found
        return TorchRunner(found.given([reference], rate).model)


def load_of(runner: Any) -> float:
    """The part of a core that one live stream takes whose messages hold a hop each."""
    stream, times = Stream(runner, chunk_ms=0), []
    noise = 0.01 * np.random.default_rng(0).standard_normal((1, runner.hop), np.float32)
    for _ in range(TRIAL_HOPS):
        began = time.thread_time()
        stream.push(noise)
        times.append(time.thread_time() - began)
    return (float(np.median(times)) + MESSAGE_S) * runner.sample_rate / runner.hop


class Live:
    """One stream, at the client's rate and in its sample format."""

    def __init__(self, runner: Any, asked: Asked) -> None:
        self.asked, self.runner = asked, runner
        self.rate = asked.rate or runner.sample_rate
        self.frame_bytes = asked.channels * pcm.WIDTHS[asked.encoding]
        self._stream = Stream(
            runner,
            asked.channels,
            target=asked.target,
            chunk_ms=0,  # a hop at a time
            atten_lim_db=asked.atten_lim_db,
            compensate_delay=False,
        )
        self._begin()

    def _begin(self):
        own, theirs, channels = self.runner.sample_rate, self.rate, self.asked.channels
        self._inward = Resampler(theirs, own, channels)
        self._outward = Resampler(own, theirs, channels)

    def ready(self) -> dict[str, Any]:
        """What the client has to know."""
        rate = self.runner.sample_rate
        resampling = 0.0 if self.rate == rate else RESAMPLING_MS
        return {
            "event": "ready",
            "model": self.asked.model,
            "sample_rate": self.rate,
            "channels": self.asked.channels,
            "encoding": self.asked.encoding,
            "hop": round(self.runner.hop * self.rate / rate),
            "delay": round(self.runner.delay * self.rate / rate),
            "latency_ms": 1000 * (self.runner.hop + self.runner.delay) / rate + resampling,
            "sources": list(self.runner.sources),
        }

    def decode(self, data: bytes) -> np.ndarray:
        """Audio (C, n) of a message; RequestError where it is none, or too much."""
        return decoded(data, self.asked, self.rate, LONGEST_MESSAGE_S)

    def push(self, data: bytes) -> bytes:
        audio = self._stream.push(self._inward.process(self.decode(data)))
        if not np.isfinite(audio).all():
            raise RequestError(400, "the samples are too loud for the model; keep them within 1")
        return pcm.pack(self._outward.process(audio), self.asked.encoding)

    def reset(self) -> None:
        self._stream.reset()
        self._begin()

    def finish(self) -> bytes:
        nothing = np.zeros((self.asked.channels, 0), np.float32)
        rest = self._stream.push(self._inward.process(nothing, last=True))
        rest = np.concatenate([rest, self._stream.finish()], 1)
        return pcm.pack(self._outward.process(rest, last=True), self.asked.encoding)


def decoded(data: bytes, asked: Asked, rate: int, longest_s: float) -> np.ndarray:
    """Finite audio (C, n) of raw samples; RequestError where it is none, or longer."""
    frame = asked.channels * pcm.WIDTHS[asked.encoding]
    if len(data) % frame:
        raise RequestError(400, f"a message of {len(data)} bytes, but a frame has {frame}")
    if len(data) > longest_s * rate * frame:
        raise RequestError(413, f"more than {longest_s:g} s at once")
    audio = pcm.unpack(data, asked.encoding, asked.channels)
    if not np.isfinite(audio).all():
        raise RequestError(400, "the samples are not all finite")
    return audio


async def converse(socket: Any, streams: Streams, asked: Asked) -> None:
    """Talk to one client, whose WebSocket is accepted, until it ends. Raises RequestError."""
    reference = None
    if streams.facts[asked.model]["takes_reference"]:
        await socket.send_text(json.dumps({"event": "reference wanted"}))
        reference = await listen(socket, streams, asked)
        if reference is None:
            return
    rate = asked.rate or streams.facts[asked.model]["sample_rate"]
    runner = await streams.run(streams.runner, asked.model, reference, rate)
    live = Live(runner, asked)
    await socket.send_text(json.dumps(live.ready()))
    while (message := await incoming(socket)) is not None:
        if isinstance(message, bytes):
            began = time.monotonic()
            answer = await streams.run(live.push, message)
            await socket.send_bytes(answer)
            streams.metrics.hop(time.monotonic() - began)
        elif message.get("do") == "reset":
            await streams.run(live.reset)
        elif message.get("do") == "end":
            await socket.send_bytes(await streams.run(live.finish))
            return
        else:
            raise RequestError(400, "expected reset or end")


async def listen(socket: Any, streams: Streams, asked: Asked) -> np.ndarray | None:
    """The reference (C, T) that a client sends; None when it leaves."""
    rate = asked.rate or streams.facts[asked.model]["sample_rate"]
    heard, size = [], 0
    while (message := await incoming(socket)) is not None:
        if isinstance(message, bytes):
            heard.append(decoded(message, asked, rate, LONGEST_MESSAGE_S))
            size += heard[-1].shape[1]
            if size > LONGEST_S * rate:
                raise RequestError(413, f"a reference of more than {LONGEST_S:g} s")
        elif message.get("do") == "start":
            reference = np.concatenate([np.zeros((asked.channels, 0), np.float32), *heard], 1)
            check_reference(reference, rate, "reference")
            return reference
        elif message.get("do") != "reference":
            raise RequestError(400, "expected samples of a reference, and then start")
    return None


async def incoming(socket: Any) -> bytes | dict[str, Any] | None:
    """The next message, None at the end of the connection."""
    try:
        message = await asyncio.wait_for(socket.receive(), SILENCE_S)
    except TimeoutError:
        raise RequestError(408, f"no data arrived for {SILENCE_S:g} s") from None
    if message["type"] == "websocket.disconnect":
        return None
    if (data := message.get("bytes")) is not None:
        return data
    try:
        wanted = json.loads(message.get("text") or "")
        return wanted if isinstance(wanted, dict) else {}
    except ValueError:
        raise RequestError(400, "a text that is not JSON") from None
