"""What is done with one mixture, by whichever process of a run does it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sepcli.audio import open_blocks
from sepcli.cluster.objects import Remote, below, fetched, place, uploading
from sepcli.errors import OutputError, SepcliError, UsageError
from sepcli.inference.blockwise import WithResidual
from sepcli.jobs.outputs import Form, Models, Part, choose, separate_sample, write_stems
from sepcli.samples.remote import staged, write_sample
from sepcli.samples.sample import Sample
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS

STDOUT = "standard output"


def say_nothing(_fraction: float) -> None:
    """Tell nobody how much of an item is done."""


@dataclass
class Task:
    """One item: a sound, whose stems go to `outputs`, or a sample that gets estimates.

    key, source: for the record. sound: a path or stream; is_song: whether it is a song of MUSDB.
    folder: where the sample is written; None where whoever wants it does that.
    """

    key: str
    source: str
    sound: Any = None
    is_song: bool = False
    outputs: dict[str, Any] = field(default_factory=dict)
    sample: Sample | None = None
    folder: str | None = None

    @property
    def has_places(self) -> bool:
        """Whether other processes can read the sound and write its stems."""
        return all(map(_is_place, (self.sound, *self.outputs.values())))


def _is_place(what):
    return isinstance(what, Path | Remote)


def _local(sound):
    """A sound as a file, or the stream that it is."""
    return fetched(sound) if _is_place(sound) else nullcontext(sound)


@dataclass
class Result:
    """A record on a task, and its sample where somebody else has to write that."""

    record: dict[str, Any]
    sample: Sample | None = None

    @property
    def failed(self) -> bool:
        """Whether the record says what went wrong."""
        return "error" in self.record


def failure(key: str, source: str, error: object) -> Result:
    """The result of an item that could not be done."""
    return Result({"key": key, "input": source, "error": str(error)})


@dataclass
class Work:
    """The settings of a run, and with them `perform`, which does one `Task`.

    It goes to other processes without what it has loaded, so each loads the models once.
    """

    models: Models
    targets: Sequence[str] = ()
    residual: bool = False
    part: Part = field(default_factory=Part)  # of audio files
    form: Form = field(default_factory=Form)  # of stems
    strict: bool = True
    tell: Callable[[float], None] = say_nothing  # gets how much of an item is done, from 0 to 1

    def __getstate__(self) -> dict[str, Any]:
        return vars(replace(self, tell=say_nothing))

    def check(self) -> None:
        """Raise if the models are not there, or do not give what is asked for."""
        if self.models.names:
            self.separator()

    def separator(self, *, is_song: bool = False) -> tuple[str, Any]:
        """The name of the model for sounds, and what separates them.

        The accompaniment of a song comes with its vocals where the model finds only these.
        """
        model, separator = self.models.find()
        chosen = choose(separator, self.targets, residual=self.residual)
        if is_song and chosen.sources == (VOCALS,) and not self.targets:
            return model, WithResidual(chosen, ACCOMPANIMENT)
        return model, chosen

    def perform(self, task: Task) -> Result:
        """Do a task; its failure becomes a record, so that the others are still done.

        Raises OutputError and UsageError, after which no other task would fare better.
        """
        try:
            found = self._separate_sample(task) if task.sample else self._separate_sound(task)
        except (OutputError, UsageError):
            raise
        except SepcliError as error:
            result = failure(task.key, task.source, error)
        else:
            about = {"key": task.key, "input": task.source, "outputs": [], "notes": []}
            result = Result(about | found)
        if task.sample and task.folder is None:
            result.sample = task.sample
        return result

    def _separate_sound(self, task):
        """Write the stems of a sound; returns what to tell of them."""
        _, separator = self.separator(is_song=task.is_song)
        form = {"part": self.part, "form": self.form, "tell": self.tell}
        with (
            _local(task.sound) as sound,
            uploading(task.outputs) as outputs,
            open_blocks(sound, strict=self.strict) as reader,
        ):
            notes = write_stems(reader, separator, outputs, **form)
        names = [str(x) if _is_place(x) else STDOUT for x in task.outputs.values()]
        return {"outputs": names, "notes": notes, **self.told(separator)}

    def told(self, _separator: Any) -> dict[str, Any]:
        """What to tell besides of what this has separated."""
        return {}

    def _separate_sample(self, task):
        """Add the estimates to a sample and write it; also if there are none, as it came."""
        with staged(task.sample) as sample:
            try:
                found = self.add_estimates(sample)
            finally:
                if task.folder is not None:
                    write_sample(task.folder, sample)
                elif sample is not task.sample:
                    task.sample = sample.loaded()
        outputs = [] if task.folder is None else [str(below(place(task.folder), task.key))]
        return {"outputs": outputs, **found}

    def add_estimates(self, sample: Sample) -> dict[str, Any]:
        """Add est.* to a sample; what to tell of it besides."""
        separate_sample(sample, self.models, self.targets, residual=self.residual)
        return {}
