"""What sound files are called, and what those are that libsndfile does not read."""

# What libsndfile reads. A folder is searched for files that end like these, or like the next ones.
_OWN = frozenset(
    {".wav", ".wave", ".bwf", ".rf64", ".bw64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".mp2", ".mpa", ".mpga", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist"}
)
# What takes another decoder, see `audio.foreign`: films, too, of which the sound is read.
FOREIGN_EXTENSIONS = frozenset(
    {".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".3gp", ".aac", ".webm", ".weba", ".mka"}
    | {
        ".mkv",
        ".wma",
        ".asf",
        ".wmv",
        ".wv",
        ".ape",
        ".tta",
        ".mpc",
        ".spx",
        ".amr",
        ".ogv",
        ".ogm",
    }
)
AUDIO_EXTENSIONS = _OWN | FOREIGN_EXTENSIONS

_FOREIGN = (  # (offset, bytes there, what it is)
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "WMA or WMV"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"ADIF", "AAC"),
)
_WAV_CODECS = {  # by number in Microsoft's list
    0x0050: "MPEG", 0x0055: "MP3", 0x0092: "AC-3", 0x00FF: "AAC", 0x0160: "WMA 1", 0x0161: "WMA 2",
    0x0162: "WMA Pro", 0x0163: "WMA Lossless", 0x0270: "ATRAC3", 0x1610: "AAC", 0x2000: "AC-3",
    0x2001: "DTS", 0x674F: "Vorbis", 0x704F: "Opus", 0xF1AC: "FLAC",
}  # fmt: skip
_WAV_READ = (0x02, 0x06, 0x07, 0x11, 0x31, 0x40, 0x45, 0x64, 0x65)
_AU_READ = (*range(1, 8), 23, 24, 25, 26, 27)
_CAF_CODECS = {
    b"alac": "Apple Lossless", b"aac ": "AAC", b"ima4": "IMA ADPCM", b".mp3": "MP3",
    b"flac": "FLAC", b"opus": "Opus", b"ac-3": "AC-3", b"samr": "AMR", b"QDM2": "QDesign",
}  # fmt: skip
_PLAIN = (b"lpcm", b"ulaw", b"alaw")  # codecs that libsndfile has whatever it says


def format_of(head: bytes) -> str | None:
    """What a file is that begins with `head` and that libsndfile does not read, or None."""
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return what
    # ADTS: 12 bits of sync, layer 0, and one of 13 sample rates
    is_adts = (
        len(head) > 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13
    )
    return "AAC" if is_adts else None


def codec_of(head: bytes) -> str | None:
    """What is inside the container that begins with 64 bytes `head`, such as "AAC in CAF".

    None when it is nothing unusual, or the container tells nothing.
    """
    if head[:4] == b"caff" and head[8:12] == b"desc":
        codec = head[28:32]
        if codec in _PLAIN:
            return None
        return f"{_CAF_CODECS.get(codec) or _printable(codec)} in CAF"
    if head[:4] == b"FORM" and head[8:12] == b"AIFC" and head[12:16] == b"COMM":
        codec = head[38:42]
        return None if codec in (b"NONE", b"sowt", b"fl32") else f"{_printable(codec)} in AIFF-C"
    if head[:4] == b".snd" and (number := int.from_bytes(head[12:16], "big")) not in _AU_READ:
        return f"encoding {number} in AU"
    return None


def wav_codec(number: int) -> str:
    """What is inside a WAV with a codec of this number; "" if libsndfile has that codec."""
    if number in _WAV_READ:
        return ""
    return f"{_WAV_CODECS.get(number) or f'codec 0x{number:04x}'} in WAV"


def _printable(code):
    return repr(code.decode("latin-1").strip())
