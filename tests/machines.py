"""Machines with few commands, for scripts, and recordings to find on them."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile

RECIPES = Path(__file__).parent.parent / "recipes"


# The tools of POSIX that the scripts use; ffmpeg is there when a test puts it there.
TOOLS = """
    sh awk basename cat cp cut dirname find grep head ln ls mkdir mv rm rmdir sed sort tail touch wc
"""


# Stands for both directions: what it decodes is copied, to every output it is given.
FFMPEG = """#!/bin/sh
for word; do
    case $before in -i) input=$word;; esac
    case $word in *.flac|*.wav) cp "$input" "$word";; esac
    before=$word
done
"""


GAMES = "usr/share/games"
SOUNDS = "usr/share/asterisk/sounds"


FISH = f"{GAMES}/fillets-ng/sound"
HORIZONS = "usr/share/unknown-horizons/content/audio"


SONGS = f"{GAMES}/fretsonfire/data/songs/muldjord"
FILES = {
    "fillets-ng-data-cs": {
        f"{FISH}/air/cs/let-m-one.ogg": "speech/fillets-cs-m/air-cs-let-m-one.ogg",
        f"{FISH}/air/cs/let-v-two.ogg": "speech/fillets-cs-v/air-cs-let-v-two.ogg",
        f"{FISH}/air/cs/let-x-crab.ogg": None,
    },
    "klettres-data": {
        "usr/share/klettres/da/alpha/a.ogg": "speech/klettres-da/alpha-a.ogg",
        "usr/share/klettres/da/syllab/a.ogg": "speech/klettres-da/syllab-a.ogg",
        "usr/share/klettres/uk/alpha/a.ogg": None,
        "usr/share/klettres/id/sounds.xml": None,
    },
    "asterisk-core-sounds-en-g722": {
        f"{SOUNDS}/en_US_f_Allison/digits/1.g722": "speech/asterisk-en_US_f_Allison/digits-1.flac",
        f"{SOUNDS}/en_US_f_Allison/silence/1.g722": None,
        f"{SOUNDS}/en_US_f_Allison/beep.g722": None,
    },
    "sonic-pi-samples": {
        "usr/share/sonic-pi/samples/vinyl_hiss.flac": "noise/sonic-pi-samples/vinyl_hiss.flac",
        "usr/share/sonic-pi/samples/ambi_choir.flac": None,
    },
    "tuxpaint-stamps-default": {
        "usr/share/tuxpaint/stamps/animals/birds/crow.ogg": (
            "noise/tuxpaint-stamps-default/animals-birds-crow.ogg"
        ),
        "usr/share/tuxpaint/stamps/animals/birds/crow_desc.ogg": None,
        "usr/share/tuxpaint/stamps/animals/birds/crow_desc_fr.ogg": None,
        "usr/share/tuxpaint/stamps/symbols/math/1.ogg": None,
    },
    "supertuxkart-data": {
        f"{GAMES}/supertuxkart/data/sfx/rain.ogg": "noise/supertuxkart-data/rain.ogg",
        f"{GAMES}/supertuxkart/data/sfx/sara_airport_pa.ogg": None,
        f"{GAMES}/supertuxkart/data/music/cave.ogg": "music/supertuxkart-data/cave.ogg",
    },
    "lincity-ng-data": {
        f"{GAMES}/lincity-ng/sounds/Mill1.wav": "noise/lincity-ng-data/Mill1.wav",
    },
    "wesnoth-1.16-data": {
        f"{GAMES}/wesnoth/1.16/data/core/sounds/ambient/ship.ogg": (
            "noise/wesnoth-1.16-data/ambient-ship.ogg"
        ),
        f"{GAMES}/wesnoth/1.16/data/core/sounds/human-die-1.ogg": None,
    },
    "widelands-data": {
        f"{GAMES}/widelands/data/sound/farm/ox_00.ogg": "noise/widelands-data/farm-ox_00.ogg",
        f"{GAMES}/widelands/data/music/menu.ogg": "music/widelands-data/menu.ogg",
    },
    "unknown-horizons": {
        f"{HORIZONS}/sounds/smith.ogg": "noise/unknown-horizons/smith.ogg",
        f"{HORIZONS}/sounds/events/new_era.ogg": None,
        f"{HORIZONS}/voice/en/0/new_world/0.ogg": None,
        f"{HORIZONS}/music/a.ogg": "music/unknown-horizons/a.ogg",
    },
    "asterisk-moh-opsound-g722": {
        "usr/share/asterisk/moh/cold_day.g722": "music/asterisk-moh-opsound-g722/cold_day.flac",
    },
    "fretsonfire-songs-muldjord": {
        f"{SONGS}/chaos_god/guitar.ogg": "stems/chaos_god/guitar.ogg",
        f"{SONGS}/chaos_god/song.ogg": "stems/chaos_god/rest.ogg",
        f"{SONGS}/armygeddon/guitar.ogg": "stems/armygeddon/guitar.ogg",
        f"{SONGS}/armygeddon/song.ogg": "stems/armygeddon/rest.ogg",
        f"{SONGS}/internal_degeneration/guitar.ogg": None,
        f"{SONGS}/internal_degeneration/song.ogg": None,
    },
}


def recording(form):
    """Half a second of a loud tone at 16 kHz, as the bytes of a file."""
    tone = 0.5 * np.sin(np.arange(8000) * 0.05)
    data = io.BytesIO()
    soundfile.write(data, tone, 16000, format=form)
    return data.getvalue()


def fill(folder, names):
    """Write a recording to every name below the folder; what the extension says, or FLAC."""
    contents = {form: recording(form) for form in ("OGG", "WAV", "FLAC")}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        form = path.suffix[1:].upper()
        path.write_bytes(contents[form if form in contents else "FLAC"])


class Machine:
    """A PATH of its own for the scripts, with the given commands beside the tools of POSIX."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool))

    def add(self, name, script):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def run(self, script, *arguments, **environment):
        return subprocess.run(
            [self.bin / "sh", RECIPES / script, *arguments],
            env={"PATH": str(self.bin), "PACKAGES": str(self.folder / "packages"), **environment},
            start_new_session=True,  # so that a test may kill all of it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
