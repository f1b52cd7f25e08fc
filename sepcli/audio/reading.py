"""Reading sound: files of every format, and pipes of WAV or raw PCM."""

import contextlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sepcli.audio.decoders import PIECE, PcmDecoder
from sepcli.audio.opening import check_same, open_sounds
from sepcli.audio.streams import Peekable
from sepcli.audio.tracks import split_track
from sepcli.containers import chunks, wav
from sepcli.containers.pieces import Bytes
from sepcli.errors import SepcliError, is_lenient, note
from sepcli.files import Place
from sepcli.signals.checks import check_finite, check_layout, told_too_little
from sepcli.signals.resampling import resample

_DAMAGED = "its header is damaged, make it again"


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

    Attributes: `name`, `sample_rate` (Hz), `channels`, `frames` (None when that is not known before
    the end), `format` and `subtype` (libsndfile's names).
    """

    def __init__(self, name: str, decoders: Any) -> None:
        """decoders: an iterator of `Decoder`s, each of which is read before the next is taken."""
        self.name, self._decoders, self._decoder = name, decoders, next(decoders)
        self._first = first = self._decoder
        check_layout(name, first.sample_rate, first.channels, remedy=_DAMAGED)
        self.sample_rate, self.channels = first.sample_rate, first.channels
        self.format, self.subtype, self.frames = first.format, first.subtype, first.frames
        self._position = 0  # frames handed out or skipped
        self._resources = []  # what is closed with it

    def read(self, frames: int, *, exact: bool = True) -> np.ndarray:
        """Return the next (C, n): n = `frames`, or less at the end, then 0.

        With `exact=False`, return as soon as a pipe delivers at least one frame. Raises
        SepcliError when the sound is cut off, damaged, or holds NaN or infinity.
        """
        pieces, missing = [], frames
        while missing > 0 and self._decoder is not None:
            block = self._decoder.read(missing, exact)
            if not block.shape[1]:
                self._go_on()
                continue
            if not self._decoder.subtype.startswith("PCM_"):  # integers are finite
                check_finite(self.name, block, self.sample_rate, start=self._position)
            self._position += block.shape[1]
            pieces.append(block)
            missing -= block.shape[1]
            if not exact:
                break
        return self._joined(pieces)

    def _joined(self, pieces):
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((self.channels, 0), np.float32), *pieces], axis=1)

    def _go_on(self):
        """Turn from a decoder that is at its end to the next one, if any."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = next(self._decoders, None)
        if self._decoder is not None:
            check_same(self._first, self._decoder)

    def blocks(self, frames: int, *, exact: bool = True) -> Iterator[np.ndarray]:
        """Yield (C, n) until the end; see `read`."""
        while (block := self.read(frames, exact=exact)).shape[1]:
            yield block

    def skip(self, frames: int) -> None:
        """Pass over `frames` frames, or to the end: by seeking in a file, reading in a pipe."""
        while frames > 0 and self._decoder is not None:
            passed = self._decoder.skip(frames)
            self._position += passed
            frames -= passed
            if frames > 0:
                self._go_on()

    def rest(self, frames: float = float("inf")) -> np.ndarray:
        """Return all that is left, (C, n), or the next `frames` of it; see `read`."""
        pieces = []
        while frames > 0 and (block := self.read(int(min(frames, PIECE)))).shape[1]:
            pieces.append(block)
            frames -= block.shape[1]
        return self._joined(pieces)

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        for resource in self._resources:
            resource.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


def open_blocks(
    source: Any,
    *,
    name: str | None = None,
    encoding: str | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    strict: bool | None = None,
) -> Reader:
    """Open a path, bytes in an io.BytesIO or a binary stream for reading in blocks; a `Reader`.

    A stream needs no seek: WAV and raw PCM are read as they arrive, any other format is first
    copied to a temporary file. Raw PCM needs `encoding` (u8, s16le, s24le, s32le, f32le, f64le),
    `sample_rate` and `channels`. Errors call a stream `name`. Sounds that follow each other in a
    file are read as one; of a file with several audio tracks the first is read, or track N, from 0
    on, of the path FILE.mp4#N.

    Raises SepcliError when there is no such file, or it is not sound, empty, cut off or absurd, or
    holds more than would be read. With `strict=False`, what is cut off or damaged is read as far as
    it goes, with a note (`errors.note`); None is what `errors.is_lenient` says.
    """
    layout = None if encoding is None else (encoding, sample_rate, channels)
    if not isinstance(source, str | os.PathLike):
        return _open(source, name or "standard input", layout, _complain(strict))
    path = os.fspath(source)
    file = _open_file(split_track(path)[0])
    try:
        reader = _open(file, path, layout, _complain(strict), os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    reader._resources.append(file)
    return reader


def _open(source: Any, name, layout: Any, complain, status=None):
    """A `Reader` of a stream, of bytes, or of a file with its `status`; see `open_blocks`."""
    if layout is not None:
        encoding, sample_rate, channels = layout
        check_layout(name, sample_rate, channels, remedy="say what it is")
        decoder = PcmDecoder(name, source, encoding, sample_rate, channels, complain)
        return Reader(name, iter([decoder]))
    if status is not None and stat.S_ISREG(status.st_mode):
        return _open_seekable(source, status.st_size, name, complain)
    if isinstance(source, io.BytesIO):
        data = source.getvalue()
        return _open_seekable(Bytes(data), len(data), name, complain)
    return _open_stream(source, name, complain)


def _complain(strict=None):
    """What is done about a sound that is cut off or damaged."""
    return _tell if (is_lenient() if strict is None else not strict) else _raise


def _raise(error):
    raise error


def _tell(error):
    note(f"{error}; read up to there")


def _open_file(name):
    try:
        return open(name, "rb", buffering=0)
    except FileNotFoundError:
        if "://" in name:
            raise SepcliError(
                f"{name}: an address, not a file; fetch it first: curl -LO {name}"
            ) from None
        raise SepcliError(f"{name}: no such file; check its spelling") from None
    except IsADirectoryError:
        raise SepcliError(f"{name}: a folder; name a file in it") from None
    except PermissionError:
        raise SepcliError(f"{name}: permission denied; change its permissions") from None
    except OSError as error:
        raise SepcliError(f"{name}: {error.strerror}; check that it can be read") from None
    except ValueError:  # characters that no file system has
        raise SepcliError(f"{name}: not the name of a file; check its spelling") from None


def _open_seekable(file, size, name, complain):
    """A `Reader` of all sounds in a seekable file of `size` bytes."""
    if not size:
        raise _empty(name)
    decoders, frames = open_sounds(file, size, name, complain)
    reader = Reader(name, decoders)
    reader.frames = frames
    if reader.frames == 0:
        reader.close()
        raise _without_samples(name)
    return reader


def _empty(name):
    return SepcliError(f"{name}: empty (0 bytes); check the program that wrote it")


def _open_stream(stream, name, complain):
    if not isinstance(stream, Peekable):
        stream = Peekable(stream)
    if not (head := stream.peek(4)):
        raise _empty(name)
    if head in wav.MAGICS:
        stream.record()
        header = wav.read_header(stream, name)
        if header.encoding and not header.wide:
            stream.forget()
            return Reader(name, _wavs_in(stream, header, name, complain))
        stream.rewind()
    return _open_spooled(stream, name, complain)


def _wavs_in(stream, header: Any, name, complain):
    """Yield a decoder of the samples behind a header; and then of others, as they come."""
    while True:
        layout = (header.encoding, header.sample_rate, header.channels)
        length = header.data_bytes
        frames = None if length is None else length // header.frame_bytes
        yield PcmDecoder(name, stream, *layout, complain, frames=frames, container=header.container)
        if length is None:
            return
        stream.skip(length % header.frame_bytes)
        follows = chunks.next_sound(stream, odd=length % 2 == 1)
        if follows == "data":
            header = replace(header, data_bytes=chunks.read_length(stream))
        elif follows == "wav":
            header = wav.read_header(stream, name)
            if not header.encoding or header.wide:
                raise SepcliError(f"{name}: a compressed WAV after another WAV; save it to a file")
        elif follows == "audio":
            raise SepcliError(f"{name}: audio of another format after a WAV; save it to a file")
        else:
            if follows == "junk":
                complain(told_too_little(name, header.data_offset + header.data_bytes))
            return


def _open_spooled(stream, name, complain):
    """Copy a stream to a temporary file, because decoders have to seek."""
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
        reader = _open_seekable(spool, size, name, complain)
        reader._resources.append(opened.pop_all())
    return reader


def info(path: Place) -> AudioInfo:
    """Return the `AudioInfo` of a file: from its header, or by decoding if that has no length."""
    with open_blocks(path) as reader:
        layout = (reader.sample_rate, reader.channels, reader.format, reader.subtype)
        frames = reader.frames
        if frames is None:
            frames = sum(block.shape[1] for block in reader.blocks(PIECE))
    return AudioInfo(frames, *layout)


def read(
    path: Place, *, start: int = 0, stop: int | None = None, sample_rate: int | None = None
) -> tuple[np.ndarray, int]:
    """Read a file, or its frames [start, stop); returns (float32 (C, T), sample rate).

    `start` and `stop` count frames at the file's own rate and end at its end, as in a slice; the
    other frames are not read (but for an MP3 below 32 kHz and what `foreign` decodes, which are
    decoded from the start). The sound is resampled to `sample_rate` if given. Raises SepcliError
    for files that are missing, not sound, empty, cut off, absurd, or hold NaN or infinity where
    they are read.
    """
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"expected 0 <= start <= stop, got {start} and {stop}")
    with open_blocks(path) as reader:
        audio, rate = _between(reader, start, stop), reader.sample_rate
    if sample_rate is None:
        return audio, rate
    return resample(audio, rate, sample_rate), sample_rate


def _between(reader, start, stop):
    """Frames [start, stop) of what was just opened."""
    reader.skip(start)
    return reader.rest() if stop is None else reader.rest(stop - start)


def decode(
    data: bytes, name: str, *, start: int = 0, stop: int | None = None
) -> tuple[np.ndarray, int]:
    """Decode the bytes of a sound file, or its frames [start, stop): (float32 (C, T), sample rate).

    Raises SepcliError, calling the bytes `name`, for the same reasons as `read`.
    """
    decoded = wav.decode_wav(data, name) if data[:4] in wav.MAGICS else None
    if decoded is not None and decoded[0].size:
        return decoded[0][:, start:stop], decoded[1]
    with _open_seekable(Bytes(data), len(data), name, _complain()) as reader:
        signal, rate = _between(reader, start, stop), reader.sample_rate
    if signal.shape[1] == 0 and start == 0 and stop != 0:
        raise _without_samples(name)
    return signal, rate


def _without_samples(name):
    return SepcliError(f"{name}: no sound in it (0 samples); check the program that wrote it")
