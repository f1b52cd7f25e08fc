"""A separation task to learn in minutes: an AM/FM tone in noise against two or three sines."""

from dataclasses import dataclass

import numpy as np

from sepcli.dsp import level
from sepcli.mixing.source import Drawn, Source
from sepcli.mixing.specs import Spec, decibels, limited


@dataclass(frozen=True)
class ToySpec(Spec):
    """What a snippet is like.

    sample_rate: Hz. duration_s: length. noise_db: level of the white noise re the modulated tone.
    level_db: RMS of each source re full scale, drawn from the range for each source on its own.
    """

    sample_rate: int = limited(16000, 1)
    duration_s: float = limited(1.0, 0, 3600, above=True)
    noise_db: float = limited(-20.0, -200, 200)
    level_db: tuple[float, float] = decibels(-26, -20)

    def __post_init__(self):
        super().__post_init__()
        enough = round(self.duration_s * self.sample_rate) >= 1
        self._check("duration_s", enough, "one sample or more")


class Toy(Source):
    """Snippets by number: `draw(seed, index)` depends on nothing but its arguments."""

    def __init__(self, spec: ToySpec | None = None) -> None:
        self.spec = spec or ToySpec()
        samples = round(self.spec.duration_s * self.spec.sample_rate)
        self._time = np.arange(samples) / self.spec.sample_rate  # seconds

    def draw(self, seed: int, index: int, step: int | None = None) -> Drawn:
        """Snippet `index` of the stream `seed`; its mix is the sum of its refs, all (1, T)."""
        rng = np.random.default_rng([seed, index])
        sources = {"modulated": self._modulated(rng), "sines": self._sines(rng)}
        refs = {name: self._at_level(x, rng)[None] for name, x in sources.items()}  # (1, T)
        return Drawn(np.sum(list(refs.values()), 0), refs)

    def _modulated(self, rng):
        """A 200-3000 Hz carrier, swung by up to 20 % and swelling at 1-8 Hz, in white noise."""
        carrier, depth = rng.uniform(200, 3000), rng.uniform(0.3, 0.9)
        fm_rate, am_rate = rng.uniform(1, 8, 2)
        fm_phase, am_phase, phase = rng.uniform(0, 2 * np.pi, 3)
        swing = carrier * rng.uniform(0.02, 0.2) / fm_rate  # modulation index, radians
        t = 2 * np.pi * self._time
        tone = np.sin(carrier * t + swing * np.sin(fm_rate * t + fm_phase) + phase)
        tone *= 1 + depth * np.sin(am_rate * t + am_phase)
        noise = rng.standard_normal(len(t), dtype=np.float32)
        return tone + noise * level.snr_multiplier(noise, tone, -self.spec.noise_db)

    def _sines(self, rng):
        """Two or three steady sines of 100-4000 Hz."""
        count = rng.integers(2, 4)
        frequencies = rng.uniform(100, 4000, count)
        phases, gains = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 1.0, count)
        waves = zip(frequencies, phases, gains, strict=True)
        return sum(g * np.sin(2 * np.pi * f * self._time + p) for f, p, g in waves)

    def _at_level(self, x, rng):
        return level.normalise_to_rms(x, rng.uniform(*self.spec.level_db)).astype(np.float32)
