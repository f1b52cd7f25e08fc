"""What an MP3 says about its own length, which libsndfile believes without checking.

Without a Xing or VBRI header libmpg123 guesses the length from the first frame, and everything
beyond the guess is lost. Frame layout: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3.
"""

import struct

from sepcli.audio.checks import cut_off, too_short
from sepcli.errors import SepcliError

FRAME = 1152  # samples per frame, 576 below 32 kHz
_BIT_RATES = {  # kbit/s by (lower sampling frequency, layer)
    (False, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (True, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)  # Hz; MPEG-2 halves them, MPEG-2.5 quarters them


def is_mp3(head):
    """Whether the first bytes are an ID3 tag or a frame of MPEG layer II or III."""
    return head[:3] == b"ID3" or _parse_frame(head) is not None


def _parse_frame(head):
    """(bytes, bit rate in kbit/s) of the frame whose header `head` starts with, or None."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # version: 3 is 1, 2 is 2, 0 is 2.5
    rate_index, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (2, 3) or rate == 3 or not 1 <= rate_index <= 14:
        return None
    low = version != 3
    bit_rate = _BIT_RATES[low, layer][rate_index - 1]
    sample_rate = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    per_frame = 72 if low and layer == 3 else 144  # bytes per (kbit/s) / (kHz)
    return per_frame * bit_rate * 1000 // sample_rate + (head[2] >> 1 & 1), bit_rate


def check(file, size, name):
    """Refuse an MP3 that is cut off, or that varies its bit rate without telling its length."""
    start = _after_id3(file)
    file.seek(start)
    first = file.read(192).ljust(192, b"\0")  # the shortest frames have 24 bytes
    frame = _parse_frame(first)
    if frame is None:
        return  # padding or another oddity: libmpg123 finds the first frame by itself
    if start + frame[0] > size:
        raise cut_off(name, f"{size} bytes are there")
    promised = _promised_bytes(first)
    if promised is None:
        _check_constant(file, start, name)
    elif start + promised > size + promised // 100:  # counts are off by a little at times
        raise too_short(name, size, start + promised, "bytes")


def _after_id3(file):
    """Where the frames start, behind an ID3v2 tag (its size has 7 bits per byte)."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _promised_bytes(first):
    """Bytes of all frames as the first one tells; 0 if it tells only their number, or None."""
    if first[36:40] == b"VBRI":
        return struct.unpack_from(">I", first, 46)[0]
    position = max(first.find(b"Xing", 4, 64), first.find(b"Info", 4, 64))
    if position < 0:
        return None
    flags = struct.unpack_from(">I", first, position + 4)[0]
    if not flags & 1:
        return None  # no count of frames: worth nothing
    return struct.unpack_from(">I", first, position + 12)[0] if flags & 2 else 0


def _check_constant(file, position, name):
    """Walk over all frames: the guess of the length is right if their bit rates are equal."""
    bit_rates = set()
    while frame := _frame_at(file, position):
        position += frame[0]
        bit_rates.add(frame[1])
        if len(bit_rates) > 1:
            raise SepcliError(
                f"{name}: an MP3 of varying bit rate that does not tell its length; "
                "add that: ffmpeg -i IN.mp3 -c copy OUT.mp3"
            )


def _frame_at(file, position):
    file.seek(position)
    return _parse_frame(file.read(4))
