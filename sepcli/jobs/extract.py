"""Extract one speaker, of whom there are references, from audio files and samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sepcli.errors import SepcliError, UsageError
from sepcli.inference.blockwise import Separates, WithResidual
from sepcli.inference.fullband import FullBand
from sepcli.inference.presence import Watched
from sepcli.inference.references import enrolments, read_references, speech_in
from sepcli.jobs.batch import Separation

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
class Extraction(Separation):
    """A `Separation` of one speaker; its records have "presence" and "stretches", too.

    references: sound files of the speaker; without any, samples bring theirs.
    """

    references: Sequence[str] = ()
    absent_threshold: float = 0.0
    confusion_check: bool = False
    _known: Watched | None = None  # for `references`

    def _check_models(self):
        _, separator = self.models.find()
        check(separator, self.confusion_check)
        if self.references:
            self._known = self._of(
                separator, read_references(self.references, separator.sample_rate)
            )

    def _of(self, separator, references):
        choices = {name: getattr(self, name) for name in ("absent_threshold", "confusion_check")}
        return extractor(separator, references, **choices)

    def _separator(self):
        if self._known is None:
            raise UsageError("name a recording of the speaker who is to be extracted with --ref")
        return self.models.find()[0], self._with_residual(self._known)

    def _with_residual(self, watched) -> Separates:
        return WithResidual(watched) if self.residual else watched

    def _told(self, separator):
        watched = separator.separator if self.residual else separator
        found = {"presence": round(watched.presence, 4)}
        if self.confusion_check:
            found["swapped"] = any(each.swapped for each in watched.stretches)
        stretches = [
            {"start_s": x.start_s, "end_s": x.end_s, "presence": round(x.presence, 4)}
            for x in watched.stretches
        ]
        return {**found, "stretches": stretches}

    def _add_estimates(self, sample):
        sample.check()
        _, separator = self.models.find()
        try:
            mixture = sample.audio("mix")
            watched = self._known or self._of(separator, enrolments(sample, separator.sample_rate))
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
        told = self._told(chosen)
        sample.meta |= {name: value for name, value in told.items() if name != "stretches"}
        return told
