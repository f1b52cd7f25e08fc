"""Sound files in memory, healthy ones and odd ones, for the tests of reading."""

import io
import struct

import numpy as np
import soundfile

RATE = 16000
FORMATS = {  # extension: (libsndfile's format, subtype)
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "ulaw.wav": ("WAV", "ULAW"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
}


def sound(frames=RATE, channels=1, pitch=440, sample_rate=RATE):
    """Float32 (C, T): a tone in noise, at another level in every channel."""
    t = np.arange(frames) / sample_rate
    hiss = np.random.default_rng(pitch).uniform(-0.05, 0.05, (channels, frames))
    gains = 0.4 / np.arange(1, channels + 1)[:, None]
    return (gains * np.sin(2 * np.pi * pitch * t) + hiss).astype(np.float32)


def encoded(extension, signal, sample_rate=RATE, **settings):
    """The bytes of a healthy file of (C, T), as libsndfile writes it."""
    stream = io.BytesIO()
    container, subtype = FORMATS[extension]
    layout = (sample_rate, len(signal), subtype)
    with soundfile.SoundFile(stream, "w", *layout, format=container, **settings) as file:
        file.write(signal.T)
    return stream.getvalue()


def read(data):
    """What libsndfile reads from a healthy file: float32 (C, T)."""
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T


def pages(data):
    """The pages of an Ogg file, a list of bytearrays."""
    found, start = [], 0
    while start < len(data):
        lengths = data[start + 27 : start + 27 + data[start + 26]]
        stop = start + 27 + len(lengths) + sum(lengths)
        found.append(bytearray(data[start:stop]))
        start = stop
    return found


def joined(changed):
    """The bytes of pages, with the checksums that they should have."""
    for page in changed:
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", _checksum(page))
    return b"".join(changed)


def _checksum(data):
    """RFC 3533 section 6: the remainder by the polynomial 0x04c11db7."""
    value = 0
    for byte in data:
        value = value << 8 & 0xFFFFFFFF ^ _REMAINDERS[value >> 24 ^ byte]
    return value


def _remainder(byte):
    value = byte << 24
    for _ in range(8):
        value = value << 1 ^ (0x104C11DB7 if value & 1 << 31 else 0)
    return value


_REMAINDERS = [_remainder(byte) for byte in range(256)]


def wav(*chunks, kind=b"WAVE"):
    """A RIFF file of (tag, body) or (tag, body, claimed size)."""
    body = b"".join(
        tag + struct.pack("<I", size[0] if size else len(data)) + data + b"\0" * (len(data) % 2)
        for tag, data, *size in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + kind + body


def fmt(tag=1, channels=1, rate=RATE, block=2, bits=16):
    """A fmt chunk for `wav`."""
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits)


def pipe(data):
    """Bytes as a stream that cannot seek."""
    return io.BufferedReader(_Pipe(data))


class _Pipe(io.RawIOBase):
    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(memoryview(buffer)[:1000])


def put_tracks(path, signals, sample_rate):
    """Write an MPEG-4 file of AAC tracks, one for each (2, T)."""
    import av

    with av.open(str(path), "w", format="mp4") as out:
        tracks = [out.add_stream("aac", rate=sample_rate, layout="stereo") for _ in signals]
        for track, signal in zip(tracks, signals, strict=True):
            track.bit_rate = 256_000
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal), "fltp", "stereo")
            frame.sample_rate, frame.pts = sample_rate, 0
            converter = av.AudioResampler("fltp", "stereo", sample_rate, 1024)
            for piece in [*converter.resample(frame), *converter.resample(None), None]:
                out.mux(track.encode(piece))
