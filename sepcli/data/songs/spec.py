"""What songs are like: the settings of the kind `songs`."""

from dataclasses import dataclass

from sepcli.mixing.specs import Spec, decibels, limited, probability, rate


@dataclass(frozen=True)
class SongSpec(Spec):
    """What is kept in memory, and what is made of it. A pair is a range to draw from.

    In memory, drawn once, in stereo:
    songs: sources of songs with vocals and accompaniment, see `StemSpec.stems`. vocals, music:
        sources of recordings of voices alone, and of music without any, see `Pool`; where none of
        the three is named, they are synthetic.
    songs_minutes, vocals_minutes, music_minutes: of sound, in excerpts of `excerpt_s`. min_rms_db:
        recordings alone are drawn again where they are quieter than this, re full scale.
    halls: pairs of synthetic responses, of an RT60 of `rt60_s`, `hall_s` long at most.

    Anew for every item:
    duration_s: its length. sample_rate: Hz.
    together: how often vocals from a song have their own accompaniment; it is as loud as it was,
        but for `gain_db`. Else `vocals_db` is the level of the vocals re the accompaniment.
    speed, music_speed: how much faster either is played, with probability speed_prob.
    equaliser_db, music_equaliser_db: standard deviation of the gains of a random equaliser, with
        probability equaliser_prob.
    varying_db: largest standard deviation of gains that vary smoothly over time and frequency, with
        probability varying_prob, of either.
    second_prob: how often there is a second voice, second_db re the first: in doubled_prob of these
        it is the first once more, a little later and at another speed.
    pan_db: largest difference of the channels' gains, of voices. width: gain of the accompaniment's
        side signal. swap: left and right are swapped half of the time.
    hall_prob: how often voices are in a hall, `hall_db` re the voice.
    pause_prob: how often the vocals begin or end in the middle. instrumental: how often there are
        none. alone: how often there is nothing else.
    low_pass_hz: cutoff of a low-pass filter on everything, with probability low_pass_prob.
    level_db: RMS of the mixture re full scale.
    Raises SepcliError for a value that makes no sense.
    """

    songs: tuple[str, ...] = ()
    vocals: tuple[str, ...] = ()
    music: tuple[str, ...] = ()
    songs_minutes: float = limited(20.0, 0)
    vocals_minutes: float = limited(20.0, 0)
    music_minutes: float = limited(20.0, 0)
    excerpt_s: float = limited(10.0, 0.01, 3600)
    min_rms_db: float = limited(-45.0, -200, 200)
    halls: int = limited(64, 1)
    rt60_s: tuple[float, float] = limited((0.3, 3.0), 0, above=True)
    hall_s: float = limited(1.2, 0, above=True)
    duration_s: float = limited(5.92, 0.01, 3600)
    sample_rate: int = rate(44100)
    together: float = probability(0.5)
    gain_db: tuple[float, float] = decibels(-4, 4)
    vocals_db: tuple[float, float] = decibels(-14, 6)
    speed: tuple[float, float] = limited((1.0, 1.0), 0.25, 4)
    music_speed: tuple[float, float] = limited((1.0, 1.0), 0.25, 4)
    speed_prob: float = probability(0.5)
    equaliser_db: float = limited(0.0, 0, 60)
    music_equaliser_db: float = limited(0.0, 0, 60)
    equaliser_prob: float = probability(0.5)
    varying_db: float = limited(0.0, 0, 60)
    varying_prob: float = probability()
    second_prob: float = probability()
    second_db: tuple[float, float] = decibels(-15, 0)
    doubled_prob: float = probability(0.5)
    pan_db: float = limited(0.0, 0, 60)
    width: tuple[float, float] = limited((1.0, 1.0), 0, 4)
    swap: bool = True
    hall_prob: float = probability()
    hall_db: tuple[float, float] = decibels(-24, -4)
    pause_prob: float = probability()
    instrumental: float = probability()
    alone: float = probability()
    low_pass_hz: tuple[float, float] = limited((9000.0, 18000.0), 1)
    low_pass_prob: float = probability()
    level_db: tuple[float, float] = decibels(-20, -20)

    def __post_init__(self):
        super().__post_init__()
        longest = self.duration_s * max(self.speed[1], self.music_speed[1])
        fits = f"at least {longest:g}, duration_s times the speed"
        self._check("excerpt_s", self.excerpt_s >= longest, fits)
        given = self.songs or (self.vocals and self.music)
        none = not (self.songs or self.vocals or self.music)
        self._check("songs", given or none, "songs with stems where not both vocals and music are")
