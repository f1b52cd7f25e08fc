"""What sound in and out costs: a 5 s mono signal at 16 kHz, CPU time per call.

A file that has not changed for two seconds is looked through once; here also each time.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from sepcli import audio

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 80_000)).astype(np.float32)


def microseconds(call, repeats=200):
    """The least of five averages."""
    averages = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(repeats // 5):
            call()
        averages.append((time.process_time() - start) / (repeats // 5))
    return 1e6 * min(averages)


def main():
    data = audio.encode_wav(SOUND, 16000)
    print(f"encode_wav          {microseconds(lambda: audio.encode_wav(SOUND, 16000)):8.0f} us")
    print(f"decode WAV          {microseconds(lambda: audio.decode(data, 'x')):8.0f} us")
    print(
        f"resample to 48 kHz  {microseconds(lambda: audio.resample(SOUND, 16000, 48000)):8.0f} us"
    )
    with tempfile.TemporaryDirectory() as folder:
        for extension in ("wav", "flac", "ogg", "mp3"):
            path = Path(folder) / f"x.{extension}"
            audio.write(path, np.tile(SOUND, 12), 16000)
            for what, changed_s in (("known", 0), ("new", time.time() + 3600)):
                os.utime(path, (changed_s, changed_s))
                crop = microseconds(lambda p=path: audio.read(p, start=800_000, stop=864_000), 50)
                header = microseconds(lambda p=path: audio.info(p), 50)
                name = f"60 s .{extension}, {what}"
                print(f"4 s crop of {name:17}{crop:8.0f} us    info{header:8.0f} us")


if __name__ == "__main__":
    main()
