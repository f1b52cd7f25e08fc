"""What the arguments of a command stand for: inputs whose samples have distinct keys."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sepcli.cluster.objects import Remote, is_url
from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample
from sepcli.samples.streams import is_audio_file, read_samples

_CONTAINERS = (".tar", ".jsonl", ".h5")  # of objects whose samples only reading tells


@dataclass
class Input:
    """One argument, or one of the paths that a glob stands for.

    source: the path, or "-". known: its samples, if it is a folder or an audio file, which are
    known before anything is read; their keys differ from those of all other inputs.
    count: how many samples it has, None where only reading it tells.
    """

    source: str
    count: int | None = None
    known: list[Sample] = field(default_factory=list)
    _read: Callable[..., Iterable[Sample]] | None = None

    def samples(self, stdin: Any = None) -> Iterator[Sample] | Iterable[Sample]:
        """An iterator over the samples; SepcliError, from here or there, if that fails."""
        if self.count is not None:
            return iter(self.known)
        assert self._read is not None  # as its samples are not known
        return self._read(self.source, stdin=stdin)


def find_inputs(
    sources: Sequence[str], *, strict: bool = True, input_type: str = "auto"
) -> list[Input]:
    """A list of `Input`s for paths, globs or "-".

    Files and folders are looked up here, and given twice they count once. Where two of their
    samples would have the same key, as 01.wav of two discs, folders' names are put in front. What
    cannot be found is an input that fails when it is read.
    """
    inputs, seen = [], set()
    read = partial(read_samples, strict=strict, input_type=input_type)
    for source in (path for given in sources for path in expand(given)):
        known = None
        if source != "-" and (_is_listed(source) or is_audio_file(source, input_type)):
            known = _listed(read, source)
        if known is None:
            inputs.append(Input(source, _read=read))
            continue
        new = [sample for sample in known if _identity(sample) not in seen]
        seen.update(map(_identity, new))
        inputs.append(Input(source, len(new), new))
    _tell_apart(inputs)
    return inputs


def _is_listed(source):
    """Whether reading a source tells its samples before any is read."""
    return os.path.isdir(source) or (is_url(source) and not source.endswith(_CONTAINERS))


def expand(source: Any) -> list[str] | list[Any]:
    """The paths that a glob stands for, sorted; anything else stands for itself."""
    if source == "-" or os.path.lexists(source) or is_url(source):
        return [source]
    return sorted(glob.glob(source, recursive=True)) or [source]


def _listed(read, source):
    """The samples in a folder or file, or None where that fails, as it will again."""
    try:
        return list(read(source))
    except SepcliError:
        return None


def _identity(sample):
    """What is the same when a sample is met twice."""
    return sample.key, *(
        path if isinstance(path, Remote) else os.path.abspath(path)
        for path in sample.members.values()
    )


def _tell_apart(inputs):
    """Give the known samples of all inputs distinct keys."""
    samples = [(each, number) for each in inputs for number in range(len(each.known))]
    above = [folders_of(each.source) for each, _ in samples]
    names = [each.known[number].key for each, number in samples]
    in_folder = Counter(zip(above, names, strict=True))
    for place, (each, number) in enumerate(samples):
        if in_folder[above[place], names[place]] > 1:  # song.wav and song.flac
            names[place] = _with_extension(each.known[number])
    for key, (each, number) in zip(distinct(names, above), samples, strict=True):
        sample = each.known[number]
        if key != sample.key:
            each.known[number] = Sample(key, sample.meta, sample.members, sample.origin)


def distinct(names: Sequence[str], above: Any) -> list[str]:
    """`names` with as many of the folders `above` each in front as it takes to tell them apart."""
    longer = list(names)
    for level in range(1, 1 + max(map(len, above), default=0)):
        taken = Counter(longer)
        for place, name in enumerate(longer):
            if taken[name] > 1:
                longer[place] = "/".join((*above[place][-level:], names[place]))
    return longer


def folders_of(source: Any) -> tuple[str, ...]:
    """The names of the folders that a source is in, or is, from the top."""
    place = Path(os.path.abspath(source))
    return place.parts[1:] if os.path.isdir(source) else place.parent.parts[1:]


def _with_extension(sample):
    path = next(iter(sample.members.values()))
    return path.name if len(sample.members) == 1 and path.stem == sample.key else sample.key
