"""Reading sound: files of every format libsndfile knows, pipes of WAV, raw PCM or anything else."""

import contextlib
import io
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass

import numpy as np
import soundfile

from sepcli.audio import pcm, wav
from sepcli.audio.checks import check_finite, check_layout
from sepcli.audio.resample import resample as _resample
from sepcli.audio.streams import read_fully, read_some
from sepcli.errors import SepcliError

AUDIO_EXTENSIONS = frozenset(
    [".wav", ".wave", ".rf64", ".bw64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"]
)
_PIECE = 1 << 18  # frames converted at a time when a file is read whole


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says; `frames` is the length per channel."""

    frames: int
    sample_rate: int  # Hz
    channels: int
    format: str  # libsndfile's name, e.g. "WAV"
    subtype: str  # libsndfile's name, e.g. "PCM_16"


class Reader:
    """An open sound, read forward in blocks of float32 (C, n); a context manager.

    Attributes: `name`, `sample_rate` (Hz), `channels`, `frames` (None when not known before the
    end), `format` and `subtype` (libsndfile's names).
    """

    def __init__(self, name, sample_rate, channels, frames, format, subtype):
        self.name, self.sample_rate, self.channels = name, sample_rate, channels
        self.frames, self.format, self.subtype = frames, format, subtype
        self._position = 0  # frames handed out or skipped
        self._resources = contextlib.ExitStack()
        check_layout(name, sample_rate, channels)

    def read(self, frames, *, exact=True):
        """Return the next (C, n): n = `frames` except at the end, where it may be less, then 0.

        With `exact=False`, return as soon as a pipe has at least one frame. Raises SepcliError
        when the sound is cut off or holds NaN or Inf.
        """
        if self.frames is not None:
            frames = min(frames, self.frames - self._position)
        block = self._read(frames, exact) if frames > 0 else self._end()
        check_finite(self.name, block, self.sample_rate, start=self._position)
        self._position += block.shape[1]
        return block

    def blocks(self, frames, *, exact=True):
        """Yield (C, n) until the end; see `read`."""
        while (block := self.read(frames, exact=exact)).shape[1]:
            yield block

    def skip(self, frames):
        """Pass over `frames` frames: by seeking in a file, by reading in a pipe."""
        while frames > 0 and (count := self.read(min(frames, _PIECE)).shape[1]):
            frames -= count

    def _read(self, frames, exact):
        raise NotImplementedError

    def _end(self):
        return np.empty((self.channels, 0), np.float32)

    def _cut_off(self, present):
        return SepcliError(
            f"{self.name}: cut off, {present} of {self.frames} frames are there; "
            "copy or record it again"
        )

    def close(self):
        self._resources.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class _PcmReader(Reader):
    """Plain samples in a byte stream, after a WAV header or without any."""

    def __init__(self, stream, encoding, *, data_offset=None, **layout):
        super().__init__(subtype=pcm.SUBTYPES[encoding], **layout)
        self._stream, self._encoding = stream, encoding
        self._frame_bytes = pcm.WIDTHS[encoding] * self.channels
        self._data_offset = data_offset  # where the stream can seek

    def _read(self, frames, exact):
        wanted = frames * self._frame_bytes
        data = (read_fully if exact else read_some)(self._stream, wanted)
        if partial := len(data) % self._frame_bytes:
            data += read_fully(self._stream, self._frame_bytes - partial)
        count, rest = divmod(len(data), self._frame_bytes)
        if self.frames is not None and (rest or not data or (exact and count < frames)):
            raise self._cut_off(self._position + count)
        if rest:
            raise SepcliError(
                f"{self.name}: ends in the middle of a frame ({rest} of {self._frame_bytes} bytes)"
                "; check channels and encoding, or that the program before it finished"
            )
        return pcm.unpack(data, self._encoding, self.channels)

    def skip(self, frames):
        if self._data_offset is None:
            return super().skip(frames)
        self._position = min(self._position + frames, self.frames)
        self._stream.seek(self._data_offset + self._position * self._frame_bytes)


class _CodedReader(Reader):
    """Everything that libsndfile decodes, from a file that can seek."""

    def __init__(self, name, source):
        try:
            self._file = soundfile.SoundFile(source)
        except soundfile.LibsndfileError as error:
            raise _unreadable(name, source, error) from None
        file = self._file
        super().__init__(
            name, file.samplerate, file.channels, file.frames, file.format, file.subtype
        )
        self._resources.enter_context(file)

    def _read(self, frames, exact):
        try:
            block = self._file.read(frames, dtype="float32", always_2d=True).T  # (C, n)
        except soundfile.LibsndfileError as error:
            raise SepcliError(
                f"{self.name}: damaged near {self._position / self.sample_rate:.1f} s "
                f"({error.error_string.rstrip('.')}); copy or record it again"
            ) from None
        if block.shape[1] < frames:
            raise self._cut_off(self._position + block.shape[1])
        return np.ascontiguousarray(block)

    def skip(self, frames):
        self._position = min(self._position + frames, self.frames)
        self._file.seek(self._position)


def _unreadable(name, source, error):
    return SepcliError(
        f"{name}: not audio that can be read here; convert it first: ffmpeg -i {name} out.wav"
    )


def open_blocks(source, *, name=None, encoding=None, sample_rate=None, channels=None):
    """Open a path or a readable binary stream for reading in blocks; returns a `Reader`.

    A stream needs no seek: WAV and raw PCM are read as they arrive, any other format is first
    copied to a temporary file. Raw PCM needs `encoding` (u8, s16le, s24le, s32le, f32le, f64le),
    `sample_rate` and `channels`. Errors call a stream `name`.
    """
    if isinstance(source, str | os.PathLike):
        name = name or os.fspath(source)
        stream = _open_file(source, name)
    else:
        name = name or "standard input"
        stream = source
    opened = contextlib.ExitStack()
    if stream is not source:
        opened.enter_context(stream)
    with opened:
        if encoding is not None:
            reader = _open_raw(stream, name, encoding, sample_rate, channels)
        else:
            reader = _open_sniffed(stream, name)
        reader._resources.push(opened.pop_all())
    return reader


def _open_file(path, name):
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise SepcliError(f"{name}: no such file; check the spelling") from None
    except IsADirectoryError:
        raise SepcliError(f"{name}: a folder, not a file; name a file in it") from None
    except PermissionError:
        raise SepcliError(f"{name}: may not be read; change its permissions") from None
    except OSError as error:
        raise SepcliError(f"{name}: {error.strerror}; check that it can be read") from None


def _open_raw(stream, name, encoding, sample_rate, channels):
    if encoding not in pcm.WIDTHS:
        raise ValueError(f"unknown encoding {encoding!r}; known: {', '.join(pcm.WIDTHS)}")
    return _PcmReader(
        stream,
        encoding,
        name=name,
        sample_rate=sample_rate,
        channels=channels,
        frames=None,
        format="RAW",
    )


def _regular_size(stream):
    """Bytes in a regular file, or None for pipes and everything else."""
    try:
        status = os.fstat(stream.fileno())
    except (AttributeError, OSError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Replay:
    """A stream with some bytes put back in front."""


def _open_sniffed(stream, name):
    from sepcli.audio.streams import Peekable

    size = _regular_size(stream)
    ahead = stream if isinstance(stream, Peekable) else Peekable(stream)
    head = ahead.peek(12)
    if not head:
        raise SepcliError(f"{name}: empty (0 bytes); check what wrote it")
    if head[:4] in wav.MAGICS:
        header = wav.read_header(ahead.read, name)
        if header.encoding is not None:
            frame = pcm.WIDTHS[header.encoding] * header.channels
            present = None if size is None else size - header.data_offset
            promised = header.data_bytes
            if present is not None:
                if promised is None:
                    promised = present
                elif promised > present:
                    raise SepcliError(
                        f"{name}: cut off, {present // frame} of {promised // frame} frames are "
                        "there; copy or record it again"
                    )
            if size is not None:
                stream.seek(header.data_offset)
            return _PcmReader(
                ahead if size is None else stream,
                header.encoding,
                data_offset=None if size is None else header.data_offset,
                name=name,
                sample_rate=header.sample_rate,
                channels=header.channels,
                frames=None if promised is None else promised // frame,
                format="WAV" if header.magic == b"RIFF" else "RF64",
            )
    if size is not None:
        stream.seek(0)
        return _CodedReader(name, stream)
    spool = tempfile.TemporaryFile()
    shutil.copyfileobj(ahead, spool)
    spool.seek(0)
    reader = _CodedReader(name, spool)
    reader._resources.enter_context(spool)
    return reader


def info(path):
    """Return the `AudioInfo` of a file without reading its samples."""
    with open_blocks(path) as reader:
        return AudioInfo(
            reader.frames, reader.sample_rate, reader.channels, reader.format, reader.subtype
        )


def read(path, *, start=0, stop=None, sample_rate=None):
    """Read a file, or the frames [start, stop) of it; returns (float32 (C, T), sample rate).

    `start` and `stop` count frames at the file's rate; the rest is not read. The sound is
    resampled to `sample_rate` if that is given. Raises SepcliError for files that are missing,
    not audio, empty, cut off, or hold NaN or Inf.
    """
    with open_blocks(path) as reader:
        reader.skip(start)
        pieces = []
        left = float("inf") if stop is None else stop - start
        while left > 0 and (block := reader.read(min(left, _PIECE))).shape[1]:
            pieces.append(block)
            left -= block.shape[1]
        audio = np.concatenate(pieces, axis=1) if pieces else reader._end()
        rate = reader.sample_rate
    if sample_rate is None:
        return audio, rate
    return _resample(audio, rate, sample_rate), sample_rate


def decode(data, name):
    """Decode the bytes of a sound file; returns (float32 (C, T), sample rate).

    Raises SepcliError, calling the bytes `name`, for the same reasons as `read`.
    """
    if data[:4] in wav.MAGICS and (decoded := wav.decode_wav(data, name)):
        return decoded
    if not data:
        raise SepcliError(f"{name}: empty (0 bytes); check what wrote it")
    with _CodedReader(name, io.BytesIO(data)) as reader:
        return reader.read(reader.frames), reader.sample_rate
