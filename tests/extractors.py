"""A conditioned model that does what it should without training: whom a reference has is a pitch.

It passes the band around the strongest frequency of its references, or, told to be `wrong`, the
rest. So tones stand for speakers, and every answer is known.
"""

import numpy as np
import torch

from sepcli.models import modelfile
from sepcli.nn.causal import CausalModel

RATE = 16000
LOW, HIGH = 500.0, 2000.0  # Hz, of two speakers


class Tuned(CausalModel):
    """(B, 1, T) to (B, 1, 1, T), 200 samples late."""

    channels, hop, delay = 1, 80, 200

    def __init__(self, *, sources=("speech",), sample_rate=RATE, taps=401, wrong=False, gain=1.0):
        super().__init__()
        self.sources, self.sample_rate = tuple(sources), sample_rate
        self.taps, self.wrong, self.encoded = taps, wrong, 0
        self.gain = torch.nn.Parameter(torch.full((1,), gain))

    def condition(self, references):
        self.encoded += 1
        x = torch.cat(references, -1)[:, 0]  # (B, T)
        bins = torch.fft.rfft(x * torch.hann_window(x.shape[-1])).abs().argmax(-1)
        return 2 * torch.pi * bins[:, None].float() / x.shape[-1]  # (B, 1), radians a sample

    def initial_state(self, batch=1, *_condition):
        return self.gain.new_zeros(batch, 1, self.taps - 1)

    def step(self, x, past, condition):
        x = torch.cat([past, x], -1)
        n = torch.arange(self.taps) - self.taps // 2
        window = torch.hann_window(self.taps, periodic=False)
        filters = torch.cos(condition * n) * window * (2 / window.sum())  # (B, taps)
        filters = -filters if self.wrong else filters
        filters[:, self.taps // 2] += float(self.wrong)
        y = torch.nn.functional.conv1d(x.transpose(0, 1), filters[:, None], groups=len(x))
        return self.gain * y.transpose(0, 1)[:, None], x[..., x.shape[-1] - past.shape[-1] :]


class Comparing(Tuned):
    """The same, and it tells whose a signal is: the part of its energy at the pitch."""

    def resemblance(self, x, condition):
        phase = condition * torch.arange(x.shape[-1])
        part = torch.complex((x[:, 0] * phase.cos()).mean(-1), (x[:, 0] * phase.sin()).mean(-1))
        return 2 * part.abs().square() / x.square().mean((1, 2))


NAMES = {"tuned": "tests.extractors:Tuned", "comparing": "tests.extractors:Comparing"}


def save(folder, name="comparing", **settings):
    """A model file; NAMES have to be among the models."""
    kind = Comparing if name == "comparing" else Tuned
    path = folder / f"{name}{'-wrong' if settings.get('wrong') else ''}.safetensors"
    modelfile.save(path, name, settings, kind(**settings).state_dict(), {})
    return path


def tone(frequency, seconds=2.0, rate=RATE, channels=1, level=0.3):
    """float32 (C, T)."""
    t = np.arange(round(seconds * rate)) / rate
    return np.tile(level * np.sin(2 * np.pi * frequency * t), (channels, 1)).astype(np.float32)


def voice(pitch, seconds=2.0, rate=RATE):
    """A reference whose strongest frequency is `pitch`, voiced as speech is."""
    return tone(pitch, seconds, rate) + sum(tone(125 * k, seconds, rate, level=0.1) for k in (1, 2))
