"""Pools of recordings: draw a file, and read a random stretch of it without the rest."""

import functools
import glob
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import audio
from sepcli.cluster import objects
from sepcli.cluster.objects import Remote, is_url
from sepcli.dsp import level
from sepcli.errors import SepcliError
from sepcli.files import entries, lines_of, read_text
from sepcli.recordings import stored
from sepcli.samples.sample import split_audio_name
from sepcli.signals.checks import is_path

LIST_EXTENSIONS = (".txt", ".jsonl")
TRIES = 100  # stretches that may be too quiet, one after the other, before that is an error
SHORTEST_S = 0.5  # what the level of a stretch is judged by, where its file is that long


class ExhaustedError(SepcliError):
    """No recording that may be drawn can be used."""


class Faults:
    """Recordings that cannot be used, and why. Each is an error, or else another one is drawn.

    spared: whether another one is drawn: by the same generator, so that what comes out is still a
    function of the seed and of which recordings can be read.
    """

    def __init__(self) -> None:
        self.spared = False
        self._found, self._lines = {}, {}

    def add(self, recording: Any, error: Exception) -> None:
        """Raise the error, unless recordings like this one are spared: then keep it for `take`."""
        if not self.spared:
            raise error
        self._found.setdefault(str(recording), str(error))

    def add_error(self, error: Exception) -> None:
        """`add` where only the error tells what cannot be used."""
        if not isinstance(error, ExhaustedError):  # of which each recording was added before
            self.add(str(error).partition(": ")[0], error)

    def until_good(self, make: Callable[[int], Any]) -> Any:
        """What make(attempt) returns, for attempts 0, 1, … of which the first has no fault.

        For what a single recording cannot be replaced in. Raises the SepcliError of the last.
        """
        for attempt in range(TRIES - 1):
            try:
                return make(attempt)
            except SepcliError as error:
                self.add_error(error)
        try:
            return make(TRIES - 1)
        except SepcliError as error:
            self.add_error(error)
            raise

    def add_line(self, line: stored.BadLine) -> None:
        """Keep a line of a list that makes no sense; `check_lines` tells whether that is one."""
        self._lines[str(line)] = self._found[str(line)] = line.reason

    def check_lines(self) -> None:
        """Raise SepcliError where a line of a list makes no sense, unless that is spared."""
        if self._lines and not self.spared:
            raise SepcliError(next(iter(self._lines.values())))

    def forget(self, recording: Any) -> None:
        """Drop a recording, since its error is raised after all."""
        self._found.pop(str(recording), None)

    def take(self) -> dict[Any, Any]:
        """{recording: why it cannot be used}, of those since the last call."""
        found, self._found = self._found, {}
        return found


class Pool:
    """Audio files to draw from.

    sources: folders (searched to any depth), globs, audio files, and lists: .txt with a path a
        line, or .jsonl with {"path": …} a line, both seen from the list's folder; packs and tars,
        see `stored.in_archive`. PATH=WEIGHT makes a source be drawn WEIGHT times as often as
        one without, however many files it has.
    what: what the files are, for messages. faults: what becomes of files that cannot be read.
    Raises SepcliError for a source that does not exist or has no audio in it, and when a file that
    was drawn cannot be read and `faults` do not spare it. Headers are read when a file is first
    drawn, and never again.
    """

    def __init__(
        self, sources: Sequence[str], *, what: str = "audio", faults: Faults | None = None
    ) -> None:
        self.what, self.faults = what, faults or Faults()
        self._bad = {}  # recordings of which nothing can be used, and the errors that say why
        self._lines = []  # of lists, that make no sense
        self.files, self.sources, weights = [], [], []  # of each source: recordings, where, weight
        for source in sources:
            path, weight = split_weight(source)
            packed = stored.in_archive(path, what)
            self.files.append(self._in_files(path) if packed is None else packed)
            self.sources.append(path)
            weights.append(weight)
        self._shares, self._headers = Shares(weights), stored.Headers()

    def _in_files(self, source):
        """The files of a source; lines of a list that make no sense are set aside."""
        found = find_audio(source)
        good = [path for path in found if not isinstance(path, stored.BadLine)]
        lines = [path for path in found if isinstance(path, stored.BadLine)]
        for line in lines:
            self.faults.add_line(line)
        if not good:
            raise SepcliError(lines[0].reason)
        self._lines += lines
        return good

    def recordings(self) -> Iterator[Any]:
        """All that may be drawn, in a fixed order, and lines that make no sense."""
        return itertools.chain(*self.files, self._lines)

    def crop(
        self,
        samples: int,
        sample_rate: int,
        rng: np.random.Generator,
        *,
        min_rms_db: float,
        among: Sequence[Any] | None = None,
        before: int = 0,
    ) -> tuple[np.ndarray, list[Any]]:
        """Draw (T,) float32 of `samples` at `sample_rate`, mono by mean over the channels.

        Returns (signal, pieces): where it comes from, a list of {"path", "start", "stop"} in
        frames at the file's rate. Stretches quieter than `min_rms_db` dB re full scale are drawn
        again, and files shorter than what is missing are followed by another draw.
        among: a list of recordings to draw from, instead of all. before: so many samples that come
        before the stretch are put in front of it, (before + T,), zeros where its file begins.
        """
        parts, pieces, missing, rejected = [], [], samples, 0
        lead = np.zeros(before, np.float32)
        while missing:
            path = self._draw_good(rng, among)
            wanted = max(missing, round(SHORTEST_S * sample_rate))
            lead_size = 0 if parts else before
            try:
                part, ahead, piece, rate = self._stretch(path, wanted, sample_rate, rng, lead_size)
            except SepcliError as error:
                self.faults.add(path, error)
                rejected += path not in self._bad  # but for a stretch of it
                if rejected == TRIES:
                    raise
                continue
            if not (part.size and level.rms_db(part, dtype=np.float32) > min_rms_db):
                rejected += 1
                if rejected == TRIES:
                    raise self.too_quiet(min_rms_db)
                continue
            if part.size > missing:
                part = part[:missing]
                used = math.ceil(missing * rate / sample_rate)
                piece["stop"] = piece["start"] + used
            if ahead.size:
                lead[-ahead.size :] = ahead
            missing -= part.size
            parts.append(part)
            pieces.append(piece)
            rejected = 0
        if before:
            parts.insert(0, lead)
        return parts[0] if len(parts) == 1 else np.concatenate(parts), pieces

    def draw(self, rng: np.random.Generator) -> Any:
        """The path of a file, or a recording in a pack: a source by weight, then one of its own."""
        return one_of(self.files[self.draw_source(rng)], rng)

    def draw_for(self, use: Callable[[Any], Any], rng: np.random.Generator) -> tuple[Any, Any]:
        """A drawn recording that can be used, and what `use` makes of it."""
        while True:
            path = self._draw_good(rng)
            try:
                return path, use(path)
            except SepcliError as error:
                self._bad[path] = error
                self.faults.add(path, error)

    def _draw_good(self, rng, among=None):
        """A recording, out of a list or of all, that is not known to be bad."""
        self.faults.check_lines()
        while True:
            path = one_of(among, rng) if among else self.draw(rng)
            if path not in self._bad:
                return path
            recordings = set(among) if among else self._all
            if recordings == {path}:
                self.faults.forget(path)
                raise self._bad[path]
            if self._bad.keys() >= recordings:
                raise ExhaustedError(f"{self.what}: no recording can be used; see above")

    @functools.cached_property
    def _all(self):
        return set(itertools.chain(*self.files))

    def draw_source(self, rng: np.random.Generator) -> int:
        """The number of a source, by weight."""
        return self._shares.draw(rng)

    def _stretch(self, path, samples, sample_rate, rng, before):
        """Up to `samples` from a random place of `path`, and up to `before` that come before it.

        Returns (stretch (T,), (T',), {"path", "start", "stop"} of the stretch, the file's rate).
        """
        try:
            frames, rate = self._headers[path]
        except SepcliError as error:
            self._bad[path] = error
            raise
        count = min(frames, math.ceil(samples * rate / sample_rate))
        start = int(rng.random() * (frames - count + 1))
        stop, first = start + count, start - min(start, before * rate // sample_rate)
        signal, _ = stored.read(path, start=first, stop=stop, sample_rate=sample_rate)
        mono = signal[0] if len(signal) == 1 else signal.mean(axis=0)
        ahead = (start - first) * sample_rate // rate
        piece = {"path": str(path), "start": start, "stop": stop}
        return mono[ahead : ahead + samples], mono[:ahead], piece, rate

    def too_quiet(self, min_rms_db: float) -> SepcliError:
        """What is to be said when no stretch is loud enough."""
        return SepcliError(
            f"{self.what}: {TRIES} stretches in a row were silent or quieter than "
            f"{min_rms_db:g} dB re full scale; lower --min-rms or name louder files"
        )


class Shares:
    """The numbers 0 to K - 1, drawn as often as their weights say."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._edges = np.cumsum(weights) / sum(weights)  # number k is drawn below edge k

    def draw(self, rng: np.random.Generator) -> int:
        """One of the numbers."""
        return int(np.searchsorted(self._edges[:-1], rng.random(), side="right"))


def one_of(items: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the items of a sequence, each as likely as any other."""
    return items[int(rng.random() * len(items))]


def split_weight(source: str) -> tuple[str, float]:
    """("dir", 0.7) of "dir=0.7"; a path without a weight, or that exists as it is, counts 1."""
    source = os.fspath(source)
    path, equals, weight = source.rpartition("=")
    if not equals or os.path.exists(source) or glob.glob(source):
        return source, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SepcliError(f"{source}: the weight {weight!r} is not above 0; write {path}=0.7")
    return path, number


def find_audio(source: str) -> list[str]:
    """Paths of the audio files that a folder, glob, list or file stands for, in a fixed order.

    Files that look like audio but cannot be read are named on standard error. A line of a list that
    makes no sense is a `stored.BadLine`.
    """
    if is_url(source):
        return _find_objects(source)
    path, listing = Path(source), audio.Listing(source)
    if os.path.isdir(path):
        files = list(_walk(source, listing))
    elif path.suffix in LIST_EXTENSIONS and os.path.isfile(path):
        files = _read_list(path)
    elif os.path.exists(path):
        files = [source]
    else:
        found = sorted(glob.glob(source, recursive=True))
        if not found:
            raise SepcliError(f"{source}: no such file or folder; check the spelling")
        files = [name for name in found if not os.path.isdir(name) and listing.takes(name)]
        folders = filter(os.path.isdir, found)
        files += [name for folder in folders for name in _walk(folder, listing)]
        files = list(dict.fromkeys(files))
    listing.tell()
    if not files:
        known = " ".join(sorted(audio.AUDIO_EXTENSIONS))
        raise SepcliError(f"{source}: no audio files in it ({known}); name another place")
    return files


def _find_objects(url: str) -> list[str]:
    """The sound in a store: an object, those below a URL, of a glob, or of a list."""
    if url.endswith(LIST_EXTENSIONS):
        with objects.fetched(Remote(url)) as path:
            return _read_list(path, url)
    found: list[str] = [each for each in objects.find(url) if split_audio_name(each.name)[1]]
    if not found:
        raise SepcliError(f"{url}: no audio files there; name another place")
    return found


def _walk(folder, listing, above=()):
    """Yield the audio files in `folder` and below, sorted; hidden ones are left out."""
    found, above = entries(folder, above)
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, listing, above)
        elif listing.takes(entry.path):
            yield entry.path


def _read_list(path, called=None):
    """The paths in a .txt or .jsonl list, seen from its folder; a `BadLine` for a bad line.

    called: the URL that the file was fetched from.
    """
    lines = lines_of(read_text(path))
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    place = objects.place(called or os.fspath(path))
    return [_listed(place, number, line) for number, line in numbered if line]


def _listed(path: Any, number: int, line: str) -> str:
    name, where = line, f"{path}, line {number}"
    if path.suffix == ".jsonl":
        try:
            name = str(json.loads(line)["path"])
        except (ValueError, TypeError, KeyError, RecursionError):
            expected = f'{where}: expected {{"path": "a.wav"}}, got {line:.60}'
            return stored.BadLine(where, expected)
    if not is_path(name):
        return stored.BadLine(where, f"{where}: {name!r:.60} is not the name of a file; correct it")
    if is_url(name):
        return Remote(name)
    if isinstance(path, Remote):
        return objects.below(Remote(os.path.dirname(path)), name)
    return str(path.parent / name)
