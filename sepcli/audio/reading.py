"""Reading sound: files of every format libsndfile knows, and pipes of WAV or raw PCM."""

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass

import numpy as np
import soundfile

from sepcli.audio import coded, mp3, pcm, wav
from sepcli.audio.checks import check_finite, check_layout, damaged, too_short
from sepcli.audio.resample import resample
from sepcli.audio.streams import Peekable, read_fully, read_some
from sepcli.errors import SepcliError

AUDIO_EXTENSIONS = frozenset(
    {".wav", ".wave", ".rf64", ".bw64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"}
)
_PIECE = 1 << 18  # frames read at a time where the header's length is not to be trusted


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

    Attributes: `name`, `sample_rate` (Hz), `channels`, `frames` (None when a pipe does not tell
    before its end), `format` and `subtype` (libsndfile's names).
    """

    def __init__(self, name, sample_rate, channels, frames, container, subtype):
        check_layout(name, sample_rate, channels, remedy="its header is damaged, make it again")
        self.name, self.sample_rate, self.channels = name, sample_rate, channels
        self.frames, self.format, self.subtype = frames, container, subtype
        self._position = 0  # frames handed out or skipped
        self._resources = contextlib.ExitStack()

    def read(self, frames, *, exact=True):
        """Return the next (C, n): n = `frames`, or less at the end, then 0.

        With `exact=False`, return as soon as a pipe delivers at least one frame. Raises
        SepcliError when the sound is cut off, damaged, or holds NaN or infinity.
        """
        if self.frames is not None:
            frames = min(frames, self.frames - self._position)
        if frames <= 0:
            if self._position == self.frames:
                self._check_end()
            return np.empty((self.channels, 0), np.float32)
        block = self._read(frames, exact)
        if not self.subtype.startswith("PCM_"):  # integers are finite
            check_finite(self.name, block, self.sample_rate, start=self._position)
        self._position += block.shape[1]
        return block

    def blocks(self, frames, *, exact=True):
        """Yield (C, n) until the end; see `read`."""
        while (block := self.read(frames, exact=exact)).shape[1]:
            yield block

    def skip(self, frames):
        """Pass over `frames` frames, or to the end: by seeking in a file, reading in a pipe."""
        while frames > 0 and (passed := self.read(min(frames, _PIECE)).shape[1]):
            frames -= passed

    def rest(self, frames=float("inf")):
        """Return all that is left, (C, n), or the next `frames` of it; see `read`."""
        pieces = []
        while frames > 0 and (block := self.read(int(min(frames, _PIECE)))).shape[1]:
            pieces.append(block)
            frames -= block.shape[1]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((self.channels, 0), np.float32), *pieces], axis=1)

    def close(self):
        self._resources.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _read(self, frames, exact):
        """Return at least one of the next `frames` > 0 frames, (C, n); (C, 0) at the end."""
        raise NotImplementedError

    def _check_end(self):
        """Called when all `self.frames` were read."""

    def _too_short(self, present):
        return too_short(self.name, self._position + present, self.frames)


class _PcmReader(Reader):
    """Plain samples in a binary stream, after a WAV header or without any."""

    def __init__(self, name, stream, encoding, sample_rate, channels, *, header=None, size=None):
        self._stream, self._encoding, self._header = stream, encoding, header
        subtype = pcm.subtype_of(encoding)
        self._frame_bytes = pcm.WIDTHS[encoding] * channels
        self._can_seek = size is not None
        data_bytes = header and header.data_bytes
        if size is not None and data_bytes is None:
            data_bytes = size - header.data_offset
        frames = None if data_bytes is None else data_bytes // self._frame_bytes
        container = "RAW" if header is None else "RF64" if header.magic != b"RIFF" else "WAV"
        super().__init__(name, sample_rate, channels, frames, container, subtype)
        if size is not None and header.data_offset + data_bytes > size:
            raise self._too_short((size - header.data_offset) // self._frame_bytes)

    def _read(self, frames, exact):
        read = read_fully if exact else read_some
        data = read(self._stream, frames * self._frame_bytes)
        if partial := len(data) % self._frame_bytes:
            data += read_fully(self._stream, self._frame_bytes - partial)
        count, partial = divmod(len(data), self._frame_bytes)
        if self.frames is not None and (partial or count == 0 or (exact and count < frames)):
            raise self._too_short(count)
        if partial:
            raise SepcliError(
                f"{self.name}: ends in the middle of a frame ({partial} of {self._frame_bytes} "
                "bytes are there); check its channels and encoding, and that its writer finished"
            )
        return pcm.unpack(data, self._encoding, self.channels)

    def _check_end(self):
        if self._can_seek or self._header is None:
            return
        left = self._header.data_bytes - self.frames * self._frame_bytes
        wav.skip_bytes(self._stream.read, left + self._header.data_bytes % 2)
        wav.check_tail(self._stream.read, self.name)

    def skip(self, frames):
        if not self._can_seek:
            return super().skip(frames)
        self._position = min(self._position + frames, self.frames)
        self._stream.seek(self._header.data_offset + self._position * self._frame_bytes)


class _CodedReader(Reader):
    """What libsndfile decodes, from a seekable file of `size` bytes."""

    def __init__(self, name, file, size):
        self._sound = sound = coded.open_coded(file, size, name)
        frames = sound.frames if sound.frames < coded.LONGEST else None
        layout = (sound.samplerate, sound.channels, frames, sound.format, sound.subtype)
        with contextlib.ExitStack() as on_error:
            on_error.enter_context(sound)
            super().__init__(name, *layout)
            self._resources.push(on_error.pop_all())

    def _read(self, frames, exact):
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True).T  # (C, n)
        except soundfile.LibsndfileError as error:
            raise damaged(self.name, f"or cut off: {coded.reason(error)}") from None
        missing = frames - block.shape[1] if self.frames is not None else 0
        if missing > (2 * mp3.FRAME if self.format == "MP3" else 0):
            raise self._too_short(block.shape[1])
        if missing:
            self.frames = self._position + block.shape[1]
        return np.ascontiguousarray(block)

    def skip(self, frames):
        # After a seek libmpg123 lacks the frames that an MP3's next ones draw on. A few frames of
        # preroll help from 32 kHz on; below that some samples stay wrong, so decode them all.
        is_mp3 = self.format == "MP3"
        if frames <= 0 or (is_mp3 and self.sample_rate < 32000):
            return super().skip(frames)
        preroll = min(frames, 10 * mp3.FRAME) if is_mp3 else 0
        target = self._position + frames - preroll
        self._position = target if self.frames is None else min(target, self.frames)
        try:
            self._sound.seek(self._position)
        except soundfile.LibsndfileError as error:
            raise damaged(self.name, f"or cut off: {coded.reason(error)}") from None
        super().skip(preroll)


def open_blocks(source, *, name=None, encoding=None, sample_rate=None, channels=None):
    """Open a path or a readable binary stream for reading in blocks; returns a `Reader`.

    A stream needs no seek: WAV and raw PCM are read as they arrive, any other format is first
    copied to a temporary file. Raw PCM needs `encoding` (u8, s16le, s24le, s32le, f32le, f64le),
    `sample_rate` and `channels`. Errors call a stream `name`. Raises SepcliError when there is
    no such file, or it is not sound, empty, cut off or absurd.
    """
    with contextlib.ExitStack() as opened:
        size = None
        if isinstance(source, str | os.PathLike):
            name = os.fspath(source)
            source = opened.enter_context(_open_file(name))
            status = os.fstat(source.fileno())
            size = status.st_size if stat.S_ISREG(status.st_mode) else None
        name = name or "standard input"
        if encoding is not None:
            reader = _PcmReader(name, source, encoding, sample_rate, channels)
        elif size is not None:
            reader = _open_seekable(source, size, name)
            if reader.frames == 0:
                raise _without_samples(name)
        else:
            reader = _open_stream(source, name)
        reader._resources.push(opened.pop_all())
    return reader


def _open_file(name):
    try:
        return open(name, "rb")
    except FileNotFoundError:
        raise SepcliError(f"{name}: no such file; check its spelling") from None
    except IsADirectoryError:
        raise SepcliError(f"{name}: a folder; name a file in it") from None
    except PermissionError:
        raise SepcliError(f"{name}: may not be read; change its permissions") from None
    except OSError as error:
        raise SepcliError(f"{name}: {error.strerror}; check that it can be read") from None


def _is_wav(head, name):
    if not head:
        raise SepcliError(f"{name}: empty (0 bytes); check what wrote it")
    return head in wav.MAGICS


def _open_seekable(file, size, name):
    if _is_wav(file.read(4), name):
        file.seek(0)
        header = wav.read_header(file.read, name)
        if header.encoding is not None:
            layout = (header.encoding, header.sample_rate, header.channels)
            return _PcmReader(name, file, *layout, header=header, size=size)
    return _CodedReader(name, file, size)


def _open_stream(stream, name):
    if not isinstance(stream, Peekable):
        stream = Peekable(stream)
    if not _is_wav(stream.peek(4), name):
        return _open_spooled(stream, name)
    header = wav.read_header(stream.read, name)
    if header.encoding is None:
        raise SepcliError(
            f"{name}: a compressed WAV, which is not read from a pipe; save it to a file first"
        )
    layout = (header.encoding, header.sample_rate, header.channels)
    return _PcmReader(name, stream, *layout, header=header)


def _open_spooled(stream, name):
    """Copy a stream to a temporary file, because libsndfile has to seek."""
    try:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            size = copy.tell()
            copy.flush()
            # Unbuffered, for libsndfile moves the descriptor behind any buffer's back.
            spool = os.fdopen(os.dup(copy.fileno()), "rb", buffering=0)
    except OSError as error:
        raise SepcliError(
            f"{name}: no temporary copy in {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder with more room"
        ) from None
    with contextlib.ExitStack() as opened:
        opened.enter_context(spool)
        reader = _CodedReader(name, spool, size)
        reader._resources.push(opened.pop_all())
    return reader


def info(path):
    """Return the `AudioInfo` of a file: from its header, or by decoding if that has no length."""
    with open_blocks(path) as reader:
        layout = (reader.sample_rate, reader.channels, reader.format, reader.subtype)
        frames = reader.frames
        if frames is None:
            frames = sum(block.shape[1] for block in reader.blocks(_PIECE))
    return AudioInfo(frames, *layout)


def read(path, *, start=0, stop=None, sample_rate=None):
    """Read a file, or its frames [start, stop); returns (float32 (C, T), sample rate).

    `start` and `stop` count frames at the file's own rate and end at its end, as in a slice; the
    other frames are not read (but for an MP3 below 32 kHz, decoded from its start). The sound is
    resampled to `sample_rate` if given. Raises SepcliError for files that are missing, not
    sound, empty, cut off, absurd, or hold NaN or infinity where they are read.
    """
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"expected 0 <= start <= stop, got {start} and {stop}")
    with open_blocks(path) as reader:
        reader.skip(start)
        audio = reader.rest() if stop is None else reader.rest(stop - start)
        rate = reader.sample_rate
    if sample_rate is None:
        return audio, rate
    return resample(audio, rate, sample_rate), sample_rate


def decode(data, name, *, start=0, stop=None):
    """Decode the bytes of a sound file, or its frames [start, stop): (float32 (C, T), sample rate).

    Raises SepcliError, calling the bytes `name`, for the same reasons as `read`.
    """
    decoded = wav.decode_wav(data, name) if _is_wav(data[:4], name) else None
    if decoded is not None:
        signal, rate = decoded[0][:, start:stop], decoded[1]
    else:
        with _CodedReader(name, coded.Bytes(data), len(data)) as reader:
            reader.skip(start)
            signal = reader.rest() if stop is None else reader.rest(stop - start)
            rate = reader.sample_rate
    if signal.shape[1] == 0 and start == 0 and stop != 0:
        raise _without_samples(name)
    return signal, rate


def _without_samples(name):
    return SepcliError(f"{name}: no sound in it (0 samples); check what wrote it")
