"""Steps of training: Conv-TasNet against other people's, and `sepcli train` against itself.

Times are CPU times of this process, taken in turns, so that other work on the machine matters
little; ratios are medians over the turns. torchaudio's network is installed with the test tools;
asteroid's is compared with if it is there (pip install --no-deps asteroid asteroid-filterbanks).

    $ python tests/benchmarks/bench_steps.py --threads 1
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from unittest import mock

import torch
from torch import nn

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from bench_mix import write_recordings

from sepcli.data import datasets
from sepcli.losses import waveforms
from sepcli.models import build
from sepcli.recordings.packing import Packing, find_sources
from sepcli.training.loop import State, fit
from sepcli.training.settings import Settings
from tests.test_conv_tasnet import torchaudios

BATCH, SECONDS, TURNS = 4, 2.0, 8
RATE = 16000


def ours():
    return build(
        "conv_tasnet", norm="gln", causal=False, last_residual=False, encoder_relu=False
    )  # the other sizes are the defaults


class Asteroids(nn.Module):
    """asteroid's separator between its filters, as its ConvTasNet has them."""

    def __init__(self):
        super().__init__()
        from asteroid.masknn.convolutional import TDConvNet
        from asteroid_filterbanks import Decoder, Encoder, FreeFB

        self.encoder = Encoder(FreeFB(64, 32, stride=16), padding=16)
        self.masker = TDConvNet(
            64, 2, bn_chan=64, hid_chan=64, skip_chan=64, n_blocks=6, n_repeats=3,
            mask_act="sigmoid", norm_type="gLN",
        )  # fmt: skip
        self.decoder = Decoder(FreeFB(64, 32, stride=16), padding=16)

    def forward(self, x):
        frames = self.encoder(x)
        return self.decoder(self.masker(frames) * frames[:, None], length=x.shape[-1])


def import_asteroid():
    """Whether asteroid's network can be imported: without the rest, which no longer can."""
    spec = importlib.util.find_spec("asteroid")
    if spec is None or importlib.util.find_spec("asteroid_filterbanks") is None:
        return False
    sys.modules["asteroid"] = types.ModuleType("asteroid")
    sys.modules["asteroid"].__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("huggingface_hub", mock.MagicMock())
    return True


def stepper(model):
    """One step of a training, SI-SDR as the loss, as a function."""
    optimizer = torch.optim.AdamW(model.parameters())
    mix = torch.randn(BATCH, 1, round(SECONDS * RATE))
    refs = torch.randn(BATCH, 2, 1, mix.shape[-1])

    def step():
        estimates = model(mix).reshape(refs.shape)
        waveforms.si_sdr_loss(estimates, refs).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_turns(actions, turns=TURNS):
    """CPU seconds of each of the actions, {name: [one for each turn]}."""
    for action in actions.values():
        action()  # memory is new
    seconds = {name: [] for name in actions}
    for _ in range(turns):
        for name, action in actions.items():
            started = time.process_time()
            action()
            seconds[name].append(time.process_time() - started)
    return seconds


def report(seconds, against):
    for name, times in seconds.items():
        ratios = [b / a for a, b in zip(times, seconds[against], strict=True)]
        print(
            f"  {name:44} {1 / statistics.median(times):6.2f} steps/s, "
            f"{statistics.median(ratios):.2f} x as fast as {against}"
        )


def training(folder, kind, loss, **train):
    """A training of `sepcli train` as a function that goes on by one step."""
    sources = dict.fromkeys(("speech", "noise", "rir"), f"{folder}/all.h5")
    section = {"kind": kind, "duration_s": SECONDS, "rir_prob": 0.3, **sources}
    if kind == "excerpts":
        section |= {"speech_minutes": 1.0, "noise_minutes": 1.0, "rooms": 20, "made_rooms": 0.0}
    resolved = datasets.resolve(section, section="data", items=0, seed=0)
    about = {"section": "data", "sample_rate": RATE, "sources": ("speech",)}
    data = datasets.build(resolved, **about)
    data_valid = datasets.build(resolved | {"items": 1}, **about)
    settings = Settings(steps=10_000, batch=BATCH, validate_every=10_000, loss=loss, **train)
    model = build("spectral_tasnet", sources=("speech",), window=512, hop=256)
    records = fit(State(model, settings), data, data_valid, settings)
    steps = (record for record in records if record["event"] == "step")
    return lambda: next(steps)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=TURNS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)

    print(f"Conv-TasNet with gLN, {BATCH} x {SECONDS:g} s, {given.threads} threads")
    actions = {"sepcli": stepper(ours()), "torchaudio": stepper(torchaudios())}
    if import_asteroid():
        actions["asteroid"] = stepper(Asteroids())
    report(in_turns(actions, given.turns), "torchaudio")

    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        kinds = ("speech", "noise", "rir")
        found = [s for kind in kinds for s in find_sources(kind, [f"{folder}/{kind}"])]
        list(Packing(found).run(f"{folder}/all.h5"))
        waveform = {"si_sdr": 0.1, "compressed": 2.0}
        spectra = {"stft_si_sdr": 0.1, "stft_compressed": 2.0}
        actions = {
            "mixtures, losses of waveforms": training(folder, "mixtures", waveform),
            "mixtures, losses of spectra": training(folder, "mixtures", spectra),
            "excerpts, losses of spectra": training(folder, "excerpts", spectra),
            "excerpts, losses of spectra, bf16": training(
                folder, "excerpts", spectra, autocast="bf16"
            ),
        }
        print(f"spectral_tasnet by sepcli train without workers, {BATCH} x {SECONDS:g} s")
        report(in_turns(actions, given.turns), "mixtures, losses of waveforms")


if __name__ == "__main__":
    main()
