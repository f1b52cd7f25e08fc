"""Songs out of nothing: generated scores, sampled instruments, and speech set to their melodies.

    python3 render.py FOLDER FIRST:END VOICES...

makes FOLDER/song-N/vocals.flac and accompaniment.flac, stereo, 44.1 kHz, 40 s each. VOICES are
folders of speech, one speaker each. Needs mido and pyworld, and fluidsynth with the soundfonts of
Debian's fluid-soundfont-gm (MIT) and timgm6mb-soundfont (GPL-2). Song N is a function of N and of
the voices.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import mido
import numpy as np
import pyworld
import soundfile
from scipy import signal

RATE, SECONDS, HOP_MS = 44100, 40.0, 5.0
FONTS = ("FluidR3_GM", "FluidR3_GM", "TimGM6mb")
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
CHORDS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 4), (1, 4, 0, 0), (0, 2, 3, 4))
HARMONY = (
    0,
    1,
    4,
    5,
    6,
    7,
    16,
    17,
    19,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    48,
    50,
    51,
    61,
    62,
    80,
    88,
    89,
    90,
)
LEADS = (11, 12, 22, 40, 56, 60, 64, 65, 66, 68, 71, 73, 75, 79, 80, 81, 84, 104, 105, 27, 29, 30)
BASSES = (32, 33, 34, 35, 36, 38, 39)
KICKS = ("x...x...", "x..x..x.", "x.x.x.x.", "x....x..", "x.......")
SNARES = ("..x...x.", "....x...", "..x..xx.", "......x.", "........")


def score(rng):
    """A song: (tempo in beats per minute, key, scale, degrees of its chords, melody).

    The melody is [(start in beats, length, degree)], with rests between its phrases.
    """
    bpm, key = rng.uniform(68, 160), int(rng.integers(12))
    scale, chords = SCALES[rng.integers(len(SCALES))], CHORDS[rng.integers(len(CHORDS))]
    beats, at, degree, melody = SECONDS * bpm / 60, float(rng.choice((0, 2, 4))), 0, []
    steps = (
        np.array((0.25, 0.5, 0.5, 1, 1, 1.5, 2, 4)) if bpm < 110 else np.array((0.5, 1, 1, 2, 2, 4))
    )
    while at < beats - 2:
        for _ in range(int(rng.integers(4, 14))):
            length = float(rng.choice(steps))
            chord = chords[int(at // 4) % 4]
            leap = rng.random() < 0.35
            degree = (
                int(rng.choice((0, 2, 4))) + chord % 7
                if leap
                else degree + int(rng.integers(-2, 3))
            )
            degree = degree - 7 if degree > 8 else degree + 7 if degree < -4 else degree
            melody.append((at, length, degree))
            at += length
        at = np.ceil(at) + float(rng.choice((0, 0.5, 1, 2, 4)))
    return bpm, key, scale, chords, [note for note in melody if sum(note[:2]) < beats]


def pitch(key, scale, degree):
    """Semitones above C of a degree of a scale."""
    return key + 12 * (degree // 7) + scale[degree % 7]


def midi(song, rng):
    """The accompaniment as a MIDI file."""
    bpm, key, scale, chords, melody = song
    events, beats = [], int(SECONDS * bpm / 60)

    def note(channel, number, start, length, velocity):
        start += rng.normal(0, 0.008)
        velocity = int(np.clip(velocity * rng.normal(1, 0.08), 1, 127))
        events.append((max(0.0, start), "note_on", channel, number, velocity))
        events.append((max(0.05, start + length), "note_off", channel, number, 0))

    def setup(channel, program, volume, pan):
        events.append((0.0, "program_change", channel, program, None))
        for control, value in ((7, volume), (10, pan), (91, int(rng.integers(0, 90)))):
            events.append((0.0, "control_change", channel, control, int(value)))

    setup(0, int(rng.choice(BASSES)), rng.uniform(70, 110), 64)
    figure = rng.choice((0.5, 1, 2, 4))
    for beat in np.arange(0, beats, figure):
        root = pitch(key, scale, chords[int(beat // 4) % 4]) % 12 + 36
        root += int(rng.choice((0, 0, 0, 7, 12)))
        note(0, root, beat, figure * rng.uniform(0.6, 1), 90)
    for channel in range(1, 1 + int(rng.integers(1, 5))):
        setup(channel, int(rng.choice(HARMONY)), rng.uniform(45, 100), rng.uniform(10, 118))
        style, octave = rng.integers(3), 12 * int(rng.integers(4, 7))
        pattern = rng.random(8) < rng.uniform(0.2, 0.8)
        begin = int(rng.choice((0, 0, 8, 16)))
        for bar in range(begin, beats, 4):
            tones = [pitch(key, scale, chords[bar // 4 % 4] + d) % 12 + octave for d in (0, 2, 4)]
            for n in range(8):
                if style == 0 and n == 0:
                    [note(channel, t, bar, 3.9, 70) for t in tones]
                elif style == 1 and pattern[n]:
                    [note(channel, t, bar + n / 2, 0.4, 75) for t in tones]
                elif style == 2:
                    note(channel, tones[n % 3] + 12 * (n % 2), bar + n / 2, 0.5, 70)
    if rng.random() < 0.45:  # a melody like that of a voice
        setup(7, int(rng.choice(LEADS)), rng.uniform(50, 95), rng.uniform(20, 108))
        later = float(rng.choice((0, 1, 4)))
        for at, length, degree in melody:
            if rng.random() < 0.8:
                n = pitch(key, scale, degree + int(rng.choice((0, 2, -3)))) + 60
                note(7, n, at + later, length, 80)
    if rng.random() < 0.85:
        setup(9, int(rng.choice((0, 8, 16, 24, 25, 32, 40))), rng.uniform(60, 115), 64)
        kick, snare = KICKS[rng.integers(5)], SNARES[rng.integers(5)]
        hat, open_ = int(rng.choice((42, 44, 51, 70, 82))), rng.uniform(0.3, 1)
        for n in range(2 * beats):
            hits = [(36, 100)] * (kick[n % 8] == "x") + [(38, 95)] * (snare[n % 8] == "x")
            hits += [(hat, 65)] * (rng.random() < open_) + [(49, 80)] * (n % 64 == 0)
            if n % 32 > 28 and rng.random() < 0.5:
                hits.append((int(rng.choice((41, 45, 48))), 90))
            for drum, velocity in hits:
                note(9, drum, n / 2, 0.2, velocity)
    return written(sorted(events, key=lambda e: (e[0], e[1] == "note_on")), bpm)


def written(events, bpm):
    """Events (beat, message, channel, number, value) as a MIDI file."""
    track, last = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))]), 0
    for beat, kind, channel, number, value in events:
        tick = round(beat * 480)
        keys = {"note_on": ("note", "velocity"), "note_off": ("note", "velocity")}
        keys |= {"program_change": ("program",), "control_change": ("control", "value")}
        about = dict(zip(keys[kind], (number, value), strict=False))
        track.append(mido.Message(kind, channel=channel, time=tick - last, **about))
        last = tick
    return mido.MidiFile(tracks=[track])


def played(file, rng):
    """A MIDI file as it sounds, (2, T)."""
    with tempfile.TemporaryDirectory() as folder:
        score, out = Path(folder, "song.mid"), Path(folder, "song.wav")
        file.save(score)
        font = f"/usr/share/sounds/sf2/{FONTS[rng.integers(len(FONTS))]}.sf2"
        command = ["fluidsynth", "-niq", "-g", "0.5", "-r", str(RATE), "-F", out, font, score]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        return soundfile.read(out, always_2d=True)[0].T[:, : round(SECONDS * RATE)]


def speech(folder, rng, seconds):
    """(speech (T,) of a speaker, its rate)."""
    parts, missing = [], seconds
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix in (".flac", ".ogg", ".wav"))
    while missing > 0:
        part, rate = soundfile.read(files[rng.integers(len(files))])
        part = part if part.ndim == 1 else part.mean(1)
        parts.append(part)
        missing -= len(part) / rate
    return np.ascontiguousarray(np.concatenate(parts), np.float64), rate


def sung(song, folder, rng):
    """The melody as a speaker would sing it, (T,)."""
    bpm, key, scale, _, melody = song
    x, rate = speech(folder, rng, 26)
    f0, times = pyworld.dio(x, rate, frame_period=HOP_MS)
    f0 = pyworld.stonemask(x, f0, times, rate)
    envelope, noise = pyworld.cheaptrick(x, f0, times, rate), pyworld.d4c(x, f0, times, rate)
    frames = round(SECONDS * 1000 / HOP_MS)
    middle = np.median(f0[f0 > 0]) * rng.uniform(1.0, 1.7)  # people sing higher than they speak
    octave = 12 * round((69 + 12 * np.log2(middle / 440) - 62 - key) / 12)
    notes = np.zeros(frames)
    for at, length, degree in melody:
        a, b = (
            round(beat * 60000 / bpm / HOP_MS) for beat in (at, at + length * rng.uniform(0.85, 1))
        )
        notes[a:b] = 62 + octave + pitch(key, scale, degree)
    singing, at, place = notes > 0, 0.0, np.zeros(frames)
    pace = rng.uniform(0.5, 1.1)
    voiced = f0 > 0
    for n in range(frames):  # the mouth goes on while there are notes, slower in vowels
        place[n] = at
        if singing[n]:
            at += pace * (0.75 if voiced[int(at) % len(f0)] else 1.3)
    index = place.astype(int) % len(f0)
    known = np.flatnonzero(singing)
    line = np.interp(np.arange(frames), known, notes[known])
    glide = np.hanning(2 * int(rng.integers(4, 14)) + 1)
    line = np.convolve(np.pad(line, len(glide) // 2, mode="edge"), glide / glide.sum(), "valid")
    t = np.arange(frames) * HOP_MS / 1000
    held = np.convolve(np.abs(np.gradient(line)) < 0.02, np.ones(60) / 60, "same")
    vibrato = (
        rng.uniform(0, 0.7)
        * held
        * np.sin(
            2
            * np.pi
            * np.cumsum(rng.uniform(4.8, 6.6) + rng.normal(0, 0.4, frames))
            * HOP_MS
            / 1000
        )
    )
    drift = np.interp(t, np.arange(0, SECONDS + 1, 0.5), rng.normal(0, 0.12, int(SECONDS * 2) + 2))
    pitches = 440 * 2 ** ((line + vibrato + drift - 69) / 12)
    pitches = np.where(voiced[index] & singing, pitches, 0.0)
    breath = rng.uniform(1, 1.6)
    y = pyworld.synthesize(
        pitches, envelope[index], np.clip(noise[index] ** (1 / breath), 0, 1), rate, HOP_MS
    )
    loud = np.interp(np.arange(len(y)) / rate, t, np.convolve(singing, np.ones(9) / 9, "same"))
    y = y * loud
    if rate != RATE:
        y = signal.resample_poly(y, RATE // 100, rate // 100)
    return y[: round(SECONDS * RATE)] / (np.sqrt(np.mean(y**2)) + 1e-9)


def pressed(x, rng):
    """A signal (C, T) through a compressor."""
    level = np.sqrt(signal.lfilter([0.001], [1, -0.999], (x**2).mean(0)) + 1e-6)
    return x * (level / np.sqrt(np.mean(x**2))) ** -rng.uniform(0, 0.5)


def song(number, voices):
    """Song `number`: (vocals, accompaniment), (2, T) each."""
    rng = np.random.default_rng([number, 20])
    written_song = score(rng)
    music = played(midi(written_song, rng), rng)
    folder = voices[rng.integers(len(voices))]
    lead = sung(written_song, folder, rng)
    lead = pressed(np.stack([lead, lead]), rng)
    if rng.random() < 0.35:  # a second voice, or the same once more
        bpm, key, scale, chords, melody = written_song
        higher = int(rng.choice((0, 0, 2, -2, 4, -3)))
        other = [(a, b, d + higher) for a, b, d in melody if rng.random() < 0.9]
        second = sung((bpm, key, scale, chords, other), folder, rng)
        side = rng.uniform(0.2, 1)
        lead = lead + 10 ** (rng.uniform(-14, -3) / 20) * np.stack([second, side * second])
    T = min(lead.shape[1], music.shape[1])
    lead, music = lead[:, :T], music[:, :T]
    music = pressed(music / (np.sqrt(np.mean(music**2)) + 1e-9), rng)
    lead = lead * 10 ** (rng.normal(-4, 3) / 20)
    scale = 0.9 / np.abs(lead + music).max()
    return scale * lead, scale * music


def main():
    folder, numbers, *voices = sys.argv[1:]
    for number in range(*map(int, numbers.split(":"))):
        place = Path(folder, f"song-{number:03}")
        if (place / "accompaniment.flac").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name, sound in zip(("vocals", "accompaniment"), song(number, voices), strict=True):
            soundfile.write(place / f"{name}.flac", sound.T, RATE)


if __name__ == "__main__":
    main()
