"""Training data for PyTorch: item i is a function of (seed, i), the order one of (seed, position).

What changes in the course of a training, as a source's settings may say, is a function of the step.

Nothing here has a state to lose: a run resumed at item k sees what the uninterrupted run saw, and
the number of worker processes changes nothing.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from itertools import count
from os import PathLike, fspath
from typing import Any, NamedTuple

import numpy as np
import torch

from sepcli import config
from sepcli.cluster.workers import by_workers
from sepcli.errors import SepcliError
from sepcli.mixing.source import Source
from sepcli.mixing.specs import PRESETS, MixtureSpec
from sepcli.recordings import stored


class Kind(NamedTuple):
    """A kind of data: its settings, and the `sepcli.mixing.source.Source` that is made of them."""

    settings: str  # "module:Class"
    source: str  # "module:Class"
    enrolments: bool = False  # the settings have `enroll`: whether items have one
    spectrograms: bool = False  # of a model's transform: the settings have its `window` and `hop`

    @property
    def given(self) -> tuple[str, ...]:
        """The settings that are the model's to say, and not the configuration's."""
        enrolled = ("enroll",) if self.enrolments else ()
        transform = ("window", "hop") if self.spectrograms else ()
        return ("sample_rate", *enrolled, *transform)


KINDS = {
    "excerpts": Kind("sepcli.data.specs:ExcerptSpec", "sepcli.data.excerpts:Excerpts"),
    "masked": Kind("sepcli.data.masked:MaskedSpec", "sepcli.data.masked:Masked"),
    "mixtures": Kind("sepcli.mixing.specs:MixtureSpec", "sepcli.mixing.mixtures:Mixer"),
    "songs": Kind("sepcli.data.songs.spec:SongSpec", "sepcli.data.songs.batches:Songs"),
    "speakers": Kind(
        "sepcli.mixing.specs:SpeakerSpec", "sepcli.mixing.speakers:SpeakerMixer", enrolments=True
    ),
    "spectrograms": Kind(
        "sepcli.data.spectra:SpectraSpec", "sepcli.data.spectra:SpectraMixer", spectrograms=True
    ),
    "stems": Kind("sepcli.mixing.specs:StemSpec", "sepcli.mixing.music:StemMixer"),
    "voices": Kind("sepcli.data.specs:VoiceSpec", "sepcli.data.voices:Voices", enrolments=True),
    "toy": Kind("sepcli.data.toy:ToySpec", "sepcli.data.toy:Toy"),
}


def resolve(settings: Any, *, section: str, items: int, seed: int) -> dict[str, Any]:
    """Check one `data` section and fill in every default; returns the complete section.

    section: its name in messages. items, seed: what they are where the section does not say. A
    `preset` of the section stands for its settings, unless they are there.
    Raises SepcliError for an unknown kind, an unknown key, or a value that does not fit.
    """
    if not isinstance(settings, dict) or "kind" not in settings:
        raise SepcliError(f"{section}.kind is missing; choose from {', '.join(sorted(KINDS))}")
    common = {"kind": "", "items": items, "seed": seed}
    kind = _kind(settings["kind"], section)
    spec = _load(kind.settings)
    own = {key: value for key, value in settings.items() if key not in common}
    own = _with_preset(own, spec, section)
    common |= config.check_keys(
        lambda kind="", items=0, seed=0: None,
        {key: value for key, value in settings.items() if key in common},
        section=section,
    )
    for key in ("items", "seed"):
        if common[key] < 0:
            raise SepcliError(f"{section}.{key} must be a whole number, 0 or more")
    own = config.check_keys(spec, own, section=section, reserved=kind.given)
    return common | config.defaults(spec, reserved=kind.given) | own


def _with_preset(settings, spec, section):
    """The settings of a section, and those of its preset if it names one."""
    if "preset" not in settings:
        return settings
    own = {key: value for key, value in settings.items() if key != "preset"}
    if not issubclass(spec, MixtureSpec):
        raise SepcliError(f"{section}.preset is for the kinds mixtures and speakers; omit it")
    if settings["preset"] not in PRESETS:
        known = ", ".join(PRESETS)
        raise SepcliError(f"{section}.preset: unknown {settings['preset']!r}; choose from {known}")
    return PRESETS[settings["preset"]] | own


def build(
    resolved: dict[str, Any],
    *,
    section: str,
    sample_rate: int,
    sources: Sequence[str],
    enroll: bool = False,
    stft: tuple[int, int] | None = None,
) -> "Items":
    """The data set of a section that `resolve` returned, with refs in the order of `sources`.

    enroll: whether items have an enrolment, another utterance of the target, as a third tensor.
    stft: (window, hop) of the spectrograms that may take the place of sound, or None.
    Raises SepcliError for settings that make no sense, and for folders without audio.
    """
    name, kind = resolved["kind"], _kind(resolved["kind"], section)
    own = {key: v for key, v in resolved.items() if key not in ("kind", "items", "seed")}
    if enroll and not kind.enrolments:
        able = ", ".join(other for other, each in KINDS.items() if each.enrolments)
        raise SepcliError(f"{section}.kind {name} has no enrolments; use {able}")
    if kind.spectrograms and stft is None:
        raise SepcliError(f"{section}.kind {name}: sound is needed here; use stems")
    window, hop = stft or (None, None)
    known = {"sample_rate": sample_rate, "enroll": enroll, "window": window, "hop": hop}
    own |= {key: known[key] for key in kind.given}
    try:
        drawn = _load(kind.source)(_load(kind.settings)(**own))
    except (SepcliError, TypeError) as error:
        raise SepcliError(f"{section}: {error}") from None
    return Items(drawn, sources, items=resolved["items"], seed=resolved["seed"])


class Items:
    """Numbered training examples: item i is (mix (C, T), refs (S, C, T)), float32 tensors.

    Where the source makes enrolments, (mix, refs, enroll (C, T')). Spectrograms are complex64,
    (C, F, N) and (S, C, F, N).
    source: a `sepcli.mixing.source.Source`. sources: names of the refs, in the order of the result.
    items: how many different ones there are; 0 means endless.
    """

    def __init__(self, source: Source, sources: Sequence[str], *, items: int, seed: int) -> None:
        self.source, self.sources = source, tuple(sources)
        self.items, self.seed = items, seed
        self.faults = {}  # {recording: why it could not be read, and another one was drawn}

    def check(self, section: str) -> None:
        """Raise SepcliError if a recording that may be drawn has no header that can be read.

        section: where the recordings are named, for the message.
        """
        count, errors = 0, []
        for recording in self.source.recordings():
            count += 1
            try:
                if not stored.header(recording)[0]:
                    raise SepcliError(f"{recording}: empty; remove it")
            except SepcliError as error:
                errors.append(error)
        if errors:
            others = f" ({len(errors)} of {count} recordings cannot be read)" * (len(errors) > 1)
            raise SepcliError(f"{section}: {errors[0]}{others}")

    def spare(self) -> None:
        """From now on, draw others in place of recordings that cannot be read: see `faults`."""
        if self.source.faults:
            self.source.faults.spared = True

    def take_faults(self) -> dict[Any, Any]:
        """{recording: why it cannot be read}, of those since the last call."""
        return self.source.faults.take() if self.source.faults else {}

    def __getitem__(self, number):
        """Item `number`, as after all steps; or (number, step), as it is in that step.

        Raises SepcliError for one that cannot be made.
        """
        index, step = number if isinstance(number, tuple) else (number, None)
        drawn = self.source.draw(self.seed, index, step)
        refs = np.stack(self._in_order(drawn.refs))  # (S, C, T)
        signals = (drawn.mix, refs) if drawn.enroll is None else (drawn.mix, refs, drawn.enroll)
        return tuple(map(_tensor, signals))

    def together(
        self, numbers: Sequence[int], device: str | torch.device
    ) -> tuple[torch.Tensor, ...]:
        """The items of these numbers, made as one batch on the device."""
        mix, refs, *enroll = self.source.draw_many(self.seed, numbers, device)
        return mix, torch.stack(self._in_order(refs), 1), *enroll  # refs (B, S, C, T)

    def _in_order(self, refs):
        for name in self.sources:
            if name not in refs:
                raise SepcliError(
                    f"the model's source {name!r} is not in the data, which has {', '.join(refs)}; "
                    f"set model.sources"
                )
        return [refs[name] for name in self.sources]


class Dataset(Items, torch.utils.data.Dataset):
    """Training examples for a `torch.utils.data.DataLoader`: item i is a function of (seed, i).

    So workers need no seeds of their own, and any number of them makes the same items. An item is
    (mix (C, T), refs (S, C, T)), float32; with `enroll`, (mix, refs, enrolment (C, T')).

    kind: one of `KINDS`, `mixtures` if not given. items: how many. sources: names of the references
    in their order. settings: as in the `data` section of a training: `speech`, `noise`, `rir`,
    `snr_db`, `preset`, ...
    Raises SepcliError for settings that make no sense, and for folders without audio.
    """

    def __init__(
        self,
        kind: str = "mixtures",
        *,
        items: int = 1000,
        seed: int = 0,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 16000,
        enroll: bool = False,
        **settings: Any,
    ) -> None:
        if items < 1:
            raise SepcliError(f"items must be at least 1, not {items}")
        given = {"kind": kind, "items": items, "seed": seed, **_texts(settings)}
        resolved = resolve(given, section="data", items=items, seed=seed)
        about: dict[str, Any] = {"sample_rate": sample_rate, "sources": sources, "enroll": enroll}
        made = build(resolved, section="data", **about)
        super().__init__(made.source, sources, items=items, seed=seed)

    def __len__(self):
        return self.items

    def __getitem__(self, number):
        """Item `number`, from 0 to `items` - 1; negative numbers count from the end."""
        if not -self.items <= number < self.items:
            raise IndexError(f"item {number} of {self.items}")
        return super().__getitem__(number % self.items)


def batches(
    data: Items,
    size: int,
    *,
    seed: int,
    start: int = 0,
    workers: int = 0,
    per_step: int = 1,
    part: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
) -> Generator[tuple[torch.Tensor, ...], None, None]:
    """Endless batches (mix (B, C, T), refs (B, S, C, T)) of training data, from batch `start` on.

    Enrolments, where items have them, are a third tensor (B, C, T').

    A finite data set is shuffled anew for every epoch; an endless one is read in order.
    workers: processes that make items ahead of time; 0 makes them here. per_step: how many batches
    a step of the training takes; step 0 begins with batch 0. part: (number, of how many) the equal
    part of every batch that is made here, others being made by other processes. device: where a
    source that makes whole batches makes them, without workers; all others are made on the CPU.
    """
    order = _order(data.items, size, seed, start, per_step)
    number, of = part
    order = (batch[number * size // of : (number + 1) * size // of] for batch in order)
    if data.source.draws_batches:
        yield from (data.together([number for number, _ in batch], device) for batch in order)
    else:
        yield from _made(data, order, workers)


def in_order(
    data: Items, size: int, *, workers: int = 0
) -> Generator[tuple[torch.Tensor, ...], None, None]:
    """The batches of one pass through a finite data set, in order; the last may be smaller."""
    parts = [list(range(i, min(i + size, data.items))) for i in range(0, data.items, size)]
    yield from _made(data, parts, workers)


def _order(items, size, seed, start, per_step):
    """Lists of (item number, step), one per batch, without end."""
    epoch, order = None, np.zeros(0, int)
    for number in count(start):
        step, batch = number // per_step, []
        for k in range(number * size, (number + 1) * size):
            if items and k // items != epoch:
                epoch = k // items
                order = np.random.default_rng([seed, epoch]).permutation(items)
            batch.append((int(order[k % items]) if items else k, step))
        yield batch


def _made(data, order, workers):
    """The batches of the lists of item numbers in `order`."""
    if not workers:
        made = map(partial(_batch, data), order)
    else:
        remedy = "try fewer train.workers"
        how = {"workers": workers, "method": None, "remedy": remedy}
        made = by_workers(partial(_batch_in_worker, data), order, **how)
    batches = _noted(made, data.faults)
    yield from _pinned(batches) if torch.cuda.is_available() else batches


def _noted(made, faults):
    """The batches of those and their faults, which are added to `faults`."""
    for batch, found in made:
        faults |= found
        yield batch


def _batch(data, numbers):
    """(signals, {recording: why it could not be read}) of these items."""
    items = [data[number] for number in numbers]
    signals = list(zip(*items, strict=True))  # mixes, refs, enrolments if there are any
    if any(len({x.shape for x in batch}) > 1 for batch in signals):
        raise SepcliError(
            "the items of a batch differ in length; give duration_s as one number, and enroll_s"
        )
    return tuple(map(torch.stack, signals)), data.take_faults()


def _batch_in_worker(data, numbers):
    torch.set_num_threads(1)  # a forked process has none of its parent's, and would wait for them
    return _batch(data, numbers)


def _pinned(batches):
    """The batches in memory that a GPU copies faster, moved there one batch ahead."""

    def move():
        batch = next(batches, None)
        return batch and tuple(signal.pin_memory() for signal in batch)

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(move)
        while batch := coming.result():
            coming = thread.submit(move)
            yield batch


def _texts(settings):
    """Settings with paths as texts, as in a configuration."""
    return {key: _text(value) for key, value in settings.items()}


def _text(value):
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return fspath(value) if isinstance(value, PathLike) else value


def _tensor(signal):
    kind = np.complex64 if np.iscomplexobj(signal) else np.float32
    return torch.from_numpy(np.asarray(signal, kind))


def _kind(name, section):
    if name not in tuple(KINDS):
        known = ", ".join(sorted(KINDS))
        raise SepcliError(f"unknown {section}.kind {name!r}; choose from {known}")
    return KINDS[name]


def _load(path):
    module, name = path.split(":")
    return getattr(import_module(module), name)
