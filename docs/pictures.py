"""Saves the spectrograms of the first item in a report of `sepcli eval --html` as PNG files.

$ sepcli mix -n 1 --snr 0 --seed 4 | sepcli separate - | sepcli eval - --html report.html
$ python docs/pictures.py report.html docs
"""

import base64
import re
import sys
from pathlib import Path

FIGURE = re.compile(r'alt="Spectrogram of ([^"]*)" src="data:image/png;base64,([^"]*)"')
WANTED = {"mixture": "mixture.png", "speech, estimate": "estimate.png"}


def main(report: str, folder: str) -> None:
    """Write the pictures of `report` into `folder`."""
    found = FIGURE.findall(Path(report).read_text(encoding="utf-8"))
    for name, picture in reversed(found):  # the first item is written last
        if name in WANTED:
            (Path(folder) / WANTED[name]).write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
