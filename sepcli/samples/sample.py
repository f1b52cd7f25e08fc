"""A sample: a key, some named signals, and a little JSON."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sepcli.audio import AUDIO_EXTENSIONS, decode, encode_wav, open_blocks, read, split_track
from sepcli.audio.reading import Reader
from sepcli.errors import SepcliError
from sepcli.files import composed
from sepcli.signals.checks import HIGHEST_RATE

ROLES = ("mix", "ref", "enroll", "est")  # the order in which members are written


def split_audio_name(name: str) -> tuple[str, str]:
    """("ref.speech", ".wav") of "ref.speech.wav"; ("note.txt", "") of what is not audio."""
    stem, _, extension = name.rpartition(".")
    if f".{extension.lower()}" in AUDIO_EXTENSIONS:
        return stem, f".{extension}"
    return name, ""


def member_order(name: str) -> tuple[int, str]:
    """Sort key of member names: mix, references, enrolment, estimates, then all others by name."""
    role = name.split(".", 1)[0]
    return ROLES.index(role) if role in ROLES else len(ROLES), name


@dataclass
class Sample:
    """Named signals that belong together.

    key: what the sample is called; `/` makes it a path.
    meta: the JSON that goes with it; `sample_rate` (Hz) and `targets` mean something to all,
        `key` and `fields` (the members' names) are filled in.
    members: name -> bytes, or the Path of a file (the `Remote` of an object) that nothing has read
        yet. `mix.wav`, `ref.TARGET.wav`, `enroll.wav` and `est.TARGET.wav` are signals (also as
        .flac, .ogg, …); whatever else is there is kept byte for byte.
    origin: where it was read, for messages. fault: why it could not be, see `unreadable`.
    """

    key: str
    meta: dict = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    origin: str = ""
    fault: str | None = None

    def __post_init__(self):
        self.meta = {**self.meta, "key": self.key, "fields": self.ordered()}
        if self.meta.get("sample_rate", 0) is None:
            del self.meta["sample_rate"]

    @property
    def sample_rate(self) -> Any:
        """In Hz, from `meta` or else the first signal's header; SepcliError when there is none."""
        self.check()
        if "sample_rate" not in self.meta:
            names = [name for name in self.ordered() if split_audio_name(name)[1]]
            if not names:
                raise SepcliError(
                    f"{self.label()}: no audio and no sample_rate in its JSON; add one"
                )
            with self.open(names[0]) as reader:
                self.meta["sample_rate"] = reader.sample_rate
        return self.meta["sample_rate"]

    @property
    def targets(self) -> list[str]:
        """Names of what is to be found in the mixture: as in `meta`, or those of the references."""
        return list(map(composed, self.meta.get("targets") or self.refs()))

    def label(self, member: str | None = None) -> str:
        """What messages call the sample, or one member of it."""
        where = f"{self.origin}: " if self.origin else ""
        return f"{where}{self.key}.{member}" if member else f"{where}sample {self.key}"

    def labelled(self, error: Exception) -> str:
        """The text of `error` with what it is about in front, unless it begins with that."""
        text, label = str(error), self.label()
        return text if text.startswith(label) else f"{label}: {text}"

    def check(self) -> None:
        """Raise SepcliError for a sample that could not be read; see `unreadable`."""
        if self.fault is not None:
            raise SepcliError(self.fault)

    def ordered(self) -> list[str]:
        """Member names in the order in which they are written."""
        return sorted(self.members, key=member_order)

    def names(self, prefix: str) -> list[str]:
        """Members called `prefix` or `prefix.…`: names("ref") -> ["ref.noise.wav", …]."""
        return [name for name in self.ordered() if f"{name}.".startswith(f"{prefix}.")]

    def find(self, name: str) -> str | None:
        """The member that holds the signal `name`, such as "mix.flac" for "mix", or None.

        In a tar of plain audio files, `KEY.wav`, the member "wav" is the mix.
        """
        if name in self.members:
            return name
        stems = (name, "") if name == "mix" else (name,)
        stems = tuple(map(composed, stems))
        for member in self.ordered():
            stem, extension = split_audio_name(member)
            if extension and composed(stem) in stems:
                return member
        return None

    def has(self, name: str) -> bool:
        """Whether there is a signal `name`, such as "mix" or "ref.speech"."""
        return self.find(name) is not None

    def audio(self, name: str) -> np.ndarray:
        """Return the signal `name`, float32 (C, T) at `sample_rate`.

        Raises SepcliError when it is missing, broken, or has another rate than the sample.
        """
        member = self._find(name)
        content = self.members[member]
        if isinstance(content, Path):
            signal, rate = read(content)
        else:
            signal, rate = decode(content, self.label(member))
        if rate != self.meta.setdefault("sample_rate", rate):
            raise SepcliError(
                f"{self.label(member)} is {rate} Hz but its sample is "
                f"{self.meta['sample_rate']} Hz; resample it first"
            )
        return signal

    def _find(self, name):
        self.check()
        if (member := self.find(name)) is None:
            there = ", ".join(self.ordered()) or "nothing"
            raise SepcliError(f"{self.label()} has no {name}; it holds {there}")
        return member

    def content(self, member: str) -> bytes | Path:
        """What to keep of a member: its bytes, a WAV of them if it is a track of a file, or a path.

        Raises SepcliError for a track that cannot be decoded.
        """
        content = self.members[member]
        if isinstance(content, Path) and split_track(content)[1] is not None:
            return encode_wav(*read(content), name=str(content))
        return content

    def loaded(self) -> "Sample":
        """The sample with the bytes of all files in it, for when these are gone."""
        members: dict[str, bytes | Path] = {
            name: content.read_bytes() if isinstance(content, Path) else content
            for name, content in ((name, self.content(name)) for name in self.members)
        }
        return Sample(self.key, self.meta, members, self.origin, self.fault)

    def open(self, name: str) -> Reader:
        """Open the signal `name` for reading in blocks; returns an `audio.Reader`."""
        member = self._find(name)
        content = self.members[member]
        if isinstance(content, Path):
            return open_blocks(content)
        return open_blocks(io.BytesIO(content), name=self.label(member))

    def set_audio(self, name: str, signal: np.ndarray, sample_rate: int | None = None) -> None:
        """Add or replace the signal `name` by float32 or float64 (C, T), kept as float32 WAV.

        sample_rate: Hz; may be left out when the sample has one, and must equal it.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        if rate != self.meta.setdefault("sample_rate", rate):
            raise ValueError(f"{self.label()} is {self.meta['sample_rate']} Hz, not {rate} Hz")
        encoded = encode_wav(signal, rate, name=self.label(f"{name}.wav"))
        while (old := self.find(name)) is not None:
            del self.members[old]
        self.members[f"{name}.wav"] = encoded
        self.meta["fields"] = self.ordered()

    def refs(self) -> dict[str, Any]:
        """The references: target -> member name; those in `meta["targets"]` first."""
        return self._by_target("ref")

    def ests(self) -> dict[str, Any]:
        """The estimates: target -> member name; those in `meta["targets"]` first."""
        return self._by_target("est")

    def _by_target(self, role):
        found = {}
        for member in self.names(role):
            stem, extension = split_audio_name(member)
            if extension and stem != role:
                found.setdefault(composed(stem[len(role) + 1 :]), member)
        first = filter(found.__contains__, map(composed, self.meta.get("targets") or ()))
        return {target: found[target] for target in dict.fromkeys([*first, *found])}

    def json(self) -> bytes:
        """`meta` as one line of JSON bytes: key, sample_rate, fields and targets first."""
        self.check()
        record: dict[str, Any] = {"key": self.key}
        if any(split_audio_name(name)[1] for name in self.members) or "sample_rate" in self.meta:
            record["sample_rate"] = self.sample_rate
        record["fields"] = self.ordered()
        record["targets"] = self.targets
        record |= {name: value for name, value in self.meta.items() if name not in record}
        return json_line(record)


def unreadable(key: str, error: Exception | str, origin: str = "") -> Sample:
    """What stands for a sample that is damaged, so that those after it are still read.

    Whatever uses it gets the SepcliError from `check`.
    """
    return Sample(key, origin=origin, fault=str(SepcliError(str(error))))


def json_line(record: dict[str, Any]) -> bytes:
    """Bytes of one line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    settings: dict[str, Any] = {
        "default": lambda value: value.tolist()
    }  # numbers and arrays of NumPy
    try:
        text = json.dumps(record, allow_nan=False, **settings)
    except ValueError:
        lenient = json.loads(json.dumps(record, **settings), parse_constant=lambda name: None)
        text = json.dumps(lenient)
    except RecursionError:
        raise SepcliError(f"{record['key']}: its JSON is nested too deeply; flatten it") from None
    return text.encode() + b"\n"


def parse_meta(data: bytes | str, name: str) -> dict[str, Any]:
    """The dict in the JSON bytes `data`; SepcliError, naming `name`, for anything else."""
    try:
        meta = json.loads(data.removeprefix("\ufeff") if isinstance(data, str) else data)
    except (ValueError, RecursionError) as error:
        raise SepcliError(f"{name}: not JSON ({error}); write it again") from None
    if not isinstance(meta, dict):
        raise SepcliError(f"{name}: not a JSON object but {data[:20]!r}; write it as {{…}}")
    rate = meta.get("sample_rate")
    if rate is not None and (type(rate) is not int or not 1 <= rate <= HIGHEST_RATE):
        raise SepcliError(f"{name}: sample_rate is {rate!r:.40}; write hertz, such as 16000")
    for entry in ("fields", "targets"):
        value = meta.get(entry)
        if value is not None and not _is_names(value):
            raise SepcliError(f"{name}: {entry} is {value!r:.40}; write a list of names")
    return meta


def _is_names(value):
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
