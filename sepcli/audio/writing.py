"""Writing sound: files that appear whole or not at all, and WAV or raw PCM into pipes."""

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from sepcli.audio import pcm, wav
from sepcli.audio.checks import check_finite, check_layout
from sepcli.errors import SepcliError

_ANY = ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "DOUBLE")
# extension: (libsndfile's format, its subtypes that can be chosen, the default first)
FORMATS = {
    "wav": ("WAV", (*_ANY, "PCM_U8")),
    "rf64": ("RF64", (*_ANY, "PCM_U8")),
    "w64": ("W64", (*_ANY, "PCM_U8")),
    "flac": ("FLAC", ("PCM_24", "PCM_16")),
    "ogg": ("OGG", ("VORBIS", "OPUS")),
    "oga": ("OGG", ("VORBIS", "OPUS")),
    "opus": ("OGG", ("OPUS",)),
    "mp3": ("MP3", ("MPEG_LAYER_III",)),
    "aiff": ("AIFF", _ANY),
    "aif": ("AIFF", _ANY),
    "au": ("AU", _ANY),
    "snd": ("AU", _ANY),
    "caf": ("CAF", _ANY),
}
_RATES = {
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_MOST_CHANNELS = {"MP3": 2, "FLAC": 8}
_PIECE = 1 << 15  # frames per call: libsndfile's Vorbis encoder overflows its stack on long ones


def _choose(name, extension, subtype, sample_rate, channels):
    """Return libsndfile's (format, subtype), or say what would be possible."""
    check_layout(name, sample_rate, channels)
    if extension not in FORMATS:
        raise SepcliError(
            f"{name}: unknown sound format {extension!r}; choose from {', '.join(FORMATS)}"
        )
    format, subtypes = FORMATS[extension]
    subtype = subtype.upper() if subtype else subtypes[0]
    if subtype not in subtypes:
        raise SepcliError(
            f"{name}: {extension} does not hold {subtype}; choose from {', '.join(subtypes)}"
        )
    rates = _RATES.get(subtype, (sample_rate,))
    if sample_rate not in rates:
        raise SepcliError(
            f"{name}: {extension} does not hold {sample_rate} Hz; "
            f"resample to one of {', '.join(map(str, rates))} Hz"
        )
    most = _MOST_CHANNELS.get(format, channels)
    if channels > most:
        raise SepcliError(
            f"{name}: {extension} holds up to {most} channels, not {channels}; choose wav instead"
        )
    return format, subtype


class _Plain:
    """WAV, RF64 or raw PCM into a binary file; only a real file gets its sizes filled in."""

    def __init__(self, file, streaming, sample_rate, channels, format, encoding):
        self._file, self._streaming, self._encoding = file, streaming, encoding
        self._layout = (encoding, sample_rate, channels)
        self._always_rf64 = format == "RF64"
        self._data_bytes = 0
        self._has_header = format != "RAW"
        if self._has_header:
            file.write(wav.header_bytes(*self._layout, reserve=not streaming))
        if streaming:
            file.flush()

    def write(self, block):
        data = pcm.pack(block, self._encoding)
        self._file.write(data)
        self._data_bytes += len(data)
        if self._streaming:
            self._file.flush()

    def finish(self):
        if self._streaming:
            return
        self._file.write(b"\0" * (self._data_bytes % 2))  # chunks have even lengths
        rf64 = self._always_rf64 or self._file.tell() - 8 > wav.RIFF_LIMIT
        self._file.seek(0)
        self._file.write(wav.header_bytes(*self._layout, self._data_bytes, reserve=True, rf64=rf64))


class _Coded:
    """Any other format, by libsndfile, which has to seek: a stream gets a copy at the end."""

    def __init__(self, file, streaming, sample_rate, channels, format, subtype):
        self._stream = file if streaming else None
        self._file = tempfile.TemporaryFile() if streaming else file
        self._sound = soundfile.SoundFile(
            self._file.fileno(), "w", sample_rate, channels, subtype, format=format, closefd=False
        )

    def write(self, block):
        for start in range(0, block.shape[1], _PIECE):
            self._sound.write(np.ascontiguousarray(block[:, start : start + _PIECE].T))  # (n, C)

    def finish(self):
        self._sound.close()
        if self._stream is not None:
            self._file.seek(0)
            shutil.copyfileobj(self._file, self._stream)
            self._stream.flush()

    def close(self):
        self._sound.close()
        if self._stream is not None:
            self._file.close()


class Writer:
    """Write blocks of (C, T) to a path or a binary stream; a context manager.

    A path gets the format of its extension (or `format`, a key of FORMATS) and `subtype`, one of
    those that format holds: FLOAT unless told otherwise, PCM_24 for FLAC. The file appears under
    its name when the `with` block ends without an exception, and not at all otherwise. WAV files
    past 4 GiB become RF64. A stream gets a WAV whose sizes say "unknown", or raw PCM when
    `encoding` (e.g. s16le) is given, flushed at every write; other formats arrive at the end.

    `clipped` counts the samples beyond [-1, 1] that an integer subtype had to clamp. Raises
    SepcliError on a format, subtype, rate or channel count that do not go together, on NaN and
    Inf, and when the disk is full.
    """

    def __init__(self, target, sample_rate, channels, *, subtype=None, format=None, encoding=None):
        is_path = isinstance(target, str | os.PathLike)
        self.name = os.fspath(target) if is_path else "standard output"
        self.sample_rate, self.channels = sample_rate, channels
        self.clipped = self._frames = 0
        if encoding is not None:
            container, subtype = "RAW", pcm.SUBTYPES[encoding]
        else:
            extension = format or (Path(target).suffix[1:].lower() if is_path else "wav")
            container, subtype = _choose(self.name, extension, subtype, sample_rate, channels)
        self._clamps = subtype.startswith("PCM")
        self._path = self._part = None
        self._opened = contextlib.ExitStack()
        with self._explained(), contextlib.ExitStack() as on_error:
            on_error.callback(self._discard)
            file, streaming = self._open(Path(target)) if is_path else (target, True)
            layout = (file, streaming, sample_rate, channels, container)
            if container in ("WAV", "RF64", "RAW"):
                self._sink = _Plain(*layout, pcm.ENCODINGS[subtype])
            else:
                self._sink = _Coded(*layout, subtype)
                self._opened.callback(self._sink.close)
            on_error.pop_all()

    def _open(self, path):
        """Return (file, whether it is a pipe or a device)."""
        if path.exists() and not path.is_file() and not path.is_dir():
            return self._opened.enter_context(open(path, "wb")), True
        if path.is_dir():
            raise SepcliError(f"{self.name}: a folder; name a file in it")
        self._path = Path(os.path.realpath(path))  # a link stays a link
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        file = self._opened.enter_context(open(part, "xb+"))
        self._part = part
        return file, False

    @contextlib.contextmanager
    def _explained(self):
        """Turn what the system complains about into one line; a closed pipe stays what it is."""
        try:
            yield
        except BrokenPipeError:
            raise
        except FileNotFoundError:
            raise SepcliError(
                f"{self.name}: its folder does not exist; make it first: "
                f"mkdir -p {os.path.dirname(self.name)}"
            ) from None
        except OSError as error:
            raise SepcliError(
                f"{self.name}: cannot be written ({error.strerror}); "
                "make room, or choose another place"
            ) from None
        except soundfile.LibsndfileError as error:
            raise SepcliError(
                f"{self.name}: cannot be written ({error.error_string.rstrip('. ')}); "
                "make room, or choose another format"
            ) from None

    def write(self, block):
        """Append float (C, n); values beyond [-1, 1] are clamped by integer subtypes."""
        if block.ndim != 2 or len(block) != self.channels:
            raise ValueError(f"expected ({self.channels}, samples), got shape {block.shape}")
        check_finite(self.name, block, self.sample_rate, start=self._frames)
        if self._clamps:
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
        with self._explained():
            self._sink.write(block)
        self._frames += block.shape[1]

    def close(self):
        """Finish the file and put it under its name; needed only without `with`."""
        with self._explained(), contextlib.ExitStack() as always:
            always.callback(self._discard)
            self._sink.finish()
            self._opened.close()
            if self._part is not None:
                os.replace(self._part, self._path)
                self._part = None

    def _discard(self):
        self._opened.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.close()
        else:
            self._discard()


def write(path, audio, sample_rate, *, subtype=None):
    """Write (C, T) to `path`, in the format of its extension; returns how many samples clipped.

    See `Writer` for formats, subtypes and errors.
    """
    with Writer(path, sample_rate, len(audio), subtype=subtype) as writer:
        writer.write(audio)
    return writer.clipped
