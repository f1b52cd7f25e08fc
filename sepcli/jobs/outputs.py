"""From mixtures to stems: which model, which sources, and where they are written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from sepcli.audio import FORMATS, Writer, names_a_file
from sepcli.cluster.objects import Remote, below, place
from sepcli.errors import SepcliError, UsageError
from sepcli.files import composed
from sepcli.inference.blockwise import Method, Separates, WithResidual, block_frames
from sepcli.inference.loading import load
from sepcli.samples.sample import Sample

FOR_TARGETS = {"speech": "denoise", "vocals": "vocals"}  # default models of samples that ask
FOR_AUDIO = "vocals"  # the default model of plain audio, which asks for nothing
FOLDER = "separated"  # for the stems of audio files
TEMPLATE = "{track}/{stem}.{ext}"
FIELDS = ("track", "stem", "model", "ext")  # of a template of file names


def default_model(targets: Sequence[str]) -> str:
    """The model that finds `targets`; plain audio has none and gets the model for songs.

    Raises UsageError when no default model separates them.
    """
    if not targets:
        return FOR_AUDIO
    for target in targets:
        if target in FOR_TARGETS:
            return FOR_TARGETS[target]
    raise UsageError(f"no default model separates {', '.join(targets)}; choose one with -m")


class Models:
    """The models of one run, loaded when first needed.

    names: of models whose estimates are averaged; none chooses one by the targets.
    device, method, threads, engine: how they are run, see `inference.loading.load`.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        device: str = "cpu",
        method: Method | None = None,
        threads: int | None = None,
        engine: str = "torch",
    ) -> None:
        self.names, self._how = tuple(names), (device, method, threads, engine)
        self._loaded = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_loaded": {}}  # other processes load them for themselves

    def find(self, targets: Sequence[str] = ()) -> tuple[str, Any]:
        """The name of the model for `targets` (several are joined by +), and its separator."""
        names = self.names or (default_model(targets),)
        if names not in self._loaded:
            self._loaded[names] = load(list(names), *self._how)
        return "+".join(Path(name).stem for name in names), self._loaded[names]


def choose(
    separator: Separates, wanted: Sequence[str] = (), *, residual: bool = False
) -> Separates:
    """The separator of the sources in `wanted`, or of all, and of the rest if `residual`.

    Raises UsageError when one is not to be had.
    """
    known = {composed(name): name for name in separator.sources}
    wanted = [known.get(composed(name), name) for name in dict.fromkeys(wanted)]
    wanted = wanted or list(separator.sources)
    if missing := [name for name in wanted if name not in separator.sources]:
        raise UsageError(
            f"the model finds {', '.join(separator.sources)}, not {', '.join(missing)}; "
            "choose another model with -m, or other targets with --target"
        )
    chosen = separator.only(wanted)
    return WithResidual(chosen) if residual else chosen


def separate_sample(
    sample: Sample, models: Models, targets: Sequence[str] = (), *, residual: bool = False
) -> None:
    """Add est.TARGET to a sample: `targets`, or those that the sample asks for and the model has.

    residual: add est.residual, too. The estimates have the rate and channels of the mixture.
    Raises SepcliError; UsageError only where `targets` are not to be had.
    """
    sample.check()
    asked = list(targets) or sample.targets
    _, separator = models.find(asked)
    if not targets:
        asked = [name for name in asked if name in separator.sources] or asked
    try:
        chosen = choose(separator, asked, residual=residual)
        estimates = chosen.separate(sample.audio("mix"), sample.sample_rate)
    except SepcliError as error:
        kind = UsageError if targets and isinstance(error, UsageError) else SepcliError
        raise kind(sample.labelled(error)) from None
    for name, estimate in estimates.items():
        sample.set_audio(f"est.{name}", estimate)


@dataclass(frozen=True)
class Part:
    """The part of a sound that is wanted, in seconds; `duration_s` None is up to the end."""

    start_s: float = 0.0
    duration_s: float | None = None

    def frames(self, reader: Any) -> None:
        """How many frames this part of an open `audio.Reader` has; None where nobody knows."""
        if reader.frames is None:
            return None
        left = reader.frames - round(self.start_s * reader.sample_rate)
        if self.duration_s is None:
            return left
        return min(left, round(self.duration_s * reader.sample_rate))

    def blocks(self, reader: Any) -> Iterator[Any]:
        """Blocks (C, n) of this part of an open `audio.Reader`; SepcliError when it ends before."""
        rate = reader.sample_rate
        reader.skip(round(self.start_s * rate))
        left = float("inf") if self.duration_s is None else max(1, round(self.duration_s * rate))
        size, empty = block_frames(rate), True
        while left > 0 and (block := reader.read(min(size, left))).shape[1]:
            yield block
            left, empty = left - block.shape[1], False
        if empty and self.start_s:
            raise SepcliError(f"{reader.name}: ends before {self.start_s:g} s; lower --start")


@dataclass(frozen=True)
class Form:
    """How stems are kept.

    template: of the names of files below a folder. container: a key of audio's FORMATS, for {ext}
    and for streams. subtype: one of those that the format holds. Each may be None.
    Raises UsageError for a template, or a subtype, that does not exist.
    """

    template: str | None = None
    container: str | None = None
    subtype: str | None = None

    def __post_init__(self):
        check_template(self.template or "")

    @property
    def is_default(self) -> bool:
        return self == Form()

    def extension(self, output: str | None = None) -> str:
        """What the file `output`, or files in the folder `output`, end in, without the dot."""
        name = output if output and names_a_file(output) else (self.template or "{ext}")
        suffix = name.rpartition(".")[2]
        return suffix.lower() if suffix in FORMATS else self.container or "wav"

    def check(self, output: Any) -> None:
        """Raise UsageError when `output` cannot have this form."""
        extension = self.extension(output)
        ending = (self.template or "").rpartition(".")[2]
        if self.template and ending not in (*FORMATS, "{ext}"):
            raise UsageError(
                f"file name template {self.template!r}: end it in .{{ext}}, or in one of "
                f"{', '.join('.' + known for known in FORMATS)}"
            )
        if self.container and extension != self.container:
            name = self.template if not output or not names_a_file(output) else output
            raise UsageError(f"{name}: ends in .{extension}; omit --format")
        known = FORMATS[extension][1]
        if self.subtype and self.subtype.upper() not in known:
            raise UsageError(
                f"{extension} does not support {self.subtype}; choose a --subtype out of "
                f"{', '.join(known)}"
            )


def write_stems(
    reader: Any,
    separator: Separates,
    outputs: dict[str, Any],
    *,
    part: Part | None = None,
    form: Form | None = None,
    tell: Callable[[float], None] | None = None,
) -> list[Any]:
    """Separate an open `audio.Reader` into `outputs`, {source: path or stream}; bounded memory.

    part: the `Part` of it that is wanted. form: see `Form`; a path's extension tells its own
        container. tell: gets how much of it is done, from 0 to 1, where its length is known.
    Either all files appear or none of them. Returns remarks, such as on samples that clipped.
    """
    part, form = part or Part(), form or Form()
    blocks, done, frames = part.blocks(reader), 0, part.frames(reader)
    with ExitStack() as stack:
        writers = {}
        for name, target in outputs.items():
            container = None if isinstance(target, Path) else form.container
            layout = reader.sample_rate, reader.channels
            writer = Writer(target, *layout, subtype=form.subtype, format=container)
            writers[separator.sources.index(name)] = stack.enter_context(writer)
        for block in separator.blocks(blocks, reader.sample_rate, reader.channels):
            for index, writer in writers.items():
                writer.write(block[index])
            done += block.shape[-1]
            if tell and frames:
                tell(min(1.0, done / frames))
    return [writer.remark for writer in writers.values() if writer.clipped]


def check_template(template: str) -> None:
    """Raise UsageError for unknown fields in a template such as `{track}/{stem}.wav`."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise UsageError(f"file name template {template!r}: {error}") from None
    if unknown := fields - set(FIELDS):
        raise UsageError(
            f"file name template {template!r}: unknown {', '.join(sorted(unknown))}; "
            f"known are {', '.join('{' + name + '}' for name in FIELDS)}"
        )


def stem_paths(
    output: str | None, form: Form, *, track: str, model: str, sources: Sequence[str]
) -> dict[str, Path | Remote]:
    """{source: place} for one track: `output` itself if it names a file, else in that folder.

    The folder defaults to separated/MODEL. Raises UsageError when several sources would share a
    file.
    """
    if output and names_a_file(output):
        if len(sources) > 1:
            raise UsageError(
                f"{output}: one file, but the model finds {', '.join(sources)}; "
                "choose one with --target, or name a folder"
            )
        return {sources[0]: place(output)}
    folder = place(output) if output else Path(FOLDER) / model
    template = form.template or TEMPLATE
    fields = {"track": track, "model": model, "ext": form.container or "wav"}
    names = {stem: template.format(stem=stem, **fields) for stem in sources}
    if len(set(names.values())) < len(sources):
        raise UsageError(f"file name template {template!r}: add {{stem}}, or stems would collide")
    return {stem: below(folder, name) for stem, name in names.items()}
