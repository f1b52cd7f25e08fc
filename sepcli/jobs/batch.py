"""Many inputs, one after the other: audio files to stems, samples to samples with estimates."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepcli import files
from sepcli.audio import Peekable, names_a_file, open_blocks
from sepcli.errors import OutputError, SepcliError, UsageError
from sepcli.inference.blockwise import WithResidual
from sepcli.jobs.outputs import (
    FOLDER,
    Form,
    Models,
    Part,
    choose,
    separate_sample,
    stem_paths,
    write_stems,
)
from sepcli.samples.folders import holds_mixture
from sepcli.samples.inputs import Input, find_inputs
from sepcli.samples.sample import Sample
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS
from sepcli.samples.streams import open_sample_writer, place_of

_STDOUT = "standard output"


def _say_nothing(_fraction):
    pass


@dataclass
class Separation:
    """One run over any mixture of audio files, folders, lists and sample streams.

    `find` looks at the inputs, `run` separates them and yields a record {"key", "input", "outputs",
    "notes"} or {"key", "input", "error"} per item. One that fails does not stop the others.
    """

    models: Models
    targets: tuple = ()
    residual: bool = False
    part: Part = field(default_factory=Part)  # of audio files
    output: str | None = None  # as for the command: PATH, DIR, "-" or None
    form: Form = field(default_factory=Form)  # of stems
    overwrite: bool | None = None
    strict: bool = True
    input_type: str = "auto"
    tell: Callable = _say_nothing  # gets how much of an item is done, from 0 to 1
    count: int = 0  # of items so far
    total: int | None = None  # of items, where it is known before
    _inputs: list[Input] = field(default_factory=list)
    _written: set = field(default_factory=set)
    _writer: Any = None  # of samples, once there is one
    _torn: bool = False  # whether an input of samples ended before it should

    def find(self, inputs: Sequence[str]) -> None:
        """Look up what `inputs`, paths, globs or "-", stand for, and check what was asked for.

        Raises UsageError for what makes no sense, whatever is in the files, and SepcliError for
        models that are not there and an output that cannot be made.
        """
        self._check_models()
        self._inputs = find_inputs(inputs, strict=self.strict, input_type=self.input_type)
        self.total = sum_or_none(each.count for each in self._inputs)
        songs = sum(self._becomes_stems(s) for each in self._inputs for s in each.known)
        if songs:
            self._check_output(songs)

    def _check_models(self):
        """Raise if the models are not there, or do not give what is asked for."""
        if self.models.names:
            self._separator()

    def _separator(self):
        """The name of the model for audio files, and what separates them."""
        model, separator = self.models.find()
        return model, choose(separator, self.targets, residual=self.residual)

    def _song_separator(self):
        """As `_separator`, with the accompaniment of a song of which the model finds the vocals."""
        model, separator = self._separator()
        if separator.sources == (VOCALS,) and not self.targets:
            return model, WithResidual(separator, ACCOMPANIMENT)
        return model, separator

    def _check_output(self, songs):
        """Raise a SepcliError if the output is none for so many audio files."""
        if self.output == "-":
            place = _STDOUT
        elif self.output and names_a_file(self.output):
            place = self.output
            files.check_place(place)
        else:
            place = None
            files.check_place(self.output or FOLDER, folder=True)
        self.form.check(None if self.output == "-" else self.output)
        if place and songs > 1:
            raise UsageError(f"{place}: one file for {songs} inputs; name a folder with -o")

    def run(self) -> Iterator[dict[str, Any] | dict[str, str]]:
        """Separate all that `find` found; yield a record per item."""
        with ExitStack() as stack:
            for each in self._inputs:
                stdin = self._audio_on_stdin() if each.source == "-" else None
                if stdin:
                    yield self._attempt("stdin", "-", self._separate_audio, stdin, "stdin")
                    continue
                for sample in self._samples(each):
                    if isinstance(sample, SepcliError):
                        yield self._failed(each.source, each.source, sample)
                    elif sample.fault:
                        self._torn = True
                        yield self._failed(sample.key, each.source, sample.fault)
                    elif self._becomes_stems(sample):
                        path = str(sample.members[sample.find("mix") or ""])
                        yield self._attempt(sample.key, path, self._separate_file, sample)
                    else:
                        self._open_writer(stack)
                        yield self._attempt(sample.key, each.source, self._separate_sample, sample)
            if self._torn and self._writer and self.output in (None, "-"):
                raise OutputError(
                    f"{_STDOUT}: left incomplete, as not all inputs were read to the end"
                )

    def _becomes_stems(self, sample):
        """Whether stems of a sample are written, rather than the sample with estimates added."""
        return is_plain_audio(sample) or (is_song(sample) and takes_stems(self.output))

    def _attempt(self, key, source, act, *args):
        """Do one item; its failure becomes a record, so that the others are still done."""
        try:
            found = act(*args)
        except (OutputError, UsageError):
            raise  # no other item would fare better
        except SepcliError as error:
            return self._failed(key, source, error)
        self.count += 1
        return {"key": key, "input": source, "outputs": [], "notes": [], **found}

    def _failed(self, key, source, error):
        self.count += 1
        return {"key": key, "input": source, "error": str(error)}

    def _audio_on_stdin(self):
        """Standard input if it is audio; `self._stdin` is what is read of it otherwise."""
        self._stdin = None
        if sys.stdin is None or sys.stdin.isatty():
            return None
        self._stdin = Peekable(sys.stdin.buffer)
        kind = self._stdin.sniff() if self.input_type == "auto" else self.input_type
        return self._stdin if kind in ("wav", "audio") else None

    def _samples(self, each):
        """Yield the samples of an input, and the SepcliError that ends them, if one does."""
        try:
            yield from each.samples(self._stdin if each.source == "-" else None)
        except SepcliError as error:
            self._torn = True
            yield error

    def _open_writer(self, stack):
        if self._writer is not None:
            return
        if self.part != Part():
            raise UsageError("samples are separated whole; omit --start and --duration")
        if not self.form.is_default:
            raise UsageError(
                "--filename, --format and --subtype are for the stems of audio files; samples "
                "hold their estimates as float WAV, so omit them"
            )
        writer = open_sample_writer(self.output, overwrite=self.overwrite)
        self._writer = stack.enter_context(writer)

    def _separate_sample(self, sample):
        """Add the estimates to a sample and pass it on; also if there are none, as it came."""
        if self._writer.skips(sample.key):
            return {}
        try:
            found = self._add_estimates(sample)
        finally:
            self._writer.write(sample)
        return {"outputs": [place_of(sample.key, self.output)], **found}

    def _add_estimates(self, sample):
        """Add est.* to a sample; what to tell of it besides, a dict."""
        separate_sample(sample, self.models, self.targets, residual=self.residual)
        return {}

    @property
    def noun(self) -> str:
        """What is written."""
        return "file" if self._writer is None else "sample"

    def _separate_file(self, sample):
        chosen = self._song_separator() if is_song(sample) else None
        return self._separate_audio(sample.members[sample.find("mix")], sample.key, chosen)

    def _separate_audio(self, source, track, chosen=None):
        """Write the stems of a sound; returns what to tell of them."""
        model, separator = chosen or self._separator()
        with open_blocks(source, strict=self.strict) as reader:
            outputs = self._outputs(source, track, model, separator.sources)
            if outputs is None:
                return {}
            notes = write_stems(
                reader, separator, outputs, part=self.part, form=self.form, tell=self.tell
            )
        names = [str(path) if isinstance(path, Path) else _STDOUT for path in outputs.values()]
        return {"outputs": names, "notes": notes, **self._told(separator)}

    def _told(self, separator):
        """What to tell besides of what this has separated."""
        return {}

    def _outputs(self, source, track, model, sources):
        """Where the stems of a track go, or None when they are there and stay."""
        if self.output == "-" or (self.output is None and not isinstance(source, Path)):
            return {self._one(sources): self._stdout()}
        names = {"track": track, "model": model, "sources": sources}
        outputs = stem_paths(self.output, self.form, **names)
        self._claim(outputs.values())
        return None if files.stays(outputs.values(), self.overwrite) else outputs

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
        self._claim([_STDOUT])
        return sys.stdout.buffer

    def _claim(self, paths):
        for path in paths:
            if path in self._written:
                raise SepcliError(f"{path}: two inputs would be written there; name a folder")
            self._written.add(path)


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
        and isinstance(sample.members[mix], Path)
        and not sample.meta.get("targets")
    )
