"""WAV headers: RIFF, RF64 and BW64, in files, bytes and pipes.

Reading needs no seek, so it works on a pipe. Sizes that programs write when they do not know the
length yet mean "until the end". Sources: Microsoft's multimedia standards update (1994) for RIFF
and WAVE_FORMAT_EXTENSIBLE, EBU Tech 3306 for RF64, ITU-R BS.2088 for BW64.
"""

import struct
from dataclasses import dataclass

import numpy as np

from sepcli.audio import pcm
from sepcli.audio.checks import check_finite, check_layout
from sepcli.errors import SepcliError

MAGICS = (b"RIFF", b"RF64", b"BW64")
UNKNOWN = 0xFFFFFFFF
RIFF_LIMIT = 0xFFFFFFFF  # bytes that a 32-bit size can count; longer files become RF64
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_INTEGERS = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}  # by bytes per sample
_FLOATS = {4: "f32le", 8: "f64le"}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_LONGEST_FMT = 4096  # bytes; real ones have 16, 18 or 40, compressed ones some more


@dataclass(frozen=True)
class Header:
    """What comes before the samples; `data_bytes` is None when the length is not known."""

    magic: bytes
    encoding: str | None  # a name of `pcm`, or None for a compressed WAV
    sample_rate: int  # Hz
    channels: int
    data_bytes: int | None
    data_offset: int  # bytes from the start of the file


def _means_unknown(size):
    """Whether a 32-bit size is a placeholder: ffmpeg, sox, arecord and libsndfile differ."""
    return 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000


def read_header(read, name):
    """Parse up to the first sample; `read(n)` returns n bytes, fewer only at the end.

    Raises SepcliError, naming `name`, when this is no WAV or one that no program could play.
    """
    riff = read(12)
    if riff[:4] not in MAGICS or len(riff) < 12:
        raise SepcliError(
            f"{name}: not a WAV file; {'it is cut off' if riff[:4] in MAGICS else 'check what wrote it'}"
        )
    magic, (riff_size,), kind = riff[:4], struct.unpack("<I", riff[4:8]), riff[8:]
    if kind != b"WAVE":
        raise SepcliError(
            f"{name}: a RIFF file that holds {kind!r} instead of WAVE audio; "
            f"convert it first: ffmpeg -i {name} out.wav"
        )
    offset, fmt, long_data = 12, None, None
    while True:
        chunk = read(8)
        if len(chunk) < 8:
            raise SepcliError(
                f"{name}: the WAV header ends before any audio; the file is cut off, copy or record it again"
            )
        offset += 8
        tag, size = struct.unpack("<4sI", chunk)
        if tag == b"data":
            break
        if tag in (b"fmt ", b"ds64"):
            if size > _LONGEST_FMT:
                raise SepcliError(
                    f"{name}: the WAV header is damaged ({tag.decode().strip()} chunk of {size} bytes); copy or record the file again"
                )
            body = read(size + size % 2)
            if len(body) < size:
                raise SepcliError(
                    f"{name}: the WAV header ends before any audio; the file is cut off, copy or record it again"
                )
            if tag == b"fmt ":
                fmt = body
            elif size >= 24:
                long_data = struct.unpack_from("<Q", body, 8)[0]
        else:
            _skip(read, size + size % 2)
        offset += size + size % 2
    if fmt is None:
        raise SepcliError(
            f"{name}: the WAV header has no fmt chunk before the audio; the file is damaged, copy or record it again"
        )
    encoding, sample_rate, channels = _parse_format(fmt, name)
    data_bytes = size
    if size == UNKNOWN and long_data is not None:
        data_bytes = None if long_data == 0 or long_data >= 2**63 else long_data
    elif _means_unknown(size) or (size == 0 and riff_size <= offset - 8) or (size == 0 and _means_unknown(riff_size)):
        data_bytes = None
    return Header(magic, encoding, sample_rate, channels, data_bytes, offset)


def _skip(read, count):
    while count > 0:
        got = len(read(min(count, 1 << 16)))
        if not got:
            return
        count -= got


def _parse_format(fmt, name):
    """(encoding or None, sample rate, channels) of a fmt chunk's body."""
    if len(fmt) < 16:
        raise SepcliError(
            f"{name}: the WAV header is damaged (fmt chunk of {len(fmt)} bytes); copy or record the file again"
        )
    tag, channels, sample_rate, _, block, bits = struct.unpack_from("<HHIIHH", fmt)
    check_layout(name, sample_rate, channels)
    if tag == _EXTENSIBLE and len(fmt) >= 40 and fmt[26:40] == _GUID_TAIL:
        tag = struct.unpack_from("<H", fmt, 24)[0]
    if tag not in (_PCM, _FLOAT):
        return None, sample_rate, channels
    width = (bits + 7) // 8
    encoding = (_INTEGERS if tag == _PCM else _FLOATS).get(width)
    if encoding is None or block != width * channels:
        raise SepcliError(
            f"{name}: the WAV header contradicts itself ({bits} bits, {channels} channels, "
            f"{block} bytes per frame); copy or record the file again"
        )
    return encoding, sample_rate, channels


def header_bytes(encoding, sample_rate, channels, data_bytes=None, *, reserve=False, rf64=False):
    """The bytes before the samples; `data_bytes` None writes the sizes of a stream, 0xFFFFFFFF.

    The fmt chunk always has 18 bytes (sox warns about 16 for floats). `reserve` leaves a JUNK
    chunk where the ds64 chunk of an RF64 goes, so that a file can be turned into one at its end.
    """
    width = pcm.WIDTHS[encoding]
    fmt = struct.pack(
        "<4sIHHIIHHH",
        b"fmt ",
        18,
        _FLOAT if encoding.startswith("f") else _PCM,
        channels,
        sample_rate,
        sample_rate * channels * width,
        channels * width,
        8 * width,
        0,
    )
    extra = b""
    if rf64:
        riff = 4 + 36 + len(fmt) + 8 + data_bytes + data_bytes % 2
        extra = struct.pack(
            "<4sIQQQI", b"ds64", 28, riff, data_bytes, data_bytes // (width * channels), 0
        )
    elif reserve:
        extra = struct.pack("<4sI28x", b"JUNK", 28)
    if data_bytes is None or rf64:
        riff_size = data_size = UNKNOWN
    else:
        riff_size = 4 + len(extra) + len(fmt) + 8 + data_bytes + data_bytes % 2
        data_size = data_bytes
    return (
        struct.pack("<4sI4s", b"RF64" if rf64 else b"RIFF", riff_size, b"WAVE")
        + extra
        + fmt
        + struct.pack("<4sI", b"data", data_size)
    )


def encode_wav(audio, sample_rate, *, name="audio"):
    """Return float32 WAV bytes of (C, T): exact sizes, 18-byte fmt chunk, same input same bytes.

    Raises SepcliError, naming `name`, on NaN or Inf.
    """
    if audio.ndim != 2:
        raise ValueError(f"expected (channels, samples), got shape {audio.shape}")
    check_finite(name, audio, sample_rate)
    samples = np.ascontiguousarray(audio.T, "<f4")  # (T, C)
    return header_bytes("f32le", sample_rate, len(audio), samples.nbytes) + samples.tobytes()


def decode_wav(data, name):
    """Return (float32 (C, T), sample rate) of WAV bytes, or None if they are compressed inside."""
    view, position = memoryview(data), 0

    def read(count):
        nonlocal position
        piece = view[position : position + count]
        position += len(piece)
        return bytes(piece)

    header = read_header(read, name)
    if header.encoding is None:
        return None
    frame = pcm.WIDTHS[header.encoding] * header.channels
    present = len(view) - position
    wanted = present if header.data_bytes is None else header.data_bytes
    if wanted > present:
        raise SepcliError(
            f"{name}: cut off, {present // frame} of {wanted // frame} frames are there; "
            "copy or record it again"
        )
    audio = pcm.unpack(
        view[position : position + wanted - wanted % frame], header.encoding, header.channels
    )
    check_finite(name, audio, header.sample_rate)
    return audio, header.sample_rate
