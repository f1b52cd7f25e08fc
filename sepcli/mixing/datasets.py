"""Training data for PyTorch: item i is a function of (seed, i), the order one of (seed, position).

What changes in the course of a training, as a source's settings may say, is a function of the step.

Nothing here has a state to lose: a run resumed at item k sees what the uninterrupted run saw, and
the number of worker processes changes nothing.
"""

import inspect
import signal
from importlib import import_module
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sepcli import config
from sepcli.errors import SepcliError

# kind -> (settings, source built from the settings). A source has draw(seed, index), or, where
# something changes in the course of a training, draw(seed, index, step=None); it returns an object
# with `mix` (C, T) and `refs`, {name: (C, T)}, and, if it makes them, `enroll` (C, T').
# Those of spectrograms are complex, (C, F, N) in place of (C, T). A source that makes a whole batch
# on the device has draw_many(seed, indices, device), too: (mix (B, C, T), {name: (B, C, T)}).
KINDS = {
    "excerpts": ("sepcli.mixing.specs:ExcerptSpec", "sepcli.mixing.excerpts:Excerpts"),
    "mixtures": ("sepcli.mixing.mixtures:MixtureSpec", "sepcli.mixing.mixtures:Mixer"),
    "speakers": ("sepcli.mixing.speakers:SpeakerSpec", "sepcli.mixing.speakers:SpeakerMixer"),
    "spectrograms": ("sepcli.mixing.spectra:SpectraSpec", "sepcli.mixing.spectra:SpectraMixer"),
    "stems": ("sepcli.mixing.music:StemSpec", "sepcli.mixing.music:StemMixer"),
    "toy": ("sepcli.mixing.toy:ToySpec", "sepcli.mixing.toy:Toy"),
}
RESERVED = ("sample_rate", "enroll", "window", "hop")  # the model's


def resolve(settings, *, section, items, seed):
    """Check one `data` section and fill in every default; returns the complete section.

    section: its name in messages. items, seed: what they are where the section does not say.
    Raises SepcliError for an unknown kind, an unknown key, or a value that does not fit.
    """
    if not isinstance(settings, dict) or "kind" not in settings:
        raise SepcliError(f"{section}.kind is missing; choose from {', '.join(sorted(KINDS))}")
    common = {"kind": "", "items": items, "seed": seed}
    spec, _ = _classes(settings["kind"], section)
    own = {key: value for key, value in settings.items() if key not in common}
    common = {key: settings.get(key, value) for key, value in common.items()}
    for key in ("items", "seed"):
        if type(common[key]) is not int or common[key] < 0:
            raise SepcliError(f"{section}.{key} must be a whole number, 0 or more")
    own = config.check_keys(spec, own, section=section, reserved=RESERVED)
    return common | config.defaults(spec, reserved=RESERVED) | own


def build(resolved, *, section, sample_rate, sources, enroll=False, stft=None):
    """The data set of a section that `resolve` returned, with refs in the order of `sources`.

    enroll: whether items have an enrolment, another utterance of the target, as a third tensor.
    stft: (window, hop) of the spectrograms that may take the place of sound, or None.
    Raises SepcliError for settings that make no sense, and for folders without audio.
    """
    spec, source = _classes(resolved["kind"], section)
    own = {key: v for key, v in resolved.items() if key not in ("kind", "items", "seed")}
    if enroll:
        if "enroll" not in inspect.signature(spec).parameters:
            raise SepcliError(f"{section}.kind {resolved['kind']} has no enrolments; use speakers")
        own["enroll"] = True
    if resolved["kind"] == "spectrograms":
        if stft is None:
            raise SepcliError(f"{section}.kind spectrograms: sound is needed here; use stems")
        own["window"], own["hop"] = stft
    try:
        drawn = source(spec(sample_rate=sample_rate, **own))
    except (SepcliError, TypeError) as error:
        raise SepcliError(f"{section}: {error}") from None
    return Items(drawn, sources, items=resolved["items"], seed=resolved["seed"])


class Items(Dataset):
    """Numbered training examples: item i is (mix (C, T), refs (S, C, T)), float32 tensors.

    Where the source makes enrolments, (mix, refs, enroll (C, T')). Spectrograms are complex64,
    (C, F, N) and (S, C, F, N).
    source: has draw(seed, index). sources: names of the refs, in the order of the result.
    items: how many different ones there are; 0 means endless.
    An item that cannot be made is its SepcliError instead: raised in a worker process, its one
    line would arrive wrapped in a traceback. `batches` and `in_order` raise it.
    """

    def __init__(self, source, sources, *, items, seed):
        self.source, self.sources = source, tuple(sources)
        self.items, self.seed = items, seed
        self._by_step = "step" in inspect.signature(source.draw).parameters

    def __getitem__(self, number):
        """Item `number`, as after all steps; or (number, step), as it is in that step."""
        index, step = number if isinstance(number, tuple) else (number, None)
        try:
            place = {"step": step} if self._by_step else {}
            drawn = self.source.draw(self.seed, index, **place)
            refs = np.stack(self._in_order(drawn.refs))  # (S, C, T)
        except SepcliError as error:
            return error
        enroll = getattr(drawn, "enroll", None)
        signals = (drawn.mix, refs) if enroll is None else (drawn.mix, refs, enroll)
        return tuple(map(_tensor, signals))

    def together(self, numbers, device):
        """The items of these numbers, made as one batch on the device."""
        mix, refs = self.source.draw_many(self.seed, numbers, device)
        return mix, torch.stack(self._in_order(refs), 1)  # (B, S, C, T)

    def _in_order(self, refs):
        for name in self.sources:
            if name not in refs:
                raise SepcliError(
                    f"the model's source {name!r} is not in the data, which has {', '.join(refs)}; "
                    f"set model.sources"
                )
        return [refs[name] for name in self.sources]


def batches(data, size, *, seed, start=0, workers=0, per_step=1, device="cpu"):
    """Endless batches (mix (B, C, T), refs (B, S, C, T)) of training data, from batch `start` on.

    Enrolments, where items have them, are a third tensor (B, C, T').

    A finite data set is shuffled anew for every epoch; an endless one is read in order.
    workers: processes that make items ahead of time; 0 makes them here. per_step: how many batches
    a step of the training takes; step 0 begins with batch 0. device: where a source that makes
    whole batches makes them, without workers; all others are made on the CPU.
    """
    order = _Order(data.items, size, seed, start, per_step)
    if hasattr(getattr(data, "source", None), "draw_many"):
        yield from (data.together([number for number, _ in batch], device) for batch in order)
    yield from _raised(_loader(data, order, workers))


def in_order(data, size, *, workers=0):
    """The batches of one pass through a finite data set, in order; the last may be smaller."""
    parts = [list(range(i, min(i + size, data.items))) for i in range(0, data.items, size)]
    yield from _raised(_loader(data, parts, workers))


class _Order:
    """Lists of (item number, step), one per batch, without end."""

    def __init__(self, items, size, seed, start, per_step):
        self.items, self.size, self.seed, self.start = items, size, seed, start
        self.per_step = per_step

    def __iter__(self):
        epoch, order = None, None
        for number in count(self.start):
            step, batch = number // self.per_step, []
            for k in range(number * self.size, (number + 1) * self.size):
                if self.items and k // self.items != epoch:
                    epoch = k // self.items
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.items)
                batch.append((int(order[k % self.items]) if self.items else k, step))
            yield batch


def _loader(data, order, workers):
    # The loader draws a seed for its workers, which nothing here uses; a generator of its own
    # keeps that draw away from the global state.
    return DataLoader(
        data,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),  # what a GPU copies faster
        generator=torch.Generator(),
    )


def _tensor(signal):
    kind = np.complex64 if np.iscomplexobj(signal) else np.float32
    return torch.from_numpy(np.asarray(signal, kind))


def _collate(items):
    for item in items:
        if isinstance(item, SepcliError):
            return item
    signals = list(zip(*items, strict=True))  # mixes, refs, enrolments if there are any
    if any(len({x.shape for x in batch}) > 1 for batch in signals):
        return SepcliError(
            "the items of a batch differ in length; give duration_s as one number, and enroll_s"
        )
    return tuple(map(torch.stack, signals))


def _raised(loader):
    for batch in loader:
        if isinstance(batch, SepcliError):
            raise batch
        yield batch


def _leave_signals_to_the_parent(_worker):
    """Ctrl-C, and many a SIGTERM, reach every process; only the one that saves should act on it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _classes(kind, section):
    if kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise SepcliError(f"unknown {section}.kind {kind!r}; choose from {known}")
    return tuple(
        getattr(import_module(module), name)
        for module, name in (path.split(":") for path in KINDS[kind])
    )
