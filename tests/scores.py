"""Samples of known scores, and `sepcli eval` on them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.samples.streams import Sample
from tests.samples import to_tar

RATE = 16000


T = 1000
SI = ("--metrics", "si-sdr,si-sdri,snr")


def tone(periods=5, gain=1.0):
    return gain * np.sin(2 * np.pi * periods * np.arange(T) / T)[None]


def estimate_at(level_db, target=None):
    """`target` (a sine) plus a sine 1/10^(level/20) of its size at right angles to it."""
    return (tone() if target is None else target) + tone(7, 10 ** (-level_db / 20))


def sample(index=0, est_db=20, mix_db=5, **signals):
    """A sample whose est.speech scores `est_db` and whose mix scores `mix_db` dB SI-SDR."""
    made = Sample(f"{index:06d}", {"sample_rate": RATE, "targets": ["speech"]})
    named = {
        "mix": estimate_at(mix_db),
        "ref.speech": tone(),
        "est.speech": estimate_at(est_db),
    } | {name.replace("_", "."): signal for name, signal in signals.items()}
    for name, signal in named.items():
        if signal is not None:
            made.set_audio(name, signal, RATE)
    return made


def run(*arguments, samples=(), data=None):
    data = to_tar(samples) if data is None else data
    return CliRunner().invoke(main, ["eval", *map(str, arguments)], input=data)


def scores(*arguments, **settings):
    result = run(*arguments, "--json", **settings)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def write(path, signal, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, np.asarray(signal, dtype=np.float32), rate)


def in_table(value):
    return pytest.approx(value, abs=1e-4)  # signals are stored in single precision


def speech(seconds=1.0):
    t = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(240 * np.pi * k * t) / k for k in range(1, 25))
    return (0.2 * buzz * np.abs(np.sin(8 * np.pi * t)))[None]
