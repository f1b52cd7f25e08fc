"""Byte streams without seek: look ahead, tell what they hold."""

SNIFFED = 512  # bytes that `sniff` needs at most: one tar header


def sniff(head):
    """Tell from its first bytes (512, or all there are) what a stream holds.

    Returns "wav", "tar", "jsonl", "audio" (any other sound file) or None.
    """
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return "wav"
    if head[257:262] == b"ustar":
        return "tar"
    if head.lstrip()[:1] == b"{":
        return "jsonl"
    if head[:4] in (b"fLaC", b"OggS", b".snd", b"caff", b"riff") or head[:3] == b"ID3":
        return "audio"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 in (2, 4):
        return "audio"  # MPEG layer III or II
    return None


class Peekable:
    """A readable binary stream whose first bytes can be looked at before they are read."""

    def __init__(self, stream):
        self._stream = stream
        self._ahead = b""
        self.name = getattr(stream, "name", None)

    def peek(self, count):
        """Return the next `count` bytes (fewer only at the end) and leave them to be read."""
        while len(self._ahead) < count:
            more = read_some(self._stream, count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def sniff(self):
        """`sniff` the stream, waiting for no more bytes than the answer takes."""
        kind = sniff(self.peek(12))
        return kind if kind in ("wav", "audio") else sniff(self.peek(SNIFFED))

    def read1(self, count=-1):
        """Return what is there, at least 1 byte and at most `count`; b"" only at the end."""
        if not self._ahead:
            return read_some(self._stream, count if count >= 0 else 1 << 16)
        count = len(self._ahead) if count < 0 else count
        some, self._ahead = self._ahead[:count], self._ahead[count:]
        return some

    def read(self, count=-1):
        """Return `count` bytes, fewer only at the end; all that is left for -1."""
        if count < 0:
            ahead, self._ahead = self._ahead, b""
            return ahead + self._stream.read()
        ahead = self.read1(count) if self._ahead else b""
        return ahead + read_fully(self._stream, count - len(ahead)) if count > len(ahead) else ahead

    def readable(self):
        return True


def read_some(stream, count):
    """Return at least 1 and at most `count` bytes, without waiting for more; b"" at the end."""
    read1 = getattr(stream, "read1", None)
    return read1(count) if read1 else stream.read(count)


def read_fully(stream, count):
    """Return `count` bytes, fewer only at the end; pipes return what they like."""
    data = stream.read(count)
    if len(data) == count or not data:
        return data
    pieces = [data]
    missing = count - len(data)
    while missing and (data := stream.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)
