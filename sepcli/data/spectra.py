"""Spectrograms of stems, kept in files once they are computed, to train on without their sound.

A stem of a song is FOLDER/SONG/STEM-FINGERPRINT.npy: its short-time Fourier transform, float16
(N, C, F, 2), real and imaginary parts of F = window/2 + 1 frequencies in N frames. With the phases,
stems of different songs add up to the spectrogram of their mixture, and not to an estimate of it.

A file is made when it is first needed, by whichever process that is, and appears when it is whole.
The fingerprint is of the sources' names, sizes and times of change, and of all settings that the
file depends on; so another recording, rate, window or hop has a file of its own.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import fft

from sepcli import files
from sepcli.dsp import level
from sepcli.mixing.music import StemMixer
from sepcli.mixing.specs import StemSpec, limited
from sepcli.recordings import stored
from sepcli.recordings.journal import fingerprint

BLOCK = 256  # frames that are transformed at once
_FOR_SOUND = ("pitch", "stretch", "time-mask", "freq-mask")  # augmentations


@dataclass(frozen=True)
class SpectraSpec(StemSpec):
    """What spectrograms of music are like: as in `StemSpec`, but neither limited to a peak nor
    changed in pitch or tempo, nor masked.

    folder: where they are kept: 0.7 MB per second and stem in stereo, at 44.1 kHz and the defaults.
    window, hop: samples of the transform, which is torch.stft's with a periodic Hann window,
        centred frames, and reflection beyond the ends of a song.
    Raises SepcliError for a value that makes no sense.
    """

    folder: str = ""
    window: int = 4096
    hop: int = limited(1024, 1)

    def __post_init__(self):
        super().__post_init__()
        changes = [name for name in self.ranges() if name in _FOR_SOUND]
        for name, valid, what in (
            ("folder", self.folder, "a folder to keep spectrograms in"),
            ("window", 16 <= self.window <= 16384 and self.window % 2 == 0, "even, 16 to 16384"),
            ("hop", self.hop <= self.window, "1 sample to a window"),
            ("augment", not changes, "swap, polarity, remix or gain for spectrograms"),
        ):
            self._check(name, valid, what)


class SpectraMixer(StemMixer):
    """Spectrograms by number: items of a `StemMixer`, complex64 (C, F, N) in place of (C, T).

    An item of T samples has N = 1 + T // hop frames, as its transform would have; those at its ends
    hear the song go on there.
    """

    spec: SpectraSpec

    def _stem(self, name, samples, rng):
        """Frames (C, F, N) of a stem of a song that `rng` draws, and where they are from."""
        spec = self.spec
        song, place = self._song(rng, name), rng.random()
        wanted = 1 + samples // spec.hop
        length = 1 + int(self._seconds(song) * spec.sample_rate) // spec.hop
        start = int(place * (max(0, length - wanted) + 1))
        frames = self._read(song, name, start, start + wanted)
        if len(frames) < wanted:
            frames = np.pad(frames, ((0, wanted - len(frames)), (0, 0), (0, 0)))
        record = {"song": song.name, "files": list(map(str, song.stems[name]))}
        return frames.transpose(1, 2, 0), record | {"start": start, "stop": start + wanted}

    def _level_db(self, stem):
        """By Parseval's theorem: a bin has, in the mean, what the window leaves of the power."""
        power = np.mean(stem.real**2) + np.mean(stem.imag**2)
        return float(level.to_db(power / (3 / 8 * self.spec.window)))

    def _add(self, parts, gains, peak=None):
        for part, gain in zip(parts, gains, strict=True):
            reals = part.transpose(2, 0, 1).view(np.float32)  # (N, C, 2F): half the products
            if gain != 1:
                reals *= np.float32(gain)
        total = parts[0] + parts[1] if len(parts) > 1 else parts[0].copy(order="K")
        for part in parts[2:]:
            total += part
        return parts, total, 1.0

    def _read(self, song, name, start, stop):
        """Frames [start, stop) of a stem, as far as there are any: complex64 (N, C, F)."""
        path = self._path(song, name)
        try:
            kept = np.load(path, mmap_mode="c")
        except (OSError, ValueError, EOFError):  # not there, or not to its end
            self._make(path, song.stems[name])
            with files.explained(path):
                kept = np.load(path, mmap_mode="c")
        pair = torch.from_numpy(kept[start:stop]).float()  # numpy takes 6 times as long
        return pair.numpy().view(np.complex64)[..., 0]  # (N, C, F, 2) -> (N, C, F)

    def _path(self, song, name):
        """Where the spectrogram of a stem is kept."""
        spec = self.spec
        about = [f"{spec.sample_rate} {spec.window} {spec.hop} {spec.downmix}"]
        about += map(_state, song.stems[name])
        folder = Path(spec.folder, os.path.basename(song.name))
        return folder / f"{name}-{fingerprint(about)[:16]}.npy"

    def _make(self, path, sources):
        """Write the spectrogram of the sum of `sources` to `path`, unless another process does."""
        part = files.beside(path, files.ENDING)  # the same for all processes
        with files.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # what the last one left, if it was killed
                if not _is_same(file, part):
                    return  # the last one has finished
                file.truncate(0)
                self._write(file, self._sound(sources))
                file.flush()
                os.fsync(file.fileno())
                os.replace(part, path)

    def _sound(self, sources):
        """The sum (C, T) of recordings, all of each."""
        spec = self.spec
        sounds = []
        for source in sources:
            sound, _ = stored.read(source, sample_rate=spec.sample_rate)
            sound = self._channels(sound, source)
            sounds.append(np.broadcast_to(sound, (1 if spec.downmix else 2, sound.shape[1])))
        length = max(1, *(sound.shape[1] for sound in sounds))
        total = np.zeros((len(sounds[0]), length), np.float32)
        for sound in sounds:
            total[:, : sound.shape[1]] += sound
        return total

    def _write(self, file, sound):
        """Write the transform of (C, T) as a .npy file, block by block."""
        window, hop = self.spec.window, self.spec.hop
        shape = 1 + sound.shape[1] // hop, len(sound), window // 2 + 1, 2
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        padded = np.pad(sound, ((0, 0), (window // 2, window // 2)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, window, 1)[:, ::hop]
        hann = np.hanning(window + 1)[:-1].astype(np.float32)
        for first in range(0, shape[0], BLOCK):
            spectra = fft.rfft(frames[:, first : first + BLOCK] * hann)  # (C, N, F)
            pairs = np.ascontiguousarray(spectra.swapaxes(0, 1)).view(np.float32)
            file.write(pairs.astype("<f2").tobytes())


def _state(recording):
    """A line that changes when the recording does; of one in a pack, when the pack does."""
    is_packed = isinstance(recording, stored.PackRecording)
    with files.explained(recording):
        status = os.stat(recording.pack.path if is_packed else recording)
    return f"{os.path.basename(str(recording))} {status.st_size} {status.st_mtime_ns}"


def _is_same(file, path):
    """Whether an open file is still the one at `path`."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
