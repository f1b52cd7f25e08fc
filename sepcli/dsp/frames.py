"""Cut a stream of samples into frames, and overlap-add frames into a stream; push and pull.

With division by what the windows of overlapping frames add up to, the two undo each other exactly,
from the first sample to the last (`flush`).
"""

import numpy as np

WINDOWS = {
    "rectangular": np.ones,
    "hann": lambda size: np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2,  # nowhere zero
}


def flush(length: int, hop: int, delay: int) -> int:
    """How many zeros follow `length` samples so that all of what they make comes out.

    hop: samples that are taken at a time.  delay: by how many the output is late.
    """
    return delay + -(length + delay) % hop


class FrameCutter:
    """Push any number of samples, pull frames of `frame` samples every `hop` samples."""

    def __init__(self, frame: int, hop: int) -> None:
        if not 0 < hop <= frame:
            raise ValueError(f"need 0 < hop <= frame, got hop {hop}, frame {frame}")
        self.frame, self.hop = frame, hop
        self._pending = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> None:
        """Take samples (T,), any T >= 0."""
        self._pending = np.concatenate([self._pending, samples])

    def pull(self) -> np.ndarray | None:
        """Return the next frame (frame,), or None when not enough samples are there."""
        if len(self._pending) < self.frame:
            return None
        frame = self._pending[: self.frame].copy()
        self._pending = self._pending[self.hop :]
        return frame

    def flush(self) -> list[np.ndarray]:
        """Pad what is left with zeros to whole frames and return them as a list."""
        overlap = self.frame - self.hop  # samples that an earlier frame has already carried
        frames = []
        while len(self._pending) > overlap or (len(self._pending) and not frames):
            missing = max(0, self.frame - len(self._pending))
            self._pending = np.pad(self._pending, (0, missing))
            frames.append(self.pull())
            if missing:
                break
        self._pending = np.zeros(0, np.float32)
        return frames


class OverlapAdd:
    """Add frames of `frame` samples every `hop` samples, read the samples that are complete.

    window: what frames are weighted with, `rectangular` or `hann`, which fades from one frame to
        the next where they differ. It is divided by what overlapping windows add up to, so that
        frames cut from one signal give that signal back, from the first sample to the last.
    """

    def __init__(self, frame: int, hop: int, *, window: str = "rectangular") -> None:
        if not 0 < hop <= frame:
            raise ValueError(f"need 0 < hop <= frame, got hop {hop}, frame {frame}")
        if window not in WINDOWS:
            raise ValueError(f"unknown window {window!r}; choose from {', '.join(WINDOWS)}")
        self.frame, self.hop = frame, hop
        self._window = WINDOWS[window](frame)
        self._sum = np.zeros(0, np.float64)
        self._weight = np.zeros(0, np.float64)
        self._start = 0  # where the next frame begins in the buffers

    def add(self, frame: np.ndarray) -> None:
        """Add one frame (frame,)."""
        if len(frame) != self.frame:
            raise ValueError(f"expected {self.frame} samples, got {len(frame)}")
        missing = max(0, self._start + self.frame - len(self._sum))
        self._sum = np.pad(self._sum, (0, missing))
        self._weight = np.pad(self._weight, (0, missing))
        self._sum[self._start :] += self._window * frame
        self._weight[self._start :] += self._window
        self._start += self.hop

    def read(self, n: int | None = None, *, last: bool = False) -> np.ndarray:
        """Return the samples (T,) that no later frame can change; with `last`, all.

        n: the first of them, at most so many; the others can be read later.
        """
        ready = len(self._sum) if last else self._start
        ready = ready if n is None else min(n, ready)
        total, weight = self._sum[:ready], self._weight[:ready]
        self._sum, self._weight = self._sum[ready:], self._weight[ready:]
        self._start -= ready
        return (total / weight).astype(np.float32)
