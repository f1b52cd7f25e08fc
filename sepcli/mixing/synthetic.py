"""Synthetic speech, noise and rooms, so that everything runs where there are no recordings.

The speech has no words, but what a denoiser listens for: harmonics of a gliding F0 under moving
formants, fricatives and stops between them, four to five syllables a second, phrases, pauses and a
falling intonation, in a different voice for every voice number. The noises are coloured, modulated
or impulsive. Everything is a function of the random generator that is passed in.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from sepcli.dsp import level, room

SILENT = -99  # dB
FRAME = 3  # hops: two of sound and one for what the filter adds

# Formants F1-F4 in Hz of an adult male. F1-F3 of the vowels: Peterson & Barney, "Control methods
# used in a study of the vowels", JASA 24, 1952, table II.
VOWELS = (
    (270, 2290, 3010, 3600),  # beet
    (390, 1990, 2550, 3500),  # bit
    (530, 1840, 2480, 3500),  # bet
    (660, 1720, 2410, 3400),  # bat
    (730, 1090, 2440, 3400),  # father
    (570, 840, 2410, 3300),  # bought
    (440, 1020, 2240, 3300),  # book
    (300, 870, 2240, 3300),  # boot
    (640, 1190, 2390, 3400),  # but
    (490, 1350, 1690, 3300),  # bird
)
# A consonant is one segment or more: seconds, F1-F4, level of the voice and of the noise in dB re
# the voice of a vowel, centre and width of the noise band in Hz. Textbook values, rounded.
CONSONANTS = {
    "m": ((0.07, (250, 1100, 2200, 3300), -9, SILENT, 0, 1),),
    "n": ((0.06, (250, 1500, 2500, 3400), -9, SILENT, 0, 1),),
    "l": ((0.06, (360, 1200, 2700, 3400), -5, SILENT, 0, 1),),
    "r": ((0.06, (350, 1100, 1600, 3200), -5, SILENT, 0, 1),),
    "w": ((0.06, (300, 650, 2200, 3300), -6, SILENT, 0, 1),),
    "j": ((0.06, (280, 2200, 2900, 3600), -6, SILENT, 0, 1),),
    "s": ((0.11, (320, 1700, 2600, 3500), SILENT, -13, 6500, 1500),),
    "z": ((0.08, (300, 1700, 2600, 3500), -12, -18, 6500, 1500),),
    "sh": ((0.11, (320, 1900, 2500, 3500), SILENT, -11, 3600, 1200),),
    "f": ((0.10, (320, 1000, 2200, 3400), SILENT, -24, 5000, 3500),),
    "v": ((0.06, (300, 1000, 2200, 3400), -10, -28, 5000, 3500),),
    "th": ((0.09, (320, 1400, 2500, 3400), SILENT, -26, 6000, 3000),),
    "h": ((0.06, (500, 1500, 2500, 3500), SILENT, -22, 1500, 1200),),
    "p": (
        (0.07, (300, 900, 2300, 3300), SILENT, SILENT, 0, 1),
        (0.01, (300, 900, 2300, 3300), SILENT, -14, 1000, 900),
        (0.03, (400, 900, 2300, 3300), SILENT, -24, 1500, 1200),
    ),
    "t": (
        (0.06, (300, 1800, 2600, 3500), SILENT, SILENT, 0, 1),
        (0.01, (300, 1800, 2600, 3500), SILENT, -8, 4500, 1500),
        (0.035, (400, 1800, 2600, 3500), SILENT, -20, 4000, 2000),
    ),
    "k": (
        (0.06, (300, 2000, 2300, 3400), SILENT, SILENT, 0, 1),
        (0.015, (300, 2000, 2300, 3400), SILENT, -9, 2100, 600),
        (0.04, (400, 2000, 2300, 3400), SILENT, -22, 2200, 1200),
    ),
    "b": (
        (0.06, (220, 900, 2300, 3300), -20, SILENT, 0, 1),
        (0.01, (250, 900, 2300, 3300), -12, -20, 900, 800),
    ),
    "d": (
        (0.05, (220, 1800, 2600, 3500), -20, SILENT, 0, 1),
        (0.01, (250, 1800, 2600, 3500), -12, -14, 4000, 1500),
    ),
    "g": (
        (0.05, (220, 2000, 2300, 3400), -20, SILENT, 0, 1),
        (0.015, (250, 2000, 2300, 3400), -12, -15, 2000, 600),
    ),
}
ONSETS = tuple(CONSONANTS.values())
CODAS = tuple(CONSONANTS[name] for name in ("m", "n", "l", "r", "s", "z", "sh", "f", "t", "k", "d"))
BANDWIDTHS = (80, 100, 140, 220)  # of F1-F4 in Hz; the fixed formants above have 300


@dataclass(frozen=True)
class Voice:
    """What makes one synthetic speaker differ from the next."""

    f0: float  # Hz, the middle of the intonation
    tract: float  # all formants are multiplied by it: 1.0 a man's vocal tract, 1.18 a woman's
    rate: float  # syllables per second
    liveliness: float  # semitones that accents move the pitch by
    tilt: float  # Hz from where the voice falls another 6 dB per octave
    breath_db: float  # power of the aspiration noise re the glottal pulses


def voice(number: int) -> Voice:
    """The voice of this number, any int >= 0; odd numbers are higher voices than even ones."""
    rng = np.random.default_rng([0x5EECC, number])
    high = number % 2
    return Voice(
        f0=rng.uniform(165, 235) if high else rng.uniform(85, 145),
        tract=rng.uniform(1.1, 1.24) if high else rng.uniform(0.92, 1.06),
        rate=rng.uniform(3.8, 5.4),
        liveliness=rng.uniform(1.5, 5.0),
        tilt=rng.uniform(900, 3000),
        breath_db=rng.uniform(-18, -8),
    )


def speech(
    samples: int, sample_rate: int, rng: np.random.Generator, voice_number: int
) -> np.ndarray:
    """Synthetic speech (T,) float32 of one voice, RMS -25 dB re full scale; never silent."""
    if samples < sample_rate:  # it might fall into a pause: cut it out where someone speaks
        longer = speech(2 * sample_rate, sample_rate, rng, voice_number)
        loudest = int(np.argmax(np.abs(longer)))
        start = min(max(0, loudest - samples // 2), longer.size - samples)
        return longer[start : start + samples]
    who = voice(voice_number)
    segments, pitch = _utterance(who, samples / sample_rate, rng)
    out = _voiced(who, segments, pitch, samples, sample_rate, rng)
    out += _unvoiced(segments, samples, sample_rate, rng)
    return level.normalise_to_rms(out, -25).astype(np.float32)


def _utterance(who, seconds, rng):
    """Phrases of syllables for at least `seconds`.

    Returns (segments, pitch): one row per segment (start s, end s, F1-F4 Hz, voice dB, noise dB,
    noise centre Hz, noise width Hz), and two per syllable (time s, F0 Hz).
    """
    rows, pitch = [], []
    rest = (300, 1500, 2500, 3500)
    now = 0.0

    def say(duration, formants, voice_db, noise_db, centre, width):
        nonlocal now
        rows.append((now, now + duration, *formants, voice_db, noise_db, centre, width))
        now += duration

    say(0.02 + 0.25 * rng.random(), rest, SILENT, SILENT, 0, 1)
    while now < seconds:
        count = int(rng.integers(3, 10))
        for i, draw in enumerate(rng.random((count, 11)).tolist()):
            last = i == count - 1
            stress_db = 3 * draw[0] - 4 * i / count - 3 * last
            if draw[1] < 0.85:
                for segment in ONSETS[int(draw[2] * len(ONSETS))]:
                    say(*segment)
            begin = now
            length = (0.3 + 0.5 * draw[3] + 0.3 * last) / who.rate
            first = VOWELS[int(draw[4] * len(VOWELS))]
            say(length, first, stress_db, SILENT, 0, 1)
            if draw[5] < 0.25:
                second = VOWELS[int(draw[6] * len(VOWELS))]
                say(0.5 * length, second, stress_db - 2, SILENT, 0, 1)
            accent = draw[7] - 0.3 + 1.5 * (0.4 - i / count)
            for time, bend in ((begin, 0.0), (now, draw[10] - 0.6)):
                pitch.append((time, who.f0 * 2 ** (who.liveliness * (accent + bend) / 12)))
            if draw[8] < 0.4:
                for segment in CODAS[int(draw[9] * len(CODAS))]:
                    say(*segment)
        say(0.12 + 0.4 * rng.random() ** 2, rest, SILENT, SILENT, 0, 1)
    return np.array(rows), np.array(pitch)


def _track(segments, column, times, ramp_s):
    """A column of `segments` at `times`: held inside each segment, gliding across the borders."""
    start, end = segments[:, 0], segments[:, 1]
    ramp = np.minimum(ramp_s, (end - start) / 2.5)
    knots = np.stack([start + ramp, end - ramp], axis=1).ravel()  # (2 · segments,)
    return np.interp(times, knots, np.repeat(segments[:, column], 2))


def _voiced(who, segments, pitch, samples, sample_rate, rng):
    """Glottal pulses and breath through moving formants; (T,) float32, RMS 1 where voiced."""
    hop = round(0.01 * sample_rate)
    times = np.arange(samples // hop + 2) * hop / sample_rate  # centres of the frames
    voice_db = _track(segments, 6, times, 0.008)
    frames = np.flatnonzero(voice_db > -45)
    formants = [who.tract * _track(segments, 2 + k, times[frames], 0.03) for k in range(4)]

    pulses = np.zeros((times.size + 1) * hop + 1, np.float32)  # time 0 is at index hop
    at = _pulse_times(who, pitch, times[-1], rng)
    size = level.multiplier(_track(segments, 6, at, 0.008) + 0.4 * rng.standard_normal(at.size))
    where, between = np.divmod(at * sample_rate + hop, 1)
    pulses[where.astype(int)] = size * (1 - between)
    pulses[where.astype(int) + 1] += size * between

    breath = np.diff(rng.random(pulses.size + 1, np.float32))  # power 1/6, rising with frequency
    power = 6 * level.from_db(voice_db[frames] + who.breath_db) * who.f0 / sample_rate
    windows = _frames(breath, frames, hop)
    windows *= np.sqrt(power, dtype=np.float32)[:, None]
    windows += _frames(pulses, frames, hop)
    windows *= np.hanning(2 * hop + 1)[:-1].astype(np.float32)
    spectra = fft.rfft(windows, FRAME * hop) * _source(who, sample_rate, FRAME * hop)
    # In float64: at 48 kHz the low resonances cancel the coefficients to 1e-6 of their size.
    below = fft.rfft(_formant_polynomial(formants, sample_rate), FRAME * hop).astype(np.complex64)
    spectra *= below.conj()  # divides by it, twice as fast as a complex division
    spectra /= np.square(below.real) + np.square(below.imag)
    out = _overlap_add(spectra, frames, times.size, hop)[hop : hop + samples]
    return out / max(1e-9, np.sqrt(np.mean(out**2) * times.size / max(1, frames.size)))


def _pulse_times(who, pitch, seconds, rng):
    """Instants in s of the glottal pulses up to `seconds`, with flutter and 0.5 % of jitter."""
    t = np.arange(0, seconds, 0.004)
    f0 = np.interp(t, pitch[:, 0], pitch[:, 1])
    for rate in (12.7, 7.1, 4.7):  # Hz; Klatt & Klatt, JASA 87, 1990, equation 1
        f0 *= 1 + 0.005 * np.sin(2 * np.pi * (rate * t + rng.random()))
    cycles = np.cumsum(f0) * 0.004
    at = np.interp(np.arange(cycles[0], cycles[-1]), cycles, t)
    at += 0.005 / who.f0 * rng.standard_normal(at.size)
    return np.clip(at, 0, seconds)


def _frames(signal, frames, hop):
    """Copies (N, 2 hop) of the stretches of `signal` that start at `frames` · hop."""
    return np.lib.stride_tricks.sliding_window_view(signal, 2 * hop)[::hop][frames]


def _overlap_add(spectra, frames, count, hop):
    """Sum of the inverse transforms, each FRAME hops long and starting at `frames` · hop."""
    blocks = fft.irfft(spectra, FRAME * hop).reshape(-1, FRAME, hop)  # (N, FRAME, hop)
    out = np.zeros((count + FRAME, hop), np.float32)
    for k in range(FRAME):
        out[frames + k] += blocks[:, k]
    return out.ravel()


def _source(who, sample_rate, n):
    """Response (n/2 + 1,) of glottis, lips and the formants above F4, all fixed.

    The glottis falls by 12 dB per octave, radiation lifts by 6; higher formants lie 1 kHz apart.
    """
    z = np.exp(-2j * np.pi * np.arange(n // 2 + 1) / n)
    response = 1 - 0.995 * z
    for corner in (100, 100, who.tilt):
        response /= 1 - np.exp(-2 * np.pi * corner / sample_rate) * z
    centre = 4500 * who.tract
    while centre < 0.48 * sample_rate:
        b1, b2 = _resonance(centre, 300, sample_rate)
        response *= (1 + b1 + b2) / (1 + b1 * z + b2 * z**2)
        centre += 1000 * who.tract
    return response.astype(np.complex64)


def _resonance(centre, bandwidth, sample_rate):
    """Coefficients (b1, b2) of the resonator 1 / (1 + b1/z + b2/z²); Klatt, JASA 67, 1980."""
    radius = np.exp(-np.pi * bandwidth / sample_rate)
    return -2 * radius * np.cos(2 * np.pi * centre / sample_rate), radius**2


def _formant_polynomial(formants, sample_rate):
    """Denominator (N, 9) of four resonators in cascade, each 1 at 0 Hz; formants: 4 × (N,) Hz."""
    poly = np.zeros((formants[0].size, 9))
    poly[:, 0] = 1
    for centre, bandwidth in zip(formants, BANDWIDTHS, strict=True):
        b1, b2 = _resonance(np.minimum(centre, 0.48 * sample_rate), bandwidth, sample_rate)
        last = poly.copy()
        poly[:, 1:] += b1[:, None] * last[:, :-1]
        poly[:, 2:] += b2 * last[:, :-2]
        poly /= (1 + b1 + b2)[:, None]
    return poly


def _unvoiced(segments, samples, sample_rate, rng):
    """Fricatives and bursts (T,) float32: noise in bands, at their levels re an RMS of 1."""
    hop = round(0.004 * sample_rate)
    times = np.arange(samples // hop + 2) * hop / sample_rate
    noise_db = _track(segments, 7, times, 0.003)
    frames = np.flatnonzero(noise_db > -50)
    row = np.searchsorted(segments[:, 1], times[frames]).clip(max=len(segments) - 1)
    centre, width = segments[row, 8:9], segments[row, 9:10]
    n = FRAME * hop
    frequencies = np.arange(n // 2 + 1) * sample_rate / n
    shape = np.exp(-0.5 * ((frequencies - centre) / width) ** 2)
    # A band of this shape keeps width · √π / Nyquist of the power of white noise.
    power = level.from_db(noise_db[frames]) / (width[:, 0] * 2 * np.sqrt(np.pi) / sample_rate)
    shape *= np.sqrt(12 * power)[:, None]
    windows = rng.random((frames.size, 2 * hop), np.float32)
    windows -= 0.5  # power 1/12
    # The noise of each frame is its own: sine windows, whose squares add up to one.
    windows *= np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(np.float32)
    spectra = fft.rfft(windows, n) * shape.astype(np.float32)
    return _overlap_add(spectra, frames, times.size, hop)[hop : hop + samples]


def noise(samples: int, sample_rate: int, rng: np.random.Generator, kind: str) -> np.ndarray:
    """Synthetic noise (T,) float32, RMS -25 dB re full scale, of a kind in NOISES."""
    out = NOISES[kind](samples, sample_rate, rng)
    return level.normalise_to_rms(out, -25).astype(np.float32)


def draw_noise_kind(rng: np.random.Generator) -> str:
    """One of the names in NOISES, all equally likely."""
    return list(NOISES)[int(rng.integers(len(NOISES)))]


def coloured(samples: int, sample_rate: int, rng: np.random.Generator, db_per_octave: float) -> Any:
    """Gaussian noise (T,) whose power rises by `db_per_octave`; nothing below 20 Hz."""
    n = fft.next_fast_len(samples, real=True)
    spectrum = rng.standard_normal(n // 2 * 2 + 2, np.float32).view(np.complex64)
    frequencies = np.arange(n // 2 + 1, dtype=np.float32) * (sample_rate / n)
    start = int(np.searchsorted(frequencies, 20))
    spectrum[:start] = 0
    spectrum[start:] *= (frequencies[start:] / 1000) ** np.float32(db_per_octave / 6.0206)
    return fft.irfft(spectrum, n)[:samples]


def _babble(samples, sample_rate, rng):
    """Many voices at once: three synthetic utterances, each also played backwards and shifted."""
    out = np.zeros(samples, np.float32)
    for _ in range(3):
        one = speech(samples, sample_rate, rng, int(rng.integers(1 << 30)))
        out += one
        for size in (0.7, 0.5):
            out += np.float32(size) * np.roll(one[::-1], int(rng.integers(samples)))
    return out


def _fan(samples, sample_rate, rng):
    """A motor: hum with harmonics on a slightly unsteady pitch, over pink rushing air."""
    t = np.arange(samples) / sample_rate
    f0 = rng.uniform(45, 250)
    cycle = np.zeros(513, np.complex64)
    count = int(min(40, 0.45 * sample_rate / f0))
    cycle[1 : count + 1] = rng.standard_normal(2 * count).view(np.complex128)
    cycle[1 : count + 1] /= np.arange(1, count + 1) ** rng.uniform(0.5, 1.5)
    phase = f0 * t + rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * rng.uniform(0.1, 1.0) * t)
    hum = fft.irfft(cycle, 1024)[(phase * 1024).astype(np.int64) % 1024]
    air = coloured(samples, sample_rate, rng, -3)
    return hum / np.std(hum) + rng.uniform(0.1, 1.5) * air / np.std(air)


def _gusts(samples, sample_rate, rng):
    """Wind: brown noise that swells and falls within a second or so."""
    knots = np.arange(0, samples + sample_rate, max(1, sample_rate // 3))
    swell = np.interp(np.arange(samples), knots, rng.standard_normal(knots.size))
    return coloured(samples, sample_rate, rng, -6) * level.multiplier(8 * swell)


def _pulsing(samples, sample_rate, rng):
    """Pink noise chopped at a steady rate: a helicopter, a saw, a train on its rails."""
    t = np.arange(samples) / sample_rate
    wave = np.sin(2 * np.pi * rng.uniform(1, 15) * t)
    return coloured(samples, sample_rate, rng, rng.uniform(-6, 0)) * np.exp(2 * wave)


def _impacts(samples, sample_rate, rng, per_second, ring_s):
    """Poisson impulses of random sizes, each ringing on a few resonances for about `ring_s`."""
    count = 1 + rng.poisson(per_second * samples / sample_rate)
    impulses = np.zeros(samples, np.float32)
    impulses[rng.integers(samples, size=count)] = level.multiplier(rng.normal(0, 6, count))
    t = np.arange(int(7 * ring_s * sample_rate) + 1) / sample_rate
    body = rng.standard_normal(t.size)
    for frequency in rng.uniform(150, 0.3 * sample_rate, 4):
        body += rng.uniform(0, 2) * np.sin(2 * np.pi * frequency * t)
    body *= np.exp(-t / ring_s)
    return room.convolve(impulses, body.astype(np.float32))


def _knocks(samples, sample_rate, rng):
    return _impacts(samples, sample_rate, rng, rng.uniform(1, 6), rng.uniform(0.01, 0.05))


def _clicks(samples, sample_rate, rng):
    return _impacts(samples, sample_rate, rng, rng.uniform(3, 20), rng.uniform(0.0005, 0.004))


def _crackle(samples, sample_rate, rng):
    return _impacts(samples, sample_rate, rng, rng.uniform(40, 400), rng.uniform(0.0002, 0.002))


NOISES = {  # name -> function(samples, sample_rate, rng) -> (T,)
    "white": lambda n, rate, rng: coloured(n, rate, rng, 0),
    "pink": lambda n, rate, rng: coloured(n, rate, rng, -3.0103),
    "brown": lambda n, rate, rng: coloured(n, rate, rng, -6.0206),
    "blue": lambda n, rate, rng: coloured(n, rate, rng, 3.0103),
    "babble": _babble,
    "fan": _fan,
    "gusts": _gusts,
    "pulsing": _pulsing,
    "knocks": _knocks,
    "clicks": _clicks,
    "crackle": _crackle,
}


def rir(sample_rate: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A synthetic room: (RIR (R,) float32, its rt60 in s), from a closet to a small hall."""
    rt60_s = float(rng.uniform(0.15, 0.8))
    ratio_db = float(rng.uniform(-3, 9))
    return room.synthetic_rir(rt60_s, sample_rate, rng, direct_to_reverberant_db=ratio_db), rt60_s
