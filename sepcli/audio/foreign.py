"""What libsndfile does not read, by FFmpeg: the package av if it is there, or else the program."""

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from sepcli.audio.decoders import Decoder, PcmDecoder
from sepcli.audio.streams import Peekable
from sepcli.audio.tracks import split_track
from sepcli.containers.wav import read_header
from sepcli.errors import SepcliError, note
from sepcli.signals.checks import check_layout, damaged, too_short

REMEDY = "pip install 'sepcli[av]', or install ffmpeg"
_DOUBLY_CUT = "Apple Lossless in CAF"  # FFmpeg takes off its end twice unless told not to
_EXACT = ("wv", "tta", "ape")  # FFmpeg's names of formats that tell how long they are


def has_av() -> bool:
    """Whether the package av is installed."""
    return importlib.util.find_spec("av") is not None


def is_available() -> bool:
    """Whether there is a decoder for other formats."""
    return has_av() or shutil.which("ffmpeg") is not None


def open_foreign(name: str, file: Any, what: str, complain: Callable[[Exception], None]) -> Decoder:
    """A `Decoder` of the first sound in a seekable binary file of the format `what`.

    Raises SepcliError when there is no decoder, or no sound in it.
    """
    if has_av():
        return _AvDecoder(name, file, what, complain)
    if shutil.which("ffmpeg"):
        return _ProgramDecoder(name, file, what, complain)
    path = shlex.quote(name) if os.path.exists(name) else "FILE"  # not a pipe's name
    raise SepcliError(
        f"{name}: {what}, which needs another decoder: {REMEDY}; "
        f"or convert it: ffmpeg -i {path} out.wav"
    )


def _undecodable(name, what, reason):
    return SepcliError(
        f"{name}: {what}, which FFmpeg does not decode ({reason}); "
        "copy it again, or convert it with what made it"
    )


class _AvDecoder(Decoder):
    """What PyAV decodes."""

    def __init__(self, name, file, what, complain):
        av: Any = importlib.import_module("av")
        av.logging.set_level(None)  # FFmpeg would write on standard error what is raised as well
        with contextlib.ExitStack() as opened:
            try:
                file.seek(0)
                container = opened.enter_context(av.open(file, metadata_errors="replace"))
                stream = _choose(container, name, what)
                self._blocks = _decoded(container, stream, what)
                first, rate = next(self._blocks, (np.empty((1, 0), np.float32), 1))
            except av.error.FFmpegError as error:
                raise _undecodable(name, what, error.strerror) from None
            form = container.format.name
            told = round(stream.duration * stream.time_base * rate) if stream.duration else 0
            self._least = told if form in _EXACT else 0  # frames
            # What follows the end of an edit list is the encoder's padding; the program cuts there.
            self._most = told if form.startswith("mov,") and told else float("inf")
            codec = stream.codec_context.name.upper()
            super().__init__(name, rate, len(first), None, what, codec, complain)
            self._ahead, self._wrong = first, (av.error.FFmpegError, ValueError)
            self._resources = opened.pop_all()

    def _read(self, frames, exact):
        if not self._ahead.shape[1]:
            self._ahead = self._next()
        frames = min(frames, self._most - self._position)
        block, self._ahead = self._ahead[:, :frames], self._ahead[:, frames:]
        return block

    def _next(self):
        try:
            for block, rate in self._blocks:
                if (len(block), rate) != (self.channels, self.sample_rate):
                    raise ValueError(f"{len(block)} channels at {rate} Hz from here on")
                if block.shape[1]:
                    return block
        except self._wrong as error:
            at = f"at {self._position / self.sample_rate:.1f} s"
            reason = getattr(error, "strerror", None) or error
            self._ends_early(damaged(self.name, f"{reason}, {at}"))
            return self.nothing()
        if self._position < self._least:
            self._ends_early(too_short(self.name, self._position, self._least))
        return self.nothing()


def _choose(container, name, what):
    """The sound of an opened file that its name tells, or the first; the others are told of."""
    streams, (_, track) = container.streams.audio, split_track(name)
    if not streams:
        raise SepcliError(f"{name}: {what} without sound; name another file")
    if track is not None:
        if track >= len(streams):
            raise SepcliError(f"{name}: {len(streams)} audio tracks; they are counted from 0 on")
        return streams[track]
    if len(streams) > 1:
        note(f"{name}: {len(streams)} audio tracks in one file; the first one is read")
    return streams[0]


def _decoded(container, stream, what):
    """Yield (C, n) float32 and the sample rate of all that a stream decodes to."""
    av: Any = importlib.import_module("av")
    if what == _DOUBLY_CUT:
        stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
    resampler, rate = av.AudioResampler("fltp"), 0
    for frame in container.decode(stream):
        rate = frame.sample_rate
        for converted in resampler.resample(frame):
            yield converted.to_ndarray(), rate
    for converted in resampler.resample(None) if rate else ():
        yield converted.to_ndarray(), rate


class _ProgramDecoder(PcmDecoder):
    """What the program ffmpeg decodes: WAV from a pipe."""

    def __init__(self, name, file, what, complain):
        self._what = what
        with contextlib.ExitStack() as opened:
            path = opened.enter_context(_as_path(file))
            self._told = opened.enter_context(tempfile.TemporaryFile())
            skip = ["-flags2", "skip_manual"] if what == _DOUBLY_CUT else []
            command = ["ffmpeg", "-v", "error", "-nostdin", "-xerror", *skip, "-i", f"file:{path}"]
            track = split_track(name)[1] or 0
            command += ["-map", f"0:a:{track}", "-c:a", "pcm_f32le", "-f", "wav", "-"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._told)
            opened.callback(self._end)
            stream = Peekable(self._process.stdout)
            if not stream.peek(1):
                raise _undecodable(name, what, self._reason())
            header = read_header(stream, name)
            check_layout(name, header.sample_rate, header.channels, remedy="convert it")
            layout = (header.encoding, header.sample_rate, header.channels)
            super().__init__(name, stream, *layout, complain, container=what)
            self._resources = opened.pop_all()

    def _read(self, frames, exact):
        block = super()._read(frames, exact)
        if not block.shape[1] and self._process.wait():
            self._ends_early(_undecodable(self.name, self._what, self._reason()))
        return block

    def _reason(self):
        """The first line of what ffmpeg said, without the names of its parts."""
        self._process.wait()
        self._told.seek(0)
        lines = self._told.read().decode(errors="replace").split("\n")
        return re.sub(r"^(\[[^]]*\] *)+", "", lines[0]).strip() or "no reason given"

    def _end(self):
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


@contextlib.contextmanager
def _as_path(file):
    """The path of a binary file, or of a copy of one that has none."""
    if isinstance(getattr(file, "name", None), str):
        yield file.name
        return
    file.seek(0)
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy.name
