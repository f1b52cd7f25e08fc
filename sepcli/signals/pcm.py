"""Sample encodings: interleaved little-endian bytes ⇄ float32 (C, T)."""

from typing import Any

import numpy as np

# ffmpeg's name of an encoding: libsndfile's name, bytes per sample
_ENCODINGS = {
    "u8": ("PCM_U8", 1),
    "s16le": ("PCM_16", 2),
    "s24le": ("PCM_24", 3),
    "s32le": ("PCM_32", 4),
    "f32le": ("FLOAT", 4),
    "f64le": ("DOUBLE", 8),
}
WIDTHS = {encoding: width for encoding, (_, width) in _ENCODINGS.items()}
SUBTYPES = {encoding: subtype for encoding, (subtype, _) in _ENCODINGS.items()}
ENCODINGS = {subtype: encoding for encoding, subtype in SUBTYPES.items()}


def subtype_of(encoding: str) -> str:
    """libsndfile's name of an encoding; raises ValueError for one that is not known."""
    if encoding not in SUBTYPES:
        raise ValueError(f"unknown encoding {encoding!r}; choose from {', '.join(SUBTYPES)}")
    return SUBTYPES[encoding]


def _dtype(encoding):
    return f"<{encoding[0].replace('s', 'i')}{WIDTHS[encoding]}"


def _is_float(encoding):
    return encoding[0] == "f"


def unpack(data: bytes | memoryview, encoding: str, channels: int) -> np.ndarray:
    """Decode whole frames of `data` to a new float32 array (channels, T); integers to [-1, 1)."""
    if encoding == "s24le":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)  # (N·3,) -> (N, 3)
        samples = padded.view("<i4")[:, 0]  # 256 times the value, so that 32 bits' scale fits
    else:
        samples = np.frombuffer(data, _dtype(encoding))
    frames = samples.reshape(-1, channels).T  # (T·C,) -> (C, T)
    if encoding == "f64le":
        with np.errstate(over="ignore"):  # beyond float32 becomes Inf, which readers refuse
            return frames.astype(np.float32, order="C")
    audio = frames.astype(np.float32, order="C")
    if encoding == "u8":
        audio -= 128
    if not _is_float(encoding):
        audio *= 2.0 ** (1 - 8 * samples.itemsize)
    return audio


def place_of(blocks: Any, width: int, valid: int) -> str | None:
    """Where in samples of `width` bytes the `valid` ones are: "upper", "lower", or None.

    blocks: bytes of whole samples, in their order. Nothing but 0 is below the upper ones, nothing
    but the sign above the lower ones.
    """
    upper = lower = True
    for block in blocks:
        samples = np.frombuffer(block, np.uint8, len(block) // width * width).reshape(-1, width)
        upper = upper and not samples[:, : width - valid].any()
        sign = np.where(samples[:, valid - 1] & 0x80, 0xFF, 0).astype(np.uint8)
        lower = lower and (samples[:, valid:] == sign[:, None]).all()
        if not (upper or lower):
            return None
    return "upper" if upper else "lower"


def quantise(audio: np.ndarray, bits: int) -> np.ndarray:
    """Round (C, T) to `bits`, clamped; returns int32 (T, C) with the bits at the upper end."""
    full_scale = 2.0 ** (bits - 1)
    scaled = np.multiply(audio.T, full_scale, dtype=np.float64, order="C")  # (T, C)
    np.clip(np.rint(scaled, out=scaled), -full_scale, full_scale - 1, out=scaled)
    return scaled.astype("<i4") << (32 - bits)


def pack(audio: np.ndarray, encoding: str) -> bytes:
    """Encode (C, T) to interleaved bytes: floats as they are, integers rounded and clamped."""
    width = WIDTHS[encoding]
    if _is_float(encoding):
        return np.ascontiguousarray(audio.T, _dtype(encoding)).tobytes()
    samples = quantise(audio, 8 * width)  # (T, C)
    upper = samples.view(np.uint8).reshape(-1, 4)[:, 4 - width :]  # (T·C, width) bytes
    return (upper ^ 0x80 if encoding == "u8" else upper).tobytes()
