"""What a stream holds, by its first bytes."""

from sepcli.containers import formats, mp3, wav
from sepcli.files import encoding_of

SNIFFED = 512  # bytes: one tar header
_MAGICS = (
    *(b"fLaC", b"OggS", b".snd", b"dns.", b"caff", b"riff", b"RIFX", b"NIST", b"2BIT", b"PVF1"),
    *(b" paf\0\0\0\0", b"fap \0\0\0\0", b"ALawSoundFile", b"Creative Voice File\x1a"),
    *(b"MATLAB 5.0 MAT-file", b"Extended Instrument: "),
)


def sniff(head: bytes) -> str | None:
    """Tell from its first 512 bytes (or all, if fewer) what a stream holds.

    Returns "wav", "tar", "jsonl", "audio" (any other sound file, also of a format that only
    `audio.foreign` decodes) or None.
    """
    if head[:4] in wav.MAGICS:
        return "wav"
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return "tar"
    if _is_json(head):
        return "jsonl"
    is_aiff = head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")
    is_audio = is_aiff or head.startswith(_MAGICS) or mp3.is_mp3(head) or formats.format_of(head)
    return "audio" if is_audio else None


def _is_old_tar(head):
    """Whether 512 bytes are a header of tar as it was before POSIX, which only its sum tells."""
    text = head[148:156].strip(b" \0")
    if len(head) < SNIFFED or not text or text.strip(b"01234567"):
        return False
    return int(text, 8) == sum(head[:148]) + 8 * ord(" ") + sum(head[156:SNIFFED])


def _is_json(head):
    encoding, mark = encoding_of(head)
    return head[mark:].decode(encoding, "replace").lstrip()[:1] == "{"
