"""What is scored in a sample: estimates, what they are compared with, and how both are read."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from sepcli.errors import SepcliError
from sepcli.samples.sample import Sample
from sepcli.samples.stems import ACCOMPANIMENT, VOCALS, parts_of_accompaniment, stem_name

PIECE = 1 << 16  # frames read at a time
REST = "residual"  # of a separation: all but the other estimates


class UnfitError(SepcliError):
    """A target that cannot be scored, for a reason that the others need not have."""

    def __init__(self, target: str, message: str) -> None:
        super().__init__(message)
        self.target = target


@dataclass(frozen=True)
class Target:
    """An estimate and its reference, by the names of the signals in a sample.

    reference: one signal, or several that add up to it; none for what is scored without.
    """

    name: str
    estimate: str
    reference: tuple[str, ...]

    @property
    def signals(self) -> tuple[*tuple[str, ...], str]:
        return (*self.reference, self.estimate)


def find_targets(sample: Sample, *, alone: bool = False) -> list[Target]:
    """The `Target`s of a sample whose estimates have references, in the order of the estimates.

    What is called accomp, instrumental or no_vocals is the accompaniment, and so is a residual when
    no other estimates but the vocals are there. A missing reference of the accompaniment is made of
    all stems but the vocals.
    alone: whether estimates that have no reference are targets, too.
    """
    references, estimates, found = _references(sample), list(sample.ests()), {}
    for own in estimates:
        name = _role(own, estimates, references)
        if name in references and (name == own or name not in (*found, *estimates)):
            found[name] = Target(name, f"est.{own}", references[name])
        elif alone:
            found[own] = Target(own, f"est.{own}", ())
    return list(found.values())


def _role(name, estimates, references):
    """What the estimate called `name` is, beside the others."""
    if name in references:
        return name
    others = set(map(stem_name, estimates)) - {name}
    return ACCOMPANIMENT if name == REST and others <= {VOCALS} else stem_name(name)


def _references(sample):
    """Name -> the signals that add up to its reference."""
    there = list(sample.refs())
    found: dict[str, tuple[str, ...]] = {
        stem_name(name): (f"ref.{name}",) for name in reversed(there)
    }
    if ACCOMPANIMENT not in found and (parts := parts_of_accompaniment(there)):
        found[ACCOMPANIMENT] = tuple(f"ref.{part}" for part in parts)
    return found


# --- whole signals


def read_pair(
    sample: Sample, target: Target, *, mixed: bool = False, pad: bool = False
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(estimate, reference or None, mixture or None) of a target, float32 (C, T) of one shape.

    mixed: whether the mixture is needed. pad: append zeros to what is shorter. Raises SepcliError.
    """
    names = [*target.signals, *(["mix"] if mixed else [])]
    signals = {name: sample.audio(name) for name in names}
    first = target.signals[0]
    for name, signal in signals.items():
        _compare(sample, name, signal.shape, first, signals[first].shape, pad)
    length = max(signal.shape[1] for signal in signals.values())
    signals = {name: padded(signal, length) for name, signal in signals.items()}
    reference = sum((signals[name] for name in target.reference[1:]), signals[first])
    reference = reference if target.reference else None
    return signals[target.estimate], reference, signals.get("mix")


def padded(signal: np.ndarray, length: int) -> np.ndarray:
    """`signal` (C, T) with zeros behind it, (C, length)."""
    missing = length - signal.shape[1]
    return np.pad(signal, ((0, 0), (0, missing))) if missing else signal


def _compare(sample, name, shape, other, wanted, pad):
    """Raise SepcliError unless a signal has the (channels, samples) of another; None is unknown."""
    for what, ours, theirs in zip(("channels", "samples"), shape, wanted, strict=True):
        if ours != theirs and None not in (ours, theirs) and not (pad and what == "samples"):
            remedy = "make them equal" if what == "channels" else "--pad appends zeros"
            raise SepcliError(
                f"{sample.label()}: {name} has {ours} {what} but {other} has {theirs}; "
                f"nothing is cut, {remedy}"
            )


# --- signals block by block


def settle_rate(sample: Sample, targets: Sequence[Target]) -> None:
    """Take the sample rate that most signals have for the sample's, where its JSON has none."""
    if "sample_rate" in sample.meta:
        return
    rates = Counter()
    for name in dict.fromkeys(name for target in targets for name in target.signals):
        with suppress(SepcliError), sample.open(name) as reader:
            rates[reader.sample_rate] += 1
    if rates:
        sample.meta["sample_rate"] = rates.most_common(1)[0][0]


def read_blocks(
    sample: Sample, targets: Sequence[Target], *, pad: bool = False
) -> Iterator[np.ndarray]:
    """Yield (2, S, C, n) of the estimates and the references of S targets.

    pad: append zeros to what is shorter. Raises `UnfitError` for a target that cannot be read, or
    whose signals are unlike each other, or unlike most of the others'.
    """
    with ExitStack() as opened:
        readers = {}
        for target in targets:
            with _blamed(target):
                for name in target.signals:
                    if name not in readers:
                        readers[name] = opened.enter_context(sample.open(name))
        _check_layouts(sample, readers, targets, pad)
        while True:
            pieces = {}
            for target in targets:
                with _blamed(target):
                    pieces |= {n: readers[n].read(PIECE) for n in target.signals if n not in pieces}
            length = max(piece.shape[1] for piece in pieces.values())
            if not length:
                return
            if not pad:
                _check_ends(sample, pieces, targets)
            pieces = {name: padded(piece, length) for name, piece in pieces.items()}
            estimates = [pieces[target.estimate] for target in targets]
            references = [sum(pieces[name] for name in target.reference) for target in targets]
            yield np.stack([np.stack(estimates), np.stack(references)])


@contextmanager
def _blamed(target):
    """Blame a target for what goes wrong."""
    try:
        yield
    except SepcliError as error:
        raise UnfitError(target.name, str(error)) from None


def _check_layouts(sample, readers, targets, pad):
    """Raise `UnfitError` unless `readers`, by name, fit together as far as their headers tell."""
    shapes = {name: (reader.channels, reader.frames) for name, reader in readers.items()}
    for target in targets:
        first = target.reference[0]
        with _blamed(target):
            for name in target.signals:
                if (rate := readers[name].sample_rate) != sample.sample_rate:
                    raise SepcliError(
                        f"{readers[name].name} is {rate} Hz but its sample is "
                        f"{sample.sample_rate} Hz; resample it first"
                    )
                _compare(sample, name, shapes[name], first, shapes[first], pad)
    usual = _usual({target.reference[0]: shapes[target.reference[0]] for target in targets})
    for target in targets:
        first = target.reference[0]
        with _blamed(target):
            _compare(sample, first, shapes[first], usual, shapes[usual], pad)


def _check_ends(sample, pieces, targets):
    """Raise `UnfitError` for a target that ends before the others, which no header told."""
    lengths = {name: piece.shape[1] for name, piece in pieces.items()}
    for target in targets:
        for name in target.signals:
            if lengths[name] != lengths[target.reference[0]]:
                raise _ended(sample, target, name, target.reference[0])
    usual = _usual({target.reference[0]: lengths[target.reference[0]] for target in targets})
    for target in targets:
        if lengths[target.reference[0]] != lengths[usual]:
            raise _ended(sample, target, target.reference[0], usual)


def _ended(sample, target, name, other):
    message = f"{sample.label()}: {name} and {other} differ in length"
    return UnfitError(target.name, f"{message}; nothing is cut, --pad appends zeros")


def _usual(layouts):
    """The first name whose layout is the one that most names have."""
    commonest = Counter(layouts.values()).most_common(1)[0][0]
    return next(name for name, layout in layouts.items() if layout == commonest)
