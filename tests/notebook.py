"""The system of the recipe denoise-16k a second time, in plain torch and numpy.

Nothing of the package is used: levels, rooms, samplers, mixtures, STFT, network, loss and training
are written out from their definitions. The tests compare the package with it; as a program it
trains on recordings and prints what the validation finds:

    python -m tests.notebook --speech train/speech --noise train/noise --rir train/rir \\
        --valid-speech valid/speech --valid-noise valid/noise --valid-rir valid/rir
"""

import argparse
import glob
import time

import numpy as np
import soundfile
import torch
from scipy.signal import fftconvolve, resample_poly
from torch import nn

RATE = 16000


def mean_square(x):
    return np.mean(np.square(x, dtype=np.float64))


def rms_fs(x):
    """RMS in dB re 1.0."""
    return 10 * np.log10(mean_square(x))


def gain_to_multiplier(gain_db):
    return 10 ** (gain_db / 20)


def normalize_to_rms(x, level_db):
    return x * gain_to_multiplier(level_db - rms_fs(x))


def decay(rir, seconds=0.3, early_ms=20):
    """`rir` as it is up to 20 ms behind the main tap, then 60 dB less per `seconds`."""
    late = np.arange(rir.size) - np.argmax(np.abs(rir)) - early_ms * RATE // 1000
    return rir * 10 ** (-3 * np.maximum(late, 0) / (seconds * RATE))


class Recordings:
    """Recordings below a folder at 16 kHz, mono, and random crops of them above -38 dB."""

    def __init__(self, folder):
        paths = sorted(glob.glob(f"{folder}/**/*", recursive=True))
        paths = [path for path in paths if path.endswith((".wav", ".flac", ".ogg"))]
        self.signals = [self._read(path) for path in paths]

    def _read(self, path):
        x, rate = soundfile.read(path, always_2d=True)
        divisor = np.gcd(rate, RATE)
        return resample_poly(x.mean(1), RATE // divisor, rate // divisor)

    def one(self, rng):
        return self.signals[rng.integers(len(self.signals))]

    def crop(self, samples, rng):
        found = np.zeros(0)
        while found.size < samples:
            signal = self.one(rng)
            start = rng.integers(max(1, signal.size - (samples - found.size) + 1))
            part = signal[start : start + samples - found.size]
            if part.size and mean_square(part) > 10**-3.8:
                found = np.append(found, part)
        return found


def mixture(speech, noise, rirs, seconds, rng, gains=(-25, 5), decays=True):
    """(noisy, target), each (T,), after PoCoNet: rooms half of the time, levels far apart."""
    samples = round(seconds * RATE)
    clean, noises = speech.crop(samples, rng), noise.crop(samples, rng)
    target = clean
    if rng.random() < 0.5:
        rir = rirs.one(rng)
        rir = rir[np.argmax(np.abs(rir)) :] / np.abs(rir).max()
        target = fftconvolve(clean, decay(rir) if decays else rir)[:samples]
        clean = fftconvolve(clean, rir)[:samples]
    if rng.random() < 0.5:
        rir = rirs.one(rng)
        noises = fftconvolve(noises, rir[np.argmax(np.abs(rir)) :])[:samples]
    factor = gain_to_multiplier(-20 - rms_fs(target))
    noises = normalize_to_rms(noises, -20 + rng.uniform(-5, 5))
    noisy, target = factor * clean + noises, factor * target
    gain = gain_to_multiplier(rng.uniform(*gains))
    gain = min(gain, 0.99 / max(np.abs(noisy).max(), np.abs(target).max()))
    return gain * noisy, gain * target


class Branch(nn.Module):
    def __init__(self, hidden, kernel, dilation):
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.main, self.gate = (
            nn.ModuleList(
                [
                    nn.PReLU(),
                    nn.BatchNorm1d(hidden),
                    nn.Conv1d(hidden, hidden, kernel, 1, 0, dilation),
                ]
            )
            for _ in range(2)
        )

    def path(self, layers, x):
        activation, norm, conv = layers
        return conv(nn.functional.pad(norm(activation(x)), (self.past, 0)))

    def forward(self, x):
        return self.path(self.main, x) * self.path(self.gate, x).sigmoid()


class Tcm(nn.Module):
    def __init__(self, channels, hidden, kernel, dilation, longest):
        super().__init__()
        self.squeeze = nn.Conv1d(channels, hidden, 1)
        self.primal = Branch(hidden, kernel, dilation)
        self.dual = Branch(hidden, kernel, longest // dilation)
        self.expand = nn.Sequential(
            nn.PReLU(), nn.BatchNorm1d(2 * hidden), nn.Conv1d(2 * hidden, channels, 1)
        )

    def forward(self, x):
        hidden = self.squeeze(x)
        return x + self.expand(torch.cat([self.primal(hidden), self.dual(hidden)], 1))


class Decoder(nn.Module):
    def __init__(self, width, levels):
        super().__init__()
        self.skips = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(levels))
        self.levels = nn.ModuleList()
        for level in reversed(range(levels)):
            odd = (0, 0 if level else 1)  # the outermost one leads to 161 bins, not 160
            up = nn.ConvTranspose2d(width, width if level else 1, (1, 4), (1, 2), (0, 1), odd)
            after = [nn.BatchNorm2d(width), nn.PReLU()] if level else []
            self.levels.append(nn.Sequential(up, *after))

    def forward(self, y, encoded):
        for skip, level, x in zip(self.skips, self.levels, reversed(encoded), strict=True):
            y = level(y + skip(x))
        return y


class Net(nn.Module):
    """(B, T) to (B, T): the speech's spectrum out of the mixture's, frames of 20 ms every 10 ms."""

    def __init__(self, width=64, levels=5, channels=256, hidden=64, kernel=5, blocks=6, repeats=2):
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 if level == 0 else width, width, (1, 4), (1, 2), (0, 1)),
                nn.BatchNorm2d(width),
                nn.PReLU(),
            )
            for level in range(levels)
        )
        flat = width * (160 // 2**levels)
        self.flatten, self.unflatten = nn.Linear(flat, channels), nn.Linear(channels, flat)
        longest = 2 ** (blocks - 1)
        self.tcms = nn.Sequential(
            *(
                Tcm(channels, hidden, kernel, 2**i, longest)
                for _ in range(repeats)
                for i in range(blocks)
            )
        )
        self.real, self.imaginary = Decoder(width, levels), Decoder(width, levels)
        self.register_buffer("window", torch.hann_window(320))

    def forward(self, x):
        how = {"window": self.window, "center": True}
        spectrum = torch.stft(x, 320, 160, return_complex=True, pad_mode="constant", **how)
        y = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, N, F)
        encoded = []
        for level in self.encoder:
            y = level(y)
            encoded.append(y)
        B, C, N, F = y.shape
        y = self.flatten(y.transpose(1, 2).flatten(2))  # (B, N, C F)
        y = self.unflatten(self.tcms(y.transpose(1, 2)).transpose(1, 2))
        y = y.reshape(B, N, C, F).transpose(1, 2)
        parts = [decoder(y, encoded)[:, 0] for decoder in (self.real, self.imaginary)]  # (B, N, F)
        return torch.istft(
            torch.complex(*parts).transpose(1, 2), 320, 160, length=x.shape[-1], **how
        )


def loss(estimate, target):
    """0.3 · complex + 0.7 · magnitude, mean squared differences of spectra with n_fft 1024."""
    window = torch.hann_window(1024)
    e, t = (
        torch.stft(x, 1024, 512, window=window, return_complex=True) for x in (estimate, target)
    )
    parts = (torch.view_as_real(e) - torch.view_as_real(t)).square().mean()
    return 0.3 * parts + 0.7 * (e.abs() - t.abs()).square().mean()


def si_sdr(estimate, target):
    """dB, (B, T) -> (B,)."""
    estimate, target = (x - x.mean(-1, keepdim=True) for x in (estimate, target))
    scale = (estimate * target).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True)
    error = (estimate - scale * target).square().sum(-1)
    return 10 * torch.log10((scale * target).square().sum(-1) / error)


def batches(sources, size, seconds, seed, **how):
    rng = np.random.default_rng(seed)
    while True:
        pairs = [mixture(*sources, seconds, rng, **how) for _ in range(size)]
        noisy, target = zip(*pairs, strict=True)
        yield tuple(torch.tensor(np.stack(x), dtype=torch.float32) for x in (noisy, target))


def main():
    parser = argparse.ArgumentParser()
    for name in ("speech", "noise", "rir"):
        parser.add_argument(f"--{name}", required=True)
        parser.add_argument(f"--valid-{name}", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--gains", type=float, nargs=2, default=(-25, 5), help="of the mixture, dB")
    parser.add_argument("--reverberant", action="store_true", help="the target keeps its room")
    parser.add_argument("--small", action="store_true", help="a network of 125,917 parameters")
    parser.add_argument("--every", type=int, default=50)
    asked = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    how = {"gains": tuple(asked.gains), "decays": not asked.reverberant}
    train, valid = (
        [Recordings(getattr(asked, prefix + name)) for name in ("speech", "noise", "rir")]
        for prefix in ("", "valid_")
    )
    made = batches(valid, 50, asked.seconds, 1, **how)
    noisy, target = next(made)
    nothing = loss(torch.zeros_like(target), target), loss(noisy, target)
    print(f"mixtures: SI-SDR {si_sdr(noisy, target).mean():.2f} dB, loss {nothing[1]:.5f}")
    print(f"silence: loss {nothing[0]:.5f}", flush=True)
    net = Net(width=16, channels=64, hidden=24, repeats=1) if asked.small else Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=asked.lr)
    started = time.process_time()
    made = batches(train, asked.batch, asked.seconds, 0, **how)
    for step in range(asked.steps + 1):
        if step % asked.every == 0:
            net.eval()
            with torch.no_grad():
                estimate = torch.cat([net(part) for part in noisy.split(10)])
            minutes = (time.process_time() - started) / 60
            print(
                f"step {step}: loss {loss(estimate, target):.5f}, "
                f"SI-SDR {si_sdr(estimate, target).mean():.2f} dB, {minutes:.1f} min",
                flush=True,
            )
            net.train()
        x, y = next(made)
        value = loss(net(x), y)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 4.0)
        optimizer.step()


if __name__ == "__main__":
    main()
