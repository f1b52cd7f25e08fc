"""WAV headers: RIFF, RF64 and BW64, in files, bytes and pipes.

Reading needs no seek, so it works on a pipe. Sizes that programs write when they do not know the
length yet mean "until the end". Sources: Microsoft's multimedia standards update (1994) for RIFF
and WAVE_FORMAT_EXTENSIBLE, EBU Tech 3306 for RF64, ITU-R BS.2088 for BW64.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli.containers.pieces import Bytes, Cursor, Scan
from sepcli.errors import SepcliError
from sepcli.signals import pcm
from sepcli.signals.checks import check_finite, check_layout, check_shape, cut_off, damaged

MAGICS = (b"RIFF", b"RF64", b"BW64")
RIFF_LIMIT = 0xFFFFFFFF  # what a 32-bit size can count; longer files become RF64
_UNKNOWN = 0xFFFFFFFF
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_INTEGERS = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}  # by bytes per sample
_FLOATS = {4: "f32le", 8: "f64le"}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_LONGEST_HEADER_CHUNK = 4096  # bytes; real ones have 16 to 40, compressed ones some more
_MOST_CHUNKS = 1000  # before the samples; gigabytes of zeros would be chunks of no length


@dataclass(frozen=True)
class Header:
    """What comes before the samples."""

    magic: bytes
    encoding: Any  # a name of `pcm`, or None for a compressed WAV
    sample_rate: int  # Hz
    channels: int
    data_bytes: Any  # None when the length is not known
    data_offset: int  # bytes from the start
    codec: int = _PCM  # a number of Microsoft's list
    wide: str | None = None  # what the encoding is if frames are as long as the header says
    bits: int = 0  # of a sample

    @property
    def container(self) -> str:
        return "WAV" if self.magic == b"RIFF" else "RF64"

    @property
    def frame_bytes(self) -> int:
        return pcm.WIDTHS[self.encoding] * self.channels


def read_header(stream: Any, name: str) -> Header:
    """Parse up to the first sample of a `streams.Peekable` or a `pieces.Cursor`.

    Raises SepcliError, naming `name`, when no program could play this.
    """
    magic, riff_size, kind = struct.unpack("<4sI4s", _exactly(stream, 12, name))
    if kind != b"WAVE":
        raise SepcliError(
            f"{name}: a RIFF file of {kind.decode('latin-1').strip()!r}, not of WAVE audio; "
            "convert it to WAV first"
        )
    offset, chunks = 12, {}
    for _ in range(_MOST_CHUNKS):
        tag, size = struct.unpack("<4sI", _exactly(stream, 8, name))
        offset += 8
        if tag == b"data":
            break
        padded = size + size % 2
        if tag in (b"fmt ", b"ds64"):
            if size > _LONGEST_HEADER_CHUNK:
                raise damaged(name, f"a WAV header chunk of {size} bytes")
            chunks[tag] = _exactly(stream, padded, name)
        else:
            stream.skip(padded)
        offset += padded
    else:
        raise damaged(name, f"a WAV header of over {_MOST_CHUNKS} chunks")
    if b"fmt " not in chunks:
        raise damaged(name, "a WAV header without a fmt chunk")
    parsed: Any = _parse_format(chunks[b"fmt "], name)
    layout, *details = parsed
    data_bytes = _data_bytes(size, riff_size, chunks.get(b"ds64", b""), offset)
    facts: Any = (magic, *layout, data_bytes, offset, *details)
    return Header(*facts)


def _exactly(stream, count, name):
    data = stream.read(count)
    if len(data) < count:
        raise cut_off(name, "the WAV header ends before any audio")
    return data


def _parse_format(fmt, name):
    """(encoding or None, sample rate, channels), codec, wide and bits of a fmt chunk's body."""
    if len(fmt) < 16:
        raise damaged(name, f"a WAV fmt chunk of {len(fmt)} bytes")
    tag, channels, sample_rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    check_layout(name, sample_rate, channels, remedy="its header is damaged, make it again")
    if tag == _EXTENSIBLE and fmt[26:40] == _GUID_TAIL:
        tag = struct.unpack_from("<H", fmt, 24)[0]
    if tag not in (_PCM, _FLOAT):
        return (None, sample_rate, channels), tag, None, bits
    encodings = _INTEGERS if tag == _PCM else _FLOATS
    encoding = encodings.get((bits + 7) // 8)
    if encoding is None:
        raise SepcliError(
            f"{name}: a WAV header of {bits} bits, {channels} channels and {block} bytes per "
            f"frame, which no format has; describe the samples: sox -t raw -r {sample_rate} "
            f"-c {channels} -e signed -b BITS IN OUT.wav"
        )
    # The size of a frame is redundant and at times wrong; libsndfile, sox and ffmpeg believe the
    # bits. But it is right where samples of, say, 24 bits lie in 4 bytes: the samples will tell.
    width = block // channels
    is_wide = tag == _PCM and bits > 8 and block % channels == 0 and width > pcm.WIDTHS[encoding]
    return (encoding, sample_rate, channels), tag, encodings.get(width) if is_wide else None, bits


def _data_bytes(size, riff_size, ds64, offset):
    """Length of the data chunk, or None for "until the end"."""
    if size == _UNKNOWN and len(ds64) >= 24:
        size = struct.unpack_from("<Q", ds64, 8)[0]
        return size if 0 < size < 2**63 else None
    if size == 0:  # empty, unless the whole header was never filled in
        return None if is_placeholder(riff_size) or riff_size <= offset - 8 else 0
    return None if is_placeholder(size) else size


def is_placeholder(size: int) -> bool:
    """Whether a 32-bit size stands for "unknown": ffmpeg, sox, arecord and others differ."""
    return 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000


def header_bytes(
    encoding: str,
    sample_rate: int,
    channels: int,
    data_bytes: int | None = None,
    *,
    patchable: bool = False,
    rf64: bool = False,
) -> bytes:
    """The bytes before the samples; sizes are 0xFFFFFFFF when `data_bytes` is None.

    The fmt chunk always has 18 bytes (sox warns about 16 for floats). A `patchable` header and
    an `rf64` header have the same length: the former keeps the place of the ds64 chunk free.
    """
    block = pcm.WIDTHS[encoding] * channels
    fmt = struct.pack(
        "<4sIHHIIHHH",
        b"fmt ",
        18,
        _FLOAT if encoding.startswith("f") else _PCM,
        channels,
        sample_rate,
        sample_rate * block,
        block,
        8 * pcm.WIDTHS[encoding],
        0,
    )
    extra = struct.pack("<4sI28x", b"JUNK", 28) if patchable else b""
    riff_size = data_size = _UNKNOWN
    if data_bytes is not None:
        data_size = data_bytes
        riff_size = 4 + (36 if rf64 else len(extra)) + len(fmt) + 8 + data_bytes + data_bytes % 2
    if rf64 and data_bytes is not None:
        frames = data_bytes // block
        extra = struct.pack("<4sIQQQI", b"ds64", 28, riff_size, data_bytes, frames, 0)
        riff_size = data_size = _UNKNOWN
    riff = struct.pack("<4sI4s", b"RF64" if rf64 else b"RIFF", riff_size, b"WAVE")
    return riff + extra + fmt + struct.pack("<4sI", b"data", data_size)


def encode_wav(audio: np.ndarray, sample_rate: int, *, name: str = "audio") -> bytes:
    """Return float32 WAV bytes of (C, T): exact sizes, 18-byte fmt chunk, same input same bytes.

    Raises SepcliError, naming `name`, on NaN and infinity.
    """
    check_shape(audio)
    check_finite(name, audio, sample_rate)
    samples = np.ascontiguousarray(audio.T, "<f4")  # (T, C)
    header = header_bytes("f32le", sample_rate, len(audio), samples.nbytes)
    return b"".join((header, samples.data)) if samples.size else header


def decode_wav(data: bytes, name: str) -> tuple[np.ndarray, int] | None:
    """(float32 (C, T), sample rate) of WAV bytes, or None if they are not just plain samples."""
    header = read_header(Cursor(Scan(Bytes(data), len(data), data)), name)
    present = len(data) - header.data_offset
    if header.encoding is None or header.wide or header.data_bytes != present:
        return None
    samples = memoryview(data)[header.data_offset : len(data) - present % header.frame_bytes]
    audio = pcm.unpack(samples, header.encoding, header.channels)
    check_finite(name, audio, header.sample_rate)
    return audio, header.sample_rate
