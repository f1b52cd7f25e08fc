"""Names of stems: their order, what else they are called, and which add up to others."""

from collections.abc import Sequence

from sepcli.files import composed

VOCALS, ACCOMPANIMENT, MIXTURE = "vocals", "accompaniment", "mixture"
STEMS = (VOCALS, "drums", "bass", "other", ACCOMPANIMENT)  # MUSDB's, in its order
STEM_FILE = ".stem.mp4"  # what files of MUSDB18 with all stems of a song end in
STEM_TRACKS = (MIXTURE, "drums", "bass", "other", VOCALS)  # their audio tracks
SAME = {  # other names of a stem
    "accomp": ACCOMPANIMENT,
    "instrumental": ACCOMPANIMENT,
    "no_vocals": ACCOMPANIMENT,
}


def stem_order(name: str) -> tuple[int, str]:
    """Sort key: MUSDB's stems in its order, then all others by name."""
    return STEMS.index(name) if name in STEMS else len(STEMS), name


def stem_name(name: str) -> str:
    """What a stem is called here: `name` itself unless that is another word for one in `STEMS`."""
    return SAME.get(name) or composed(name)


def is_music(names: Sequence[str]) -> bool:
    """Whether signals of these names are stems of a song: one is MUSDB's, and not only `other`."""
    return not set(STEMS).isdisjoint(set(map(stem_name, names)) - {"other"})


def parts_of_accompaniment(names: Sequence[str]) -> list[str]:
    """Those of the stems called `names` that add up to the accompaniment: all but the vocals.

    None without vocals among them, unless drums, bass and other are all there.
    """
    names = [name for name in names if stem_name(name) != ACCOMPANIMENT]
    if VOCALS in names or set(STEMS[1:4]) <= set(names):
        return [name for name in names if name != VOCALS]
    return []
