"""`sepcli stream`: live audio in, one source of it out, chunk by chunk."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sepcli import options
from sepcli.errors import SepcliError, note

if TYPE_CHECKING:
    from sepcli.audio.reading import Reader


@click.command("stream")
@options.model
@click.option(
    "--ref",
    "references",
    multiple=True,
    metavar="FILE",
    help="Recording of the speaker to extract, for models that take one; repeatable.",
)
@click.option("--target", metavar="NAME", help="Source to output.  [default: the first]")
@click.option(
    "-t",
    "--input-type",
    type=click.Choice(["wav", "raw"]),
    default="wav",
    show_default=True,
    help="WAV, or raw PCM without a header; the output is of the same type.",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    help="Sample rate of raw PCM, in Hz.  [default: the model's]",
)
@click.option("--channels", type=click.IntRange(1, 64), help="Channels of raw PCM.  [default: 1]")
@click.option(
    "--encoding",
    type=click.Choice(["f32le", "s16le"]),
    help="Sample format of raw PCM.  [default: f32le]",
)
@click.option(
    "--chunk",
    "chunk_ms",
    type=options.Number(min=0, max=10_000),
    default=10.0,
    show_default=True,
    metavar="MS",
    help="Chunk length in ms, rounded down to whole hops of the model, at least one.",
)
@click.option(
    "--compensate-delay/--no-compensate-delay",
    default=True,
    show_default=True,
    help="Align the output with the input, or output every chunk at once, late by the latency.",
)
@click.option(
    "--atten-lim",
    "atten_lim_db",
    type=options.Number(min=0),
    metavar="DB",
    help="Limit of the attenuation in dB: outputs a * input + (1 - a) * output with a = "
    "10^(-DB/20).",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="onnx runs the graph beside the weights (see sepcli export), or makes one, once; auto "
    "runs it where there is one, else torch, while one is made for the next time.",
)
@click.option(
    "--verify",
    metavar="FILE",
    help="Compare streaming with offline separation of FILE, and report the difference.",
)
@click.option(
    "--latency",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="Measure the time per chunk on FILE or on synthetic noise, and report it.",
)
@click.option(
    "--seconds",
    type=options.Number(min=0, min_open=True),
    help="Duration to verify or measure, in seconds.  [default: all of FILE; 10 of noise]",
)
@options.seed
@options.as_json
def command(
    model: str | None,
    references: tuple[str, ...],
    engine: str,
    verify: str | None,
    latency: str | None,
    seconds: float | None,
    seed: int,
    as_json: bool,
    input_type: str,
    rate: int | None,
    channels: int | None,
    encoding: str | None,
    **choices: Any,
) -> None:
    """Separate live audio and output one source.

    Reads standard input and writes standard output.

    \b
        $ cat noisy.wav | sepcli stream > speech.wav
        $ arecord -t raw -f FLOAT_LE -r 16000 | sepcli stream -t raw --rate 16000 |
              aplay -t raw -f FLOAT_LE -r 16000
        $ sepcli stream --ref me.wav < call.wav > my-voice.wav
        $ sepcli stream --latency

    The input must have the model's sample rate; its channels are treated one by one. Each chunk is
    written as soon as it is complete, and the output is as long as the input. The signal USR1
    resets the state of the model, for instance after a gap. The first interrupt ends the input.
    """
    if input_type != "raw" and (rate or channels or encoding):
        raise click.UsageError("--rate, --channels and --encoding describe raw PCM; add -t raw")
    from sepcli.inference.live import open_runner
    from sepcli.inference.stream import Stream

    name = model or ("extract" if references else "denoise")
    with Signals() as signals:
        live = verify is None and latency is None
        runner = open_runner(name, engine, references, later=live)
        if runner.engine == "torch":
            import torch

            torch.set_num_threads(1)
        if verify is not None:
            from sepcli.inference.streamcheck import verify as compare

            chosen = {"target": choices["target"], "references": references}
            record = compare(runner, name, verify, seconds=seconds, seed=seed, **chosen)
            show(record, as_json)
            if not record["equal"]:
                raise SepcliError(f"{verify}: streamed and offline output differ, see above")
        elif latency is not None:
            from sepcli.inference.streamcheck import measure

            show(measure(runner, latency or None, seconds=seconds, seed=seed, **choices), as_json)
        else:
            raw = {"encoding": encoding or "f32le"} if input_type == "raw" else {}
            with open_input(runner, rate, channels, **raw) as reader:
                stream = Stream(runner, reader.channels, **choices)
                pump(reader, stream, signals, **raw)


def open_input(
    runner: Any, rate: int | None, channels: int | None, *, encoding: str | None = None
) -> Reader:
    """Standard input as a reader of audio at the runner's rate."""
    from sepcli.audio import Peekable, open_blocks

    if sys.stdin is None or sys.stdin.isatty():
        raise SepcliError("no audio on standard input; pipe it: cat noisy.wav | sepcli stream")
    if sys.stdout is None or sys.stdout.isatty():
        raise SepcliError("audio is not written to a terminal; use > FILE or a pipe")
    if encoding is not None:
        layout = {"sample_rate": rate or runner.sample_rate, "channels": channels or 1}
        reader = open_blocks(sys.stdin.buffer, encoding=encoding, **layout)
    else:
        stdin = Peekable(sys.stdin.buffer)
        if stdin.sniff() != "wav" and stdin.peek(1):
            raise SepcliError(
                "standard input: not a WAV file; convert it, or describe raw PCM with "
                "-t raw --rate HZ"
            )
        reader = open_blocks(stdin)
    if reader.sample_rate != runner.sample_rate:
        raise SepcliError(
            f"standard input: {reader.sample_rate} Hz, but the model runs at {runner.sample_rate} "
            f"Hz; resample it first: sox -t wav - -t wav -r {runner.sample_rate} -"
        )
    return reader


def pump(reader: Any, stream: Any, signals: Any, *, encoding: str | None = None) -> None:
    """Stream all of `reader` to standard output, or until an interrupt; either way to its end."""
    from sepcli.audio import Writer

    layout = (stream.runner.sample_rate, stream.channels)
    with Writer(sys.stdout.buffer, *layout, encoding=encoding) as writer:
        ending = None
        while ending is None:
            try:
                with signals.impatient():
                    block = reader.read(stream.chunk, exact=False)
            except (SepcliError, KeyboardInterrupt) as error:
                ending = error  # what came until then goes out first
                break
            if not block.shape[1]:
                break
            if signals.take_reset():
                stream.reset()
            put(writer, stream.push(block))
        put(writer, stream.finish())
    if writer.clipped:
        note(writer.remark)
    if ending is not None:
        raise ending


def put(writer: Any, block: Any) -> None:
    """Write a block unless it is empty, which would cost a flush."""
    if block.shape[1]:
        writer.write(block)


class Signals:
    """What interrupts and USR1 do while audio streams; a context manager.

    The first interrupt raises KeyboardInterrupt while `impatient`, as when waiting for input, and
    otherwise when that begins, so that no write is torn; the second one raises it at once.
    """

    def __init__(self) -> None:
        self._interrupted = self._reset = False
        self._impatient = True
        self._before = {}

    def __enter__(self):
        handlers = {"SIGINT": self._on_interrupt, "SIGUSR1": self._on_reset}
        for name, handler in handlers.items():
            if number := getattr(signal, name, None):  # Windows has no SIGUSR1
                self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_interrupt(self, *_):
        if self._impatient or self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _on_reset(self, *_):
        self._reset = True

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """While this lasts an interrupt raises KeyboardInterrupt; afterwards it waits."""
        self._impatient = True
        try:
            if self._interrupted:
                raise KeyboardInterrupt
            yield
        finally:
            self._impatient = False

    def take_reset(self) -> bool:
        """Whether USR1 came since the last call."""
        reset, self._reset = self._reset, False
        return reset


def show(record: dict[str, Any], as_json: bool) -> None:
    """Print a record as JSON, or as one `name value` per line."""
    if as_json:
        click.echo(json.dumps(record))
        return
    width = max(map(len, record)) + 2
    for name, value in record.items():
        click.echo(f"{name:{width}}{f'{value:.4g}' if isinstance(value, float) else value}")
