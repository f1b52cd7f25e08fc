"""Packs of tones."""

import soundfile

from sepcli.cluster.spread import ALONE
from sepcli.recordings.packing import Packing, PackSpec, find_sources
from tests.samples import tone

RATE = 16000


def write_tones(folder, names, *, channels=1, frames=400, subtype="PCM_16"):
    """Files that differ from each other, 10 frames longer from one to the next."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        signal = tone(index, frames=frames + 10 * index, channels=channels)
        soundfile.write(path, signal.T, RATE, subtype=subtype)
    return folder


def make(output, *, samples=(), resume=False, overwrite=None, spread=ALONE, **settings):
    """Pack folders given as speech=…, noise=…, rir=…; returns the records."""
    kinds = {k: settings.pop(k) for k in ("speech", "noise", "rir") if k in settings}
    sources = [s for kind, folder in kinds.items() for s in find_sources(kind, [str(folder)])]
    packing = Packing(sources, samples, PackSpec(**settings))
    return list(packing.run(output, resume=resume, overwrite=overwrite, spread=spread))


def make_small(root):
    """A pack of two speakers with two files each, stereo noise, and a room; its path."""
    speech = write_tones(root / "voices", ["ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/2.wav"])
    noise = write_tones(root / "street", ["a.wav", "b.wav"], channels=2)
    rir = write_tones(root / "rooms", ["r.wav"], channels=2, subtype="FLOAT")
    make(root / "data.h5", speech=speech, noise=noise, rir=rir)
    return root / "data.h5"
