"""Writing sound: files that appear whole or not at all, and WAV or raw PCM into pipes."""

import contextlib
import fcntl
import operator
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sepcli import files
from sepcli.audio import coded
from sepcli.containers import wav
from sepcli.containers.formats import AUDIO_EXTENSIONS
from sepcli.errors import OutputError, SepcliError, UsageError
from sepcli.signals import pcm
from sepcli.signals.checks import check_finite, check_layout, check_shape

_PCM_AND_FLOAT = ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "DOUBLE")
# extension: (libsndfile's format, the subtypes to choose from, the default one first)
FORMATS = {
    "wav": ("WAV", (*_PCM_AND_FLOAT, "PCM_U8")),
    "rf64": ("RF64", (*_PCM_AND_FLOAT, "PCM_U8")),
    "w64": ("W64", (*_PCM_AND_FLOAT, "PCM_U8")),
    "flac": ("FLAC", ("PCM_24", "PCM_16")),
    "ogg": ("OGG", ("VORBIS", "OPUS")),
    "oga": ("OGG", ("VORBIS", "OPUS")),
    "opus": ("OGG", ("OPUS",)),
    "mp3": ("MP3", ("MPEG_LAYER_III",)),
    "aiff": ("AIFF", _PCM_AND_FLOAT),
    "aif": ("AIFF", _PCM_AND_FLOAT),
    "au": ("AU", _PCM_AND_FLOAT),
    "snd": ("AU", _PCM_AND_FLOAT),
    "caf": ("CAF", _PCM_AND_FLOAT),
}
RATES = {  # Hz
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_HIGHEST_RATE = {"FLAC": 655_350, "VORBIS": 200_000}  # Hz, by format or subtype
_MOST_CHANNELS = {"MP3": 2, "FLAC": 8}
_PIECE = 1 << 15  # frames per call: libsndfile's Vorbis encoder overflows its stack on long ones
_OTHER_FILES = (
    ".txt", ".json", ".jsonl", ".csv", ".md", ".html", ".png", ".yaml", ".npy", ".h5", ".pt",
    ".onnx", ".tar", ".gz", ".tgz", ".zip", ".mid",
)  # fmt: skip
_BITS = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


def _choose(name, extension, subtype, sample_rate, channels):
    """Return libsndfile's (format, subtype), or say what would be possible."""
    check_layout(name, sample_rate, channels, remedy="no program could play such a file")
    if extension not in FORMATS:
        raise SepcliError(
            f"{name}: {'.' + extension if extension else 'no extension'} is not a known audio "
            f"format; end the name in one of {', '.join('.' + known for known in FORMATS)}"
        )
    container, subtypes = FORMATS[extension]
    subtype = subtype.upper() if subtype else subtypes[0]
    if subtype not in subtypes:
        raise SepcliError(
            f"{name}: {extension} does not support {subtype}; choose {' or '.join(subtypes)}"
        )
    if sample_rate not in RATES.get(subtype, (sample_rate,)):
        rates = ", ".join(map(str, RATES[subtype]))
        raise SepcliError(
            f"{name}: {extension} does not support {sample_rate} Hz; resample to one of {rates} Hz"
        )
    known = (_HIGHEST_RATE.get(key) for key in (container, subtype))
    highest = min(sample_rate if rate is None else rate for rate in known)
    if sample_rate > highest:
        raise SepcliError(
            f"{name}: {extension} does not support {sample_rate} Hz; "
            f"resample to {highest} Hz or less"
        )
    most = _MOST_CHANNELS.get(container, channels)
    if channels > most:
        raise SepcliError(
            f"{name}: {extension} does not support {channels} channels; "
            f"write {most} or fewer, or to .wav"
        )
    return container, subtype


def names_a_file(output: Any) -> bool:
    """Whether the path `output` is meant to be a file of sound, rather than a folder of them.

    It is when it ends like one, and there is no folder of that name. Folders may have dots in
    theirs: v1.0/, "Vol. 2". Raises UsageError for a name that is of another kind of file.
    """
    output = os.fspath(output)
    suffix = os.path.splitext(output)[1].lower()
    if output.endswith(os.sep) or os.path.isdir(output) or not suffix:
        return False
    if suffix in _OTHER_FILES:
        raise UsageError(f"{output}: {suffix} is not an audio format; use .wav or .flac")
    if suffix in AUDIO_EXTENSIONS and suffix[1:] not in FORMATS:
        raise UsageError(f"{output}: {suffix} cannot be written; use .wav or .flac")
    return suffix[1:] in FORMATS


def _place_in(stream):
    """Where in a file a binary stream stands, or None if it is a pipe or can only be added to."""
    try:
        descriptor = stream.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or flags & os.O_APPEND:
            return None
        stream.flush()
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return None


class _PcmSink:
    """WAV, RF64 or raw PCM into a binary file; in a pipe the header keeps its unknown sizes."""

    def __init__(self, file, streaming, sample_rate, channels, container, encoding):
        self._file, self._streaming, self._encoding = file, streaming, encoding
        self._layout, self._container = (encoding, sample_rate, channels), container
        self._start, self._data_bytes = _place_in(file), 0
        if container != "RAW":
            self._put(wav.header_bytes(*self._layout, patchable=self._start is not None))

    def _put(self, data):
        self._file.write(data)
        if self._streaming:
            self._file.flush()

    def write(self, block):
        data = pcm.pack(block, self._encoding)
        self._put(data)
        self._data_bytes += len(data)

    def finish(self):
        if self._start is None or self._container == "RAW":
            return
        self._put(b"\0" * (self._data_bytes % 2))  # chunks have even lengths
        self._file.flush()
        size = os.lseek(self._file.fileno(), 0, os.SEEK_CUR) - self._start
        rf64 = self._container == "RF64" or size - 8 > wav.RIFF_LIMIT
        sizes = wav.header_bytes(*self._layout, self._data_bytes, patchable=not rf64, rf64=rf64)
        os.pwrite(self._file.fileno(), sizes, self._start)

    def close(self):
        """Nothing of its own to close."""


class _CodedSink:
    """Any other format, by libsndfile, which has to seek: a stream gets a copy at the end."""

    def __init__(self, file, streaming, sample_rate, channels, container, subtype):
        self._stream = file if streaming else None
        self._bits = _BITS.get(subtype)
        with contextlib.ExitStack() as resources:
            if streaming:
                file = resources.enter_context(tempfile.TemporaryFile())
            self._file = file
            self._sound = resources.enter_context(
                coded.SoundFile(
                    file.fileno(),
                    "w",
                    sample_rate,
                    channels,
                    subtype,
                    format=container,
                    closefd=False,
                )
            )
            self._resources = resources.pop_all()

    def write(self, block):
        for start in range(0, block.shape[1], _PIECE):
            piece = block[:, start : start + _PIECE]
            # libsndfile's own conversion from float cuts off instead of rounding
            frames = pcm.quantise(piece, self._bits) if self._bits else piece.T  # (n, C)
            self._sound.write(np.ascontiguousarray(frames))

    def finish(self):
        self._sound.close()
        if self._stream is not None:
            self._file.seek(0)
            shutil.copyfileobj(self._file, self._stream)
            self._stream.flush()

    def close(self):
        self._resources.close()


class Writer:
    """Write blocks of (C, T) to a path or a binary stream; a context manager.

    A path gets the format of its extension (or `format`, a key of FORMATS) and `subtype`, one of
    those that format holds: FLOAT unless told otherwise, PCM_24 for FLAC. The file appears under
    its name when the `with` block ends without an exception, and not at all otherwise. WAV files
    past 4 GiB become RF64. Ogg keeps only the bass of the last of 6 or 8 channels.

    A stream gets a WAV whose sizes say "unknown", or raw PCM when `encoding` (e.g. s16le) is
    given, flushed at every write; if it is a file after all, it gets the sizes at the end. The
    other formats reach it only at the end.

    `clipped` counts the samples beyond [-1, 1] that no float subtype keeps, and `remark` says so:
    integer ones clamp them, and what plays MP3 and Ogg mostly does. Raises
    SepcliError on a format, subtype, rate or channel count that do not go together, on NaN and
    infinity, and when the disk is full; BrokenPipeError when a stream's reader is gone.
    """

    def __init__(
        self,
        target: Any,
        sample_rate: int,
        channels: int,
        *,
        subtype: str | None = None,
        format: str | None = None,  # noqa: A002
        encoding: str | None = None,
    ) -> None:
        is_path = isinstance(target, str | os.PathLike)
        self._is_path = is_path
        self.name = os.fspath(target) if is_path else "standard output"
        self.sample_rate, self.channels = operator.index(sample_rate), channels
        self.clipped = self._written = 0  # samples; frames
        if encoding is not None:
            container, subtype = "RAW", pcm.subtype_of(encoding)
        else:
            extension = format or (Path(target).suffix[1:].lower() if is_path else "wav")
            container, subtype = _choose(self.name, extension, subtype, sample_rate, channels)
        self._clips = subtype not in ("FLOAT", "DOUBLE")
        self._keeps = encoding and "--encoding f32le keeps them"
        if not encoding:
            can_float = "FLOAT" in FORMATS[extension][1]
            self._keeps = f"{'--subtype FLOAT' if can_float else 'a .wav'} keeps them"
        self._aside = None
        self._resources = contextlib.ExitStack()
        with self._explained(), contextlib.ExitStack() as on_error:
            on_error.callback(self._discard)
            file, streaming = self._open(Path(target)) if is_path else (target, True)
            layout = (file, streaming, sample_rate, channels, container)
            if container in ("WAV", "RF64", "RAW"):
                self._sink = _PcmSink(*layout, pcm.ENCODINGS[subtype])
            else:
                self._sink = _CodedSink(*layout, subtype)
            self._resources.callback(self._sink.close)
            on_error.pop_all()

    def write(self, block: np.ndarray) -> None:
        """Append float (C, n); integer subtypes clamp what is beyond [-1, 1]."""
        check_shape(block, self.channels)
        check_finite(self.name, block, self.sample_rate, start=self._written)
        if self._clips:
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
        with self._explained():
            self._sink.write(block)
        self._written += block.shape[1]

    @property
    def remark(self) -> str | None:
        """A line on samples that clipped, or None."""
        if not self.clipped:
            return None
        return f"{self.name}: {self.clipped} samples clipped; {self._keeps}, or lower the level"

    def close(self) -> None:
        """Finish the file and put it under its name; a `with` block does this."""
        with self._explained(), contextlib.ExitStack() as on_error:
            on_error.callback(self._discard)
            self._sink.finish()
            self._resources.close()
            if self._aside is not None:
                self._aside.commit()
            on_error.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.close()
        else:
            self._discard()

    def _open(self, path):
        """Return (binary file, whether it is a pipe or a device)."""
        if path.is_dir():
            raise SepcliError(f"{self.name}: a folder; name a file in it")
        if files.is_device(path):
            return self._resources.enter_context(open(path, "wb")), True
        self._aside = files.Aside(path)
        return self._resources.enter_context(self._aside.part.open("xb+")), False

    def _discard(self):
        with contextlib.suppress(OSError, soundfile.LibsndfileError):
            self._resources.close()
        if self._aside is not None:
            self._aside.discard()

    @contextlib.contextmanager
    def _explained(self):
        """Turn complaints of the system and of libsndfile into one line."""
        try:
            with files.explained(self.name, SepcliError if self._is_path else OutputError):
                yield
        except (soundfile.LibsndfileError, AssertionError) as error:
            reason = getattr(error, "error_string", "not all of the data was written")
            raise SepcliError(
                f"{self.name}: cannot be written ({reason.rstrip('. ')}); "
                "check that there is room, or choose another format"
            ) from None


def write(
    path: str | Path, audio: np.ndarray, sample_rate: int, *, subtype: str | None = None
) -> int:
    """Write (C, T) to `path` in the format of its extension; returns how many samples clipped.

    See `Writer` for formats, subtypes and errors.
    """
    with Writer(path, sample_rate, len(audio), subtype=subtype) as writer:
        writer.write(audio)
    return writer.clipped
