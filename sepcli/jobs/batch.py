"""Many inputs: audio files to stems, samples to samples with estimates."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.audio import Peekable, names_a_file
from sepcli.cluster import objects
from sepcli.cluster.objects import Remote
from sepcli.cluster.scheduler import Handling
from sepcli.cluster.spread import ALONE, Spread
from sepcli.cluster.workers import Ready
from sepcli.errors import OutputError, SepcliError, UsageError
from sepcli.jobs.outputs import FOLDER, Part, stem_paths
from sepcli.jobs.work import STDOUT, Result, Task, Work, failure
from sepcli.samples.folders import holds_mixture
from sepcli.samples.inputs import Input, find_inputs
from sepcli.samples.sample import Sample
from sepcli.samples.streams import open_sample_writer, place_of


@dataclass
class Separation:
    """One run over any mixture of audio files, folders, lists and sample streams.

    `find` looks at the inputs, `run` does the `Work` on them and yields a record {"key", "input",
    "outputs", "notes"} or {"key", "input", "error"} per item. One that fails does not stop the
    others.
    """

    work: Work
    output: str | None = None  # as for the command: PATH, DIR, "-" or None
    overwrite: bool | None = None
    input_type: str = "auto"
    spread: Spread = ALONE
    count: int = 0  # of items so far
    total: int | None = None  # of items, where it is known before
    _inputs: list[Input] = field(default_factory=list)
    _written: set = field(default_factory=set)
    _writer: Any = None  # of samples, once there is one
    _objects: set | None = None  # what is in the store of the output
    _torn: bool = False  # whether an input of samples ended before it should

    def find(self, inputs: Sequence[str]) -> None:
        """Look up what `inputs`, paths, globs or "-", stand for, and check what was asked for.

        Raises UsageError for what makes no sense, whatever is in the files, and SepcliError for
        models that are not there and an output that cannot be made.
        """
        self.work.check()
        how = {"strict": self.work.strict, "input_type": self.input_type}
        self._inputs = find_inputs(inputs, **how)
        total = sum_or_none(each.count for each in self._inputs)
        self.total = total if total is None else self.spread.shard.size(total)
        songs = sum(self._becomes_stems(s) for each in self._inputs for s in each.known)
        if songs:
            self._check_output(songs)

    def _check_output(self, songs):
        """Raise a SepcliError if the output is none for so many audio files."""
        if self.output == "-":
            place = STDOUT
        elif self.output and names_a_file(self.output):
            place = self.output
            _check_place(place)
        else:
            place = None
            _check_place(self.output or FOLDER, folder=True)
        self.work.form.check(None if self.output == "-" else self.output)
        if place and songs > 1:
            raise UsageError(f"{place}: one file for {songs} inputs; name a folder with -o")

    def run(self) -> Iterator[dict[str, Any] | dict[str, str]]:
        """Separate all that `find` found; yield a record per item."""
        with ExitStack() as stack:
            results = self.spread.each(self.work.perform, self._tasks(stack), self._handling())
            for result in stack.enter_context(closing(results)):
                yield self._finish(result)
            if self._torn and self._writer and self.output in (None, "-"):
                raise OutputError(
                    f"{STDOUT}: left incomplete, as not all inputs were read to the end"
                )

    def _handling(self):
        """What a cluster makes of results; their order counts for samples in a stream."""
        stems = all(self._becomes_stems(s) for each in self._inputs for s in each.known)
        known = all(each.count is not None for each in self._inputs)
        return Handling(
            failed=attrgetter("failed"),
            lost=lambda task, why: failure(task.key, task.source, f"{task.source}: {why}"),
            mark=lambda result, about: result.record.update(about),
            ordered=not (stems and known) and not takes_stems(self.output),
        )

    def _finish(self, result):
        """Write the sample of a result, unless a worker did; returns its record."""
        record = result.record
        if result.sample is not None:
            try:
                self._writer.write(result.sample)
                if not result.failed:
                    record["outputs"] = [place_of(record["key"], self.output)]
            except OutputError:
                raise  # no other item would fare better
            except SepcliError as error:
                record = failure(record["key"], record["input"], error).record
        self.count += 1
        return record

    def _tasks(self, stack):
        """Yield a `Task` for each item of this shard, or the `Ready` result where none is needed.

        What would be written twice is noticed whichever shards it is of.
        """
        for number, (each, item) in enumerate(self._items()):
            if self.spread.shard.has(number):
                yield self._attempt(stack, each, item)
            elif not isinstance(item, SepcliError):
                self._pass_over(item)

    def _items(self):
        """Yield (input, item): a sample, a stream of sound, or the error that ended the input."""
        for each in self._inputs:
            stdin = self._audio_on_stdin() if each.source == "-" else None
            if stdin:
                yield each, stdin
                continue
            try:
                samples = each.samples(self._stdin if each.source == "-" else None)
                yield from ((each, sample) for sample in samples)
            except SepcliError as error:
                self._torn = True
                yield each, error

    def _audio_on_stdin(self):
        """Standard input if it is audio; `self._stdin` is what is read of it otherwise."""
        self._stdin = None
        if sys.stdin is None or sys.stdin.isatty():
            return None
        self._stdin = Peekable(sys.stdin.buffer)
        kind = self._stdin.sniff() if self.input_type == "auto" else self.input_type
        return self._stdin if kind in ("wav", "audio") else None

    def _attempt(self, stack, each, item):
        """The task of an item, or what came of it already."""
        key, source = self._names(each, item)
        if isinstance(item, SepcliError):
            return Ready(failure(key, source, item))
        if isinstance(item, Sample) and item.fault:
            self._torn = True
            return Ready(failure(key, source, item.fault))
        try:
            task = self._task(stack, key, source, item)
        except (OutputError, UsageError):
            raise  # no other item would fare better
        except SepcliError as error:
            return Ready(failure(key, source, error))
        if task is None:
            return Ready(Result({"key": key, "input": source, "outputs": [], "notes": []}))
        if task.sample is None and not task.has_places:
            return Ready(self.work.perform(task))  # streams stay in this process
        return task

    def _names(self, each, item):
        """(key, input) of an item, for its record."""
        if isinstance(item, SepcliError):
            return each.source, each.source
        if not isinstance(item, Sample):
            return "stdin", "-"
        if not item.fault and self._becomes_stems(item):
            return item.key, str(item.members[item.find("mix") or ""])
        return item.key, each.source

    def _task(self, stack, key, source, item):
        """The task of an item; None where its outputs are there and stay."""
        if isinstance(item, Sample) and not self._becomes_stems(item):
            self._open_writer(stack)
            if self._writer.skips(key):
                return None
            folder = getattr(self._writer, "folder", None)
            if folder is not None:
                self._writer.claim(key)
                folder = str(folder)
            return Task(key, source, sample=item, folder=folder)
        song = isinstance(item, Sample) and is_song(item)
        sound = item.members[item.find("mix") or ""] if isinstance(item, Sample) else item
        if (outputs := self._outputs(sound, key, song)) is None:
            return None
        return Task(key, source, sound=sound, is_song=song, outputs=outputs)

    def _pass_over(self, sample):
        """Claim the outputs of an item that another shard does."""
        if not isinstance(sample, Sample) or sample.fault or not self._becomes_stems(sample):
            return
        with suppress(SepcliError):  # which that shard tells
            self._places(sample.members[sample.find("mix") or ""], sample.key, is_song(sample))

    def _becomes_stems(self, sample):
        """Whether stems of a sample are written, rather than the sample with estimates added."""
        return is_plain_audio(sample) or (is_song(sample) and takes_stems(self.output))

    def _open_writer(self, stack):
        if self._writer is not None:
            return
        if self.work.part != Part():
            raise UsageError("samples are separated whole; omit --start and --duration")
        if not self.work.form.is_default:
            raise UsageError(
                "--filename, --format and --subtype are for the stems of audio files; samples "
                "hold their estimates as float WAV, so omit them"
            )
        writer = open_sample_writer(self.output, overwrite=self.overwrite)
        self._writer = stack.enter_context(writer)

    @property
    def noun(self) -> str:
        """What is written."""
        return "file" if self._writer is None else "sample"

    def _outputs(self, sound, track, is_song):
        """Where the stems of a track go; None when all are there, and stay."""
        outputs = self._places(sound, track, is_song)
        if self.overwrite is False:  # a run that was killed may have left some of them
            missing = {name: x for name, x in outputs.items() if not self._is_there(x)}
            return missing or None
        if self.overwrite is None and (there := list(filter(self._is_there, outputs.values()))):
            raise files.exists(str(there[0]))
        return outputs

    def _is_there(self, where):
        if not isinstance(where, Remote):
            return isinstance(where, Path) and os.path.exists(where)
        if self._objects is None:  # listed once, which is quick for a million
            self._objects = set(objects.find(self.output or ""))
        return where in self._objects

    def _places(self, sound, track, is_song):
        """{source: where it goes}, each place for the first time in this run."""
        model, separator = self.work.separator(is_song=is_song)
        is_place = isinstance(sound, Path | Remote)
        if self.output == "-" or (self.output is None and not is_place):
            return {self._one(separator.sources): self._stdout()}
        names = {"track": track, "model": model, "sources": separator.sources}
        outputs = stem_paths(self.output, self.work.form, **names)
        self._claim(outputs.values())
        return outputs

    def _one(self, sources):
        if len(sources) > 1:
            raise UsageError(
                f"one signal fits on standard output, not {', '.join(sources)}; "
                "choose one with --target, or a folder with -o"
            )
        return sources[0]

    def _stdout(self):
        if sys.stdout.isatty():
            raise UsageError("audio is not written to a terminal; use -o FILE or a pipe")
        self._claim([STDOUT])
        return sys.stdout.buffer

    def _claim(self, paths):
        for path in paths:
            if path in self._written:
                raise SepcliError(f"{path}: two inputs would be written there; name a folder")
            self._written.add(path)


def _check_place(where, *, folder=False):
    if objects.is_url(where):
        objects.check(where)
    else:
        files.check_place(where, folder=folder)


def sum_or_none(counts: Iterable[int | None]) -> int | None:
    """The sum of numbers, or None if one of them is."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def is_song(sample: Sample) -> bool:
    """Whether a sample is a song of MUSDB, as it lies on the disk."""
    return holds_mixture(sample.members.get(sample.find("mix") or ""))


def takes_stems(output: str | None) -> bool:
    """Whether an output is for stems: no stream and no tar of samples."""
    if output is None:
        return sys.stdout is not None and sys.stdout.isatty()
    return output != "-" and Path(output).suffix != ".tar" and not files.is_device(Path(output))


def is_plain_audio(sample: Sample) -> bool:
    """Whether a sample is nothing but one audio file on disk, so that stems are wanted."""
    mix = sample.find("mix")
    return (
        len(sample.members) == 1
        and mix is not None
        and isinstance(sample.members[mix], Path | Remote)
        and not sample.meta.get("targets")
    )
