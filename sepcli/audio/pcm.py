"""Sample encodings: interleaved little-endian bytes ⇄ float32 (C, T)."""

import numpy as np

# How one sample is stored; the names are ffmpeg's (`-f s16le`), with libsndfile's beside them.
DTYPES = {"u8": "u1", "s16le": "<i2", "s24le": None, "s32le": "<i4", "f32le": "<f4", "f64le": "<f8"}
WIDTHS = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8}  # bytes
SUBTYPES = {
    "u8": "PCM_U8",
    "s16le": "PCM_16",
    "s24le": "PCM_24",
    "s32le": "PCM_32",
    "f32le": "FLOAT",
    "f64le": "DOUBLE",
}
ENCODINGS = {subtype: encoding for encoding, subtype in SUBTYPES.items()}


def unpack(data, encoding, channels):
    """Decode whole frames of `data` to a new float32 array (channels, T); integers to [-1, 1)."""
    if encoding == "s24le":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)  # (N·3,) -> (N, 3)
        samples = padded.view("<i4")[:, 0]  # 256 × the value: then the same scale as 32 bits
    else:
        samples = np.frombuffer(data, DTYPES[encoding])
    frames = samples.reshape(-1, channels).T  # (T·C,) -> (C, T)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes Inf, found by the reader
        audio = frames.astype(np.float32, order="C")
    if encoding == "u8":
        audio -= 128
    if not encoding.startswith("f"):
        audio *= 2.0 ** (1 - 8 * samples.itemsize)
    return audio


def pack(audio, encoding):
    """Encode (C, T) to interleaved bytes; floats as they are, integers rounded and clamped."""
    if encoding.startswith("f"):
        return np.ascontiguousarray(audio.T, DTYPES[encoding]).tobytes()
    full_scale = 2.0 ** (8 * WIDTHS[encoding] - 1)
    scaled = np.multiply(audio.T, full_scale, dtype=np.float64, order="C")  # (T, C)
    np.clip(np.rint(scaled, out=scaled), -full_scale, full_scale - 1, out=scaled)
    if encoding == "u8":
        scaled += 128
    if encoding == "s24le":
        quads = scaled.astype("<i4").view(np.uint8).reshape(-1, 4)  # (T·C, 4 bytes)
        return quads[:, :3].tobytes()
    return scaled.astype(DTYPES[encoding]).tobytes()
