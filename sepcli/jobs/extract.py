"""Extract one speaker, of whom there are references, from audio files and samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sepcli.errors import SepcliError, UsageError
from sepcli.inference.blockwise import Separates, WithResidual
from sepcli.inference.fullband import FullBand
from sepcli.inference.presence import Watched
from sepcli.inference.references import enrolments, read_references, speech_in
from sepcli.jobs.work import Work
from sepcli.samples.sample import Sample

MODEL = "extract"  # unless another one is named
UNSURE = 0.5  # a lower presence is remarked on


def extractor(
    separator: Any,
    references: Iterable[Any],
    *,
    absent_threshold: float = 0.0,
    confusion_check: bool = False,
) -> Watched:
    """What extracts the speaker of `references`, arrays (1, T) at the model's rate; full band.

    absent_threshold, confusion_check: see `Watched`. Its only source is the model's first. Raises
    SepcliError when the model takes no reference, or cannot check what is asked for.
    """
    references = list(references)
    found = separator.given(references, separator.sample_rate).only(separator.sources[:1])
    check(separator, confusion_check)
    return Watched(
        FullBand(found),
        found,
        trust=speech_in(references, separator.sample_rate),
        absent_threshold=absent_threshold,
        confusion_check=confusion_check,
    )


def check(separator: Any, confusion_check: bool = False) -> None:
    """Raise UsageError when a model cannot extract a speaker, or check whom it extracted."""
    if not separator.conditioned:
        raise UsageError("the model takes no reference; choose another with -m, or use separate")
    if confusion_check and not separator.compares:
        raise UsageError(
            "the model cannot tell voices apart; omit --confusion-check, or choose another with -m"
        )


@dataclass
class Extracting(Work):
    """The `Work` of extracting one speaker; its records have "presence" and "stretches", too.

    references: sound files of the speaker; without any, samples bring theirs.
    """

    references: Sequence[str] = ()
    absent_threshold: float = 0.0
    confusion_check: bool = False
    _known: Watched | None = field(default=None, init=False)  # for `references`

    def check(self) -> None:
        """Raise if the model cannot do what is asked for, or the references cannot be read."""
        _, separator = self.models.find()
        check(separator, self.confusion_check)
        self._of_references(separator)

    def _of_references(self, separator):
        """What extracts the speaker of `references`; None without any."""
        if self.references and self._known is None:
            references = read_references(self.references, separator.sample_rate)
            self._known = self._of(separator, references)
        return self._known

    def _of(self, separator, references):
        choices = {name: getattr(self, name) for name in ("absent_threshold", "confusion_check")}
        return extractor(separator, references, **choices)

    def separator(self, *, is_song: bool = False) -> tuple[str, Any]:
        """The name of the model, and what extracts the speaker of the references."""
        model, separator = self.models.find()
        if (known := self._of_references(separator)) is None:
            raise UsageError("name a recording of the speaker who is to be extracted with --ref")
        return model, self._with_residual(known)

    def _with_residual(self, watched) -> Separates:
        return WithResidual(watched) if self.residual else watched

    def told(self, separator: Any) -> dict[str, Any]:
        """How present the speaker is, as a whole and in stretches."""
        watched = separator.separator if self.residual else separator
        found = {"presence": round(watched.presence, 4)}
        if self.confusion_check:
            found["swapped"] = any(each.swapped for each in watched.stretches)
        stretches = [
            {"start_s": x.start_s, "end_s": x.end_s, "presence": round(x.presence, 4)}
            for x in watched.stretches
        ]
        return {**found, "stretches": stretches}

    def add_estimates(self, sample: Sample) -> dict[str, Any]:
        """Add est.TARGET to a sample; what `told` tells."""
        sample.check()
        _, separator = self.models.find()
        try:
            mixture = sample.audio("mix")
            rate = separator.sample_rate
            watched = self._of_references(separator)
            watched = watched or self._of(separator, enrolments(sample, rate))
            chosen = self._with_residual(watched)
            estimates = chosen.separate(mixture, sample.sample_rate)
        except UsageError:
            raise
        except SepcliError as error:
            raise SepcliError(sample.labelled(error)) from None
        own = chosen.sources[0]
        for name, estimate in estimates.items():
            called = sample.targets[0] if name == own and len(sample.targets) == 1 else name
            sample.set_audio(f"est.{called}", estimate)
        told = self.told(chosen)
        sample.meta |= {name: value for name, value in told.items() if name != "stretches"}
        return told
