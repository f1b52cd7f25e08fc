"""Decoders of one sound each: plain samples, and what libsndfile decodes."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from sepcli.audio import coded
from sepcli.audio.streams import read_fully, read_some
from sepcli.containers import mp3
from sepcli.containers.wav import MAGICS
from sepcli.errors import SepcliError
from sepcli.signals import pcm
from sepcli.signals.checks import damaged, too_short

PIECE = 1 << 18  # frames read at a time where nobody says how many
_STEP = 1024  # frames read at a time where the next ones are damaged
_HEADER_INSIDE = b"WAVEfmt "


class Decoder:
    """One sound, decoded forward.

    Attributes: `name`, `sample_rate` (Hz), `channels`, `frames` (None when that is not known
    before its end), `format` and `subtype` (libsndfile's names). `complain` is called with an
    error when the sound is shorter than it should be; when that returns, it ends there.
    """

    frames: Any  # in all; None where no header tells

    def __init__(
        self,
        name: str,
        sample_rate: int,
        channels: int,
        frames: int | None,
        container: str,
        subtype: str,
        complain: Callable[[Exception], None],
    ) -> None:
        self.name, self.sample_rate, self.channels = name, sample_rate, channels
        self.frames, self.format, self.subtype = frames, container, subtype
        self._complain = complain
        self._position = 0  # frames handed out or skipped
        self._resources: Any = None  # what is closed with it

    def read(self, frames: int, exact: bool = True) -> np.ndarray:
        """The next (C, n), float32: n = `frames`, or less at the end, then 0.

        With `exact=False`, as soon as a pipe delivers at least one frame.
        """
        if self.frames is not None:
            frames = min(frames, self.frames - self._position)
        block = self._read(frames, exact) if frames > 0 else self.nothing()
        self._position += block.shape[1]
        return block

    def skip(self, frames: int) -> int:
        """Pass over `frames` frames; returns how many there were, fewer only at the end."""
        passed = 0
        while passed < frames and (n := self.read(min(frames - passed, PIECE)).shape[1]):
            passed += n
        return passed

    def nothing(self) -> np.ndarray:
        """(C, 0)."""
        return np.empty((self.channels, 0), np.float32)

    def close(self) -> None:
        """Let go of what was opened for it."""
        if self._resources is not None:
            self._resources.close()

    def _read(self, frames, exact):
        """At least one of the next `frames` > 0 frames, (C, n); (C, 0) at the end."""
        raise NotImplementedError

    def _ends_early(self, error, read=0):
        """End behind `read` more frames, unless `complain` raises the error."""
        self._complain(error)
        self.frames = self._position + read


class PcmDecoder(Decoder):
    """Plain samples in a binary stream.

    frames: how many there should be; None is up to the end.  can_seek: whether `stream` begins with
        the first one, and seeks.  gain: what samples are multiplied with.
    """

    def __init__(
        self,
        name: str,
        stream: Any,
        encoding: str,
        sample_rate: int,
        channels: int,
        complain: Callable[[Exception], None],
        *,
        frames: int | None = None,
        container: str = "RAW",
        can_seek: bool = False,
        gain: int = 1,
    ) -> None:
        subtype = pcm.subtype_of(encoding)
        super().__init__(name, sample_rate, channels, frames, container, subtype, complain)
        self._stream, self._encoding = stream, encoding
        self._frame_bytes = pcm.WIDTHS[encoding] * channels
        self._can_seek, self._gain = can_seek, gain
        self._heard = b""  # the last bytes, where another header may come unannounced

    def _read(self, frames, exact):
        read = read_fully if exact else read_some
        data = read(self._stream, frames * self._frame_bytes)
        if partial := len(data) % self._frame_bytes:
            data += read_fully(self._stream, self._frame_bytes - partial)
        count, partial = divmod(len(data), self._frame_bytes)
        if self.frames is not None and (partial or count == 0 or (exact and count < frames)):
            self._ends_early(too_short(self.name, self._position + count, self.frames), count)
        elif partial:
            error = (
                f"{self.name}: ends in the middle of a frame ({partial} of {self._frame_bytes} "
                "bytes are there); check its channels and encoding, and that its writer finished"
            )
            self._ends_early(SepcliError(error), count)
        if self.frames is None and self.format != "RAW":
            self._check_for_header(data)
        block = pcm.unpack(data[: len(data) - partial], self._encoding, self.channels)
        return block if self._gain == 1 else block * np.float32(self._gain)

    def _check_for_header(self, data):
        """Refuse a second WAV behind samples of which the header did not tell how many they are."""
        heard = self._heard + data
        if (found := heard.find(_HEADER_INSIDE)) >= 8 and heard[found - 8 : found - 4] in MAGICS:
            raise SepcliError(
                f"{self.name}: several WAV files in one stream, whose headers do not give "
                "their lengths; pass them one by one"
            )
        self._heard = heard[-15:]

    def skip(self, frames: int) -> int:
        if not self._can_seek:
            return super().skip(frames)
        before, self._position = self._position, min(self._position + frames, self.frames)
        self._stream.seek(self._position * self._frame_bytes)
        return self._position - before


class CodedDecoder(Decoder):
    """What libsndfile decodes, from a seekable file; raises soundfile.LibsndfileError."""

    def __init__(
        self,
        name: str,
        file: Any,
        complain: Callable[[Exception], None],
        *,
        frames: int | None = None,
        is_untold: bool = False,
    ) -> None:
        """frames: how many there are, where libsndfile would guess.

        is_untold: whether what it says of lengths and places is wrong.
        """
        self._sound, self._file, self._is_untold = coded.open_sound(file), file, is_untold
        sound = self._sound
        if frames is None and not is_untold and sound.frames < coded.LONGEST:
            frames = sound.frames
        layout = (sound.samplerate, sound.channels, frames, sound.format, sound.subtype)
        super().__init__(name, *layout, complain)
        self._resources = sound

    def _read(self, frames, exact):
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True).T  # (C, n)
        except soundfile.LibsndfileError as error:
            self._complain(damaged(self.name, f"or cut off: {coded.reason(error)}"))
            block = self._salvaged()
            self.frames = self._position + block.shape[1]
            return block
        count = block.shape[1]
        missing = frames - count if self.frames is not None else 0
        if missing > (2 * mp3.FRAME if self.format == "MP3" else 0):
            self._ends_early(too_short(self.name, self._position + count, self.frames), count)
        elif missing:
            self.frames = self._position + count
        return np.ascontiguousarray(block)

    def _salvaged(self):
        """What can be read in small steps, from here to where it is damaged; (C, n)."""
        pieces, missing = [self.nothing()], self._position
        with contextlib.suppress(soundfile.LibsndfileError), coded.open_sound(self._file) as sound:
            while (block := sound.read(_STEP, dtype="float32", always_2d=True).T).shape[1]:
                pieces.append(block[:, missing:])
                missing = max(0, missing - block.shape[1])
        return np.concatenate(pieces, axis=1)

    def skip(self, frames: int) -> int:
        # After a seek libmpg123 lacks the frames that an MP3's next ones draw on. A few frames of
        # preroll help from 32 kHz on; below that some samples stay wrong, so decode them all.
        is_mp3 = self.format == "MP3"
        if frames <= 0 or self._is_untold or (is_mp3 and self.sample_rate < 32000):
            return super().skip(frames)
        before, target = self._position, self._position + frames
        preroll = min(frames, 10 * mp3.FRAME) if is_mp3 else 0
        if self.frames is not None:
            target = min(target, self.frames + preroll)
        self._position = target - preroll
        try:
            self._sound.seek(self._position)
        except soundfile.LibsndfileError as error:
            self._ends_early(damaged(self.name, f"or cut off: {coded.reason(error)}"))
        super().skip(preroll)
        return self._position - before
