"""From mixtures to stems: which model, which sources, and where they are written."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter

from sepcli import files
from sepcli.audio import AUDIO_EXTENSIONS, Peekable, Writer, open_blocks
from sepcli.errors import SepcliError
from sepcli.inference.separate import WithResidual, block_frames, load
from sepcli.samples.streams import open_sample_writer, read_samples

FOR_TARGETS = {"speech": "denoise", "vocals": "vocals"}  # default models of samples that ask
FOR_AUDIO = "vocals"  # the default model of plain audio, which asks for nothing
FIELDS = ("track", "stem", "model", "ext")  # of a template of file names


def default_model(targets):
    """The model that finds `targets`; plain audio has none and gets the model for songs.

    Raises SepcliError when no default model finds them.
    """
    if not targets:
        return FOR_AUDIO
    for target in targets:
        if target in FOR_TARGETS:
            return FOR_TARGETS[target]
    raise SepcliError(f"no default model finds {', '.join(targets)}; choose one with -m")


class Models:
    """The models of one run, loaded when first needed.

    names: of models whose estimates are averaged; none chooses one by the targets.
    method: how they are run, an `inference.separate.Method`.
    """

    def __init__(self, names=(), device="cpu", method=None):
        self.names, self.device, self.method = tuple(names), device, method
        self._loaded = {}

    def find(self, targets=()):
        """The name of the model for `targets` (several are joined by +), and its separator."""
        names = self.names or (default_model(targets),)
        if names not in self._loaded:
            self._loaded[names] = load(list(names), self.device, self.method)
        return "+".join(Path(name).stem for name in names), self._loaded[names]


def choose(separator, wanted=(), *, residual=False):
    """The separator of the sources in `wanted`, or of all, and of the rest if `residual`.

    Raises SepcliError when one is not to be had.
    """
    wanted = list(dict.fromkeys(wanted)) or list(separator.sources)
    if missing := [name for name in wanted if name not in separator.sources]:
        raise SepcliError(
            f"the model finds {', '.join(separator.sources)}, not {', '.join(missing)}; "
            "choose another model with -m, or other targets with --target"
        )
    chosen = separator.only(wanted)
    return WithResidual(chosen) if residual else chosen


def separate_sample(sample, models, targets=(), *, residual=False):
    """Add est.TARGET to a sample: `targets`, or those that the sample asks for and the model has.

    residual: add est.residual, too. The estimates have the rate and channels of the mixture.
    Raises SepcliError.
    """
    asked = list(targets) or sample.targets
    _, separator = models.find(asked)
    if not targets:
        asked = [name for name in asked if name in separator.sources] or asked
    try:
        chosen = choose(separator, asked, residual=residual)
        estimates = chosen.separate(sample.audio("mix"), sample.sample_rate)
    except SepcliError as error:
        raise SepcliError(f"{sample.label()}: {error}") from None
    for name, estimate in estimates.items():
        sample.set_audio(f"est.{name}", estimate)


@dataclass(frozen=True)
class Part:
    """The part of a sound that is wanted, in seconds; `duration_s` None is up to the end."""

    start_s: float = 0.0
    duration_s: float | None = None

    def blocks(self, reader):
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


def write_stems(reader, separator, outputs, *, part=None, subtype=None, container=None):
    """Separate an open `audio.Reader` into `outputs`, {source: path or stream}; bounded memory.

    part: the `Part` of it that is wanted.  subtype: see `audio.Writer`.  container: its `format` of
        a stream; a path's extension tells its own.
    Either all files appear or none of them. Returns remarks, such as on samples that clipped.
    """
    blocks = (part or Part()).blocks(reader)
    with ExitStack() as stack:
        writers = {}
        for name, target in outputs.items():
            form = None if isinstance(target, Path) else container
            writer = Writer(
                target, reader.sample_rate, reader.channels, subtype=subtype, format=form
            )
            writers[separator.sources.index(name)] = stack.enter_context(writer)
        for block in separator.blocks(blocks, reader.sample_rate, reader.channels):
            for index, writer in writers.items():
                writer.write(block[index])
    return [
        f"{writer.name}: {writer.clipped} samples clipped; --subtype FLOAT keeps them"
        for writer in writers.values()
        if writer.clipped
    ]


def check_template(template):
    """Return a template such as `{track}/{stem}.wav`, or raise SepcliError on unknown fields."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise SepcliError(f"file name template {template!r}: {error}") from None
    if unknown := fields - set(FIELDS):
        raise SepcliError(
            f"file name template {template!r}: unknown {', '.join(sorted(unknown))}; "
            f"known are {', '.join('{' + name + '}' for name in FIELDS)}"
        )
    return template


def stem_paths(output, template, *, track, model, sources, extension="wav"):
    """{source: path} for one track: `output` itself if it is an audio file, else a folder.

    The folder defaults to separated/MODEL. Raises SepcliError when several sources would share
    a file, or the file's extension is of no audio format.
    """
    suffix = Path(output).suffix.lower() if output else ""
    if suffix and not os.path.isdir(output):
        if suffix not in AUDIO_EXTENSIONS:
            raise SepcliError(f"{output}: {suffix} is no audio format; use .wav or .flac, say")
        if len(sources) > 1:
            raise SepcliError(
                f"{output}: one file, but the model finds {', '.join(sources)}; "
                "choose one with --target, or name a folder"
            )
        return {sources[0]: Path(output)}
    folder = Path(output) if output else Path("separated") / model
    names = {
        stem: template.format(track=track, stem=stem, model=model, ext=extension)
        for stem in sources
    }
    if len(set(names.values())) < len(sources):
        raise SepcliError(f"file name template {template!r}: add {{stem}}, or stems would collide")
    return {stem: folder / name for stem, name in names.items()}


@dataclass
class Separation:
    """One run over any mixture of audio files, folders, lists and sample streams.

    `run` yields a record {"key", "notes"} or {"key", "error"} per item; `count` is their number.
    """

    models: Models
    targets: tuple = ()
    residual: bool = False
    part: Part = Part()  # of audio files
    output: str | None = None  # as for the command: PATH, DIR, "-" or None
    template: str = "{track}/{stem}.{ext}"
    subtype: str | None = None
    container: str | None = None  # a key of audio.writing.FORMATS
    overwrite: bool | None = None
    strict: bool = True
    input_type: str = "auto"
    count: int = 0
    _written: set = field(default_factory=set)

    def run(self, inputs):
        """Separate every input, a path or "-"; yield a record per item."""
        check_template(self.template)
        with ExitStack() as stack:
            writer = None
            for source in inputs:
                if source == "-" and (stream := self._audio_on_stdin()):
                    yield self._attempt("stdin", self._separate_audio, stream, "stdin")
                    continue
                for sample in self._samples(source):
                    if is_plain_audio(sample):
                        yield self._attempt(sample.key, self._separate_file, sample)
                        continue
                    if writer is None:
                        writer = stack.enter_context(
                            open_sample_writer(self.output, overwrite=self.overwrite)
                        )
                    yield self._attempt(sample.key, self._separate_sample, sample, writer)

    def _attempt(self, key, act, *args):
        """Do one item; its failure becomes a record, so that the others are still done."""
        self.count += 1
        try:
            return {"key": key, "notes": act(*args) or []}
        except SepcliError as error:
            return {"key": key, "error": str(error)}

    def _audio_on_stdin(self):
        """Standard input if it is audio; `self._stdin` is what is read of it otherwise."""
        self._stdin = None
        if sys.stdin is None or sys.stdin.isatty():
            return None
        self._stdin = Peekable(sys.stdin.buffer)
        kind = self._stdin.sniff() if self.input_type == "auto" else self.input_type
        return self._stdin if kind in ("wav", "audio") else None

    def _samples(self, source):
        stdin = self._stdin if source == "-" else None
        return read_samples(source, stdin=stdin, strict=self.strict, input_type=self.input_type)

    def _separate_sample(self, sample, writer):
        if writer.skips(sample.key):
            return
        try:
            if self.part != Part():
                raise SepcliError(
                    f"{sample.label()}: samples are separated whole; omit --start and --duration"
                )
            separate_sample(sample, self.models, self.targets, residual=self.residual)
        finally:
            writer.write(sample)  # a sample that cannot be separated goes on as it came

    def _separate_file(self, sample):
        path = sample.members[sample.find("mix")]
        return self._separate_audio(path, sample.key)

    def _separate_audio(self, source, track):
        model, separator = self.models.find()
        separator = choose(separator, self.targets, residual=self.residual)
        with open_blocks(source) as reader:
            outputs = self._outputs(source, track, model, separator.sources)
            if outputs is None:
                return None
            form = {"subtype": self.subtype, "container": self.container}
            return write_stems(reader, separator, outputs, part=self.part, **form)

    def _outputs(self, source, track, model, sources):
        """Where the stems of a track go, or None when they are there and stay."""
        if self.output == "-" or (self.output is None and not isinstance(source, Path)):
            return {self._one(sources): self._stdout()}
        names = {"track": track, "model": model, "extension": self.container or "wav"}
        outputs = stem_paths(self.output, self.template, sources=sources, **names)
        for path in outputs.values():
            if self.container and path.suffix[1:].lower() != self.container:
                raise SepcliError(f"{path}: its name is not one of {self.container}; omit --format")
        self._claim(outputs.values())
        return None if files.stays(outputs.values(), self.overwrite) else outputs

    def _one(self, sources):
        if len(sources) > 1:
            raise SepcliError(
                f"one signal fits on standard output, not {', '.join(sources)}; "
                "choose one with --target, or a folder with -o"
            )
        return sources[0]

    def _stdout(self):
        if sys.stdout.isatty():
            raise SepcliError("audio is not written to a terminal; use -o FILE or a pipe")
        self._claim(["standard output"])
        return sys.stdout.buffer

    def _claim(self, paths):
        for path in paths:
            if path in self._written:
                raise SepcliError(f"{path}: two inputs would be written there; name a folder")
            self._written.add(path)


def is_plain_audio(sample):
    """Whether a sample is nothing but one audio file on disk, so that stems are wanted."""
    mix = sample.find("mix")
    return (
        len(sample.members) == 1
        and mix is not None
        and isinstance(sample.members[mix], Path)
        and not sample.meta.get("targets")
    )
