"""Writes docs/serve.png, the page with a recording that was separated.

python -m tests.browser.make_screenshot
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.test_page import CHROMIUM, SWITCHES, separate
from tests.serving import ROOT, Served

SIZE = {"width": 1000, "height": 900}
COLOURS = 96


def main():
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "sepcli", "mix", "-n", "1", "--duration", "10", "-o", folder]
        subprocess.run([*make, "--snr", "5", "--overwrite"], check=True)
        [recording] = Path(folder).rglob("*mix.wav")
        recording = recording.rename(Path(folder) / "talk.wav")
        with Served({"denoise": "denoise"}, Path(folder) / "jobs") as server:
            picture = shot(f"http://127.0.0.1:{server.port}/", recording)
    small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS)
    small.save(ROOT / "docs/serve.png", optimize=True)


def shot(address, recording):
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        page = browser.new_page(viewport=SIZE)
        page.goto(address)
        page.wait_for_selector("#model option", state="attached")
        separate(page, recording)
        page.evaluate("sepcli.player.seek(3.5)")
        page.wait_for_function("() => [...document.images].every((image) => image.complete)")
        page.wait_for_timeout(500)
        return page.screenshot()


if __name__ == "__main__":
    main()
