"""Teach the speaker encoder of speaker_lstm what a trained one knows; writes a model to begin with.

    python3 encoder.py SPEECH NOISE pretrained.pt OUT.safetensors [STEPS]

SPEECH has a folder for each speaker, NOISE recordings; pretrained.pt are the weights of GE2E (Wan
et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018) in the wheel of
Resemblyzer (Apache-2.0): `pip download --no-deps resemblyzer`, which is a zip archive. The student
learns the teacher's embeddings of clean speech, and how alike these are, from speech with noise and
other frequency responses; speech at other speeds is other people. Five minutes a pass on one core.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from sepcli import config
from sepcli.dsp.mel import mel_filters
from sepcli.models import build, modelfile
from sepcli.recordings import stored
from sepcli.recordings.pools import Pool
from sepcli.signals.resampling import resample

RATE, CROP = 16000, 40000
SPEEDS = (0.85, 1.0, 1.17)
PASSES, BATCH, LR = 2, 48, 2e-3
FRAME, QUIET_DB = 320, 35  # pauses are left out


class Teacher(torch.nn.Module):
    """Three LSTMs over 40 mel bands of power, the mean of windows of 1.6 s."""

    def __init__(self, path):
        super().__init__()
        self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({k: weights[k] for k in self.state_dict()})
        self.filters, self.window = mel_filters(RATE, 400, 40), torch.hann_window(400)

    @torch.no_grad()
    def forward(self, x):
        """Unit vectors (B, 256) of speech (B, T)."""
        x = x * (10 ** (-30 / 20) / x.square().mean(-1, keepdim=True).sqrt())
        power = torch.stft(x, 400, 160, 400, self.window, return_complex=True).abs().square()
        mel, total = (self.filters @ power).transpose(1, 2), 0
        for start in range(0, max(1, mel.shape[1] - 159), 80):
            _, (hidden, _) = self.lstm(mel[:, start : start + 160])
            total = total + F.normalize(self.linear(hidden[-1]).relu(), dim=1)
        return F.normalize(total, dim=1)


def voice(folder):
    """Two minutes of what someone says at most, (T,), without pauses."""
    parts = []
    for path in sorted(folder.iterdir()):
        x = stored.read(path, sample_rate=RATE)[0].mean(0)
        frames = x[: len(x) // FRAME * FRAME].reshape(-1, FRAME)
        power = np.square(frames).mean(1)
        x = frames[power > power.max(initial=0) * 10 ** (-QUIET_DB / 10)].reshape(-1)
        if len(x):
            parts.append(x * (0.03 / np.sqrt(np.square(x).mean())))
        if sum(map(len, parts)) > 120 * RATE:
            break
    return np.concatenate(parts or [np.zeros(0, np.float32)])


def crops(voices, most, rng):
    """Crops (M, CROP) of each voice at each speed."""
    rows = []
    for x in voices:
        for speed in SPEEDS:
            y = x if speed == 1 else resample(x[None], RATE, round(RATE / speed))[0]
            y = np.tile(y, CROP // len(y) + 1) if len(y) < CROP else y
            for _ in range(max(2, min(most, 2 * len(y) // CROP))):
                start = rng.integers(0, len(y) - CROP + 1)
                rows.append(y[start : start + CROP])
    return torch.from_numpy(np.stack(rows))


def heard(model, x, noise, rng):
    """Powers (B, F, M) of speech (B, T), half of it with noise, through random equalisers."""
    snr_db, chosen = (torch.from_numpy(rng.random((len(x), 1)).astype(np.float32)) for _ in "sc")
    level = x.square().mean(-1, keepdim=True) / noise.square().mean(-1, keepdim=True).clamp(1e-12)
    x = x + noise * level.sqrt() * 10 ** (-30 * snr_db / 20) * (chosen < 0.5)
    x = x[:, : int(rng.integers(RATE, CROP + 1))]
    power = torch.view_as_real(model.analyse(x)).square().sum(-1)
    knots_db = 3 * rng.standard_normal((len(x), 1, 8)) * (rng.random((len(x), 1, 1)) < 0.6)
    knots_db = torch.from_numpy(knots_db.astype(np.float32))
    curve_db = F.interpolate(knots_db, power.shape[1], mode="linear", align_corners=True)
    return power * 10 ** (curve_db[:, 0, :, None] / 10)


def taught(model, x, wanted, noises, rng, steps):
    """One pass: `steps` steps on crops (M, CROP) and their embeddings."""
    encoder = model.encoder.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), LR, weight_decay=0.02)
    for step in range(steps):
        decay = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, step / 50) * decay + 1e-5
        chosen = torch.from_numpy(rng.integers(0, len(x), BATCH))
        noise = noises[torch.from_numpy(rng.integers(0, len(noises), BATCH))]
        power = heard(model, x[chosen], noise, rng)
        with torch.autocast("cpu", torch.bfloat16):
            y = encoder(power)
        y, target = y.float(), wanted[chosen]
        alike = (y @ y.T - target @ target.T).square().mean()
        loss = (1 - (y * target).sum(1)).mean() + 2 * alike
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: cosine {(y * target).sum(1).mean():.3f}", file=sys.stderr)


def main():
    speech, noise, teacher, out, *steps = sys.argv[1:]
    teacher, steps = Teacher(teacher), int(steps[0]) if steps else 1550
    voices = [x for folder in sorted(Path(speech).iterdir()) if len(x := voice(folder)) > 2 * RATE]
    torch.manual_seed(0)
    settings = config.load(Path(__file__).with_name("config.yaml"))["model"]
    model = build(kind := settings.pop("name"), **settings)
    for number in range(PASSES):
        rng, pool = np.random.default_rng(number), Pool((noise,), what="noise")
        x = crops(voices, 12, rng)
        wanted = torch.cat([teacher(part) for part in x.split(64)])
        noises = [pool.crop(CROP, RATE, rng, min_rms_db=-80)[0] for _ in range(600)]
        taught(model, x, wanted, torch.from_numpy(np.stack(noises)), rng, steps)
    modelfile.save(out, kind, settings, model.state_dict(), {"name": "speaker encoder"})


if __name__ == "__main__":
    main()
