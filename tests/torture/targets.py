"""What reads files that others may have made: how each is fed, and with mutants of what."""

import asyncio
import contextlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from click.testing import CliRunner

from sepcli.errors import SepcliError
from tests.sounds import pipe
from tests.torture import formats, material, sealed
from tests.torture.mutation import Mutate, json_lines, json_text, mutate


class Place:
    """The folders of a mutant: `inputs`, and `output`, the only one that may be written to."""

    def __init__(self, root: Path) -> None:
        self.inputs, self.output = root / "in", root / "out"
        self.armed = False  # whether writes elsewhere are told of
        self._put: set[Path] = set()

    def put(self, name: str, data: bytes) -> Path:
        """Write an input, as nobody else may."""
        path, armed, self.armed = self.inputs / name, self.armed, False
        path.write_bytes(data)
        self._put.add(path)
        self.armed = armed
        return path

    def strays(self, root: Path) -> list[str]:
        """Files that are where none should be."""
        found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
        return [str(p) for p in found if p not in self._put and self.output not in p.parents]

    def clear(self) -> None:
        """Remove the inputs, and what came out."""
        for path in self._put:
            path.unlink(missing_ok=True)
        self._put.clear()
        with os.scandir(self.output) as scan:
            for entry in scan:
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(
                    entry.path
                )


@dataclass(frozen=True)
class Target:
    """What is fed: `read(place, name, mutant)` raises SepcliError, or nothing.

    seeds: {name: healthy file}. mutate: how mutants are made of them, or that by their endings.
    share: of the mutants of all targets; larger for what takes a millisecond and not twenty.
    """

    seeds: Callable[[], dict[str, bytes]]
    read: Callable[[Place, str, bytes], None]
    mutate: Mutate | dict[str, Mutate] = mutate
    share: int = 1

    def mutant(self, seed: int, target: str, index: int) -> tuple[str, bytes]:
        """(Name of the seed file, mutant number `index`), a function of the arguments alone."""
        rng, seeds = Random(f"{seed}/{target}/{index}"), self.seeds()
        name = rng.choice(sorted(seeds))
        change = self.mutate
        if isinstance(change, dict):
            change = change[name.rpartition(".")[2]]
        return name, change(rng, seeds[name], list(seeds.values()))


def command(place: Place, *args: object, stdin: bytes | None = None) -> None:
    """Run `sepcli` with the arguments; SepcliError where it says that it cannot."""
    from sepcli.cli import main

    result = CliRunner().invoke(main, [str(each) for each in args], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    lines = result.stderr.splitlines()
    assert result.exit_code in (0, 1, 2), result.exit_code
    assert "Traceback" not in result.stderr
    assert all(line.isprintable() for line in lines), lines
    if result.exit_code:
        assert lines, "failed without a word"
        assert lines[-1].startswith("Error: "), lines
        raise SepcliError(lines[-1])


@contextlib.contextmanager
def refusable() -> Iterator[list[SepcliError]]:
    """Collect the SepcliError of one of several ways to read the same."""
    found: list[SepcliError] = []
    try:
        yield found
    except SepcliError as error:
        found.append(error)


def first_of(*errors: list[SepcliError]) -> None:
    """Raise the first of what was collected."""
    for error in itertools.chain(*errors):
        raise error


# Sound and samples


def read_sound(place: Place, name: str, data: bytes) -> None:
    """As a file from its middle, as bytes, and as a pipe, strictly or not."""
    from sepcli import audio

    path = place.put(f"x.{name.rpartition('.')[2]}", data)
    with refusable() as file:
        check_sound(*audio.read(path, start=100))
    with refusable() as loaded:
        check_sound(*audio.decode(data, "x"))
    with refusable() as piped, audio.open_blocks(pipe(data), name="x", strict=False) as reader:
        for block in reader.blocks(1000):
            check_sound(block, reader.sample_rate)
    with refusable() as told:
        audio.info(io.BytesIO(data) if len(data) % 2 else path)
    first_of(file, loaded, piped, told)


def check_sound(signal: np.ndarray, sample_rate: int) -> None:
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()
    assert 1 <= sample_rate <= 768_000
    assert 1 <= len(signal) <= 64


def read_tar(place: Place, name: str, data: bytes) -> None:
    """As a file and as a pipe; what is in it is written out as a folder and as a tar.

    Archives of other programs have no closing count, and are read without it.
    """
    path = place.put("x.tar", data)
    with refusable() as file:
        copy_samples(path, place.output / "samples")
    with refusable() as lenient:
        copy_samples(path, place.output / "x.tar", strict=False)
    with refusable() as piped:
        copy_samples("-", place.output / "piped.tar", stdin=pipe(data))
    first_of(lenient, *([file, piped] if name == "samples.tar" else []))


def copy_samples(source: object, output: Path, **settings: object) -> None:
    from sepcli.samples.streams import open_sample_writer, read_samples

    errors: list[SepcliError] = []
    with open_sample_writer(output, overwrite=True) as writer:
        for sample in read_samples(source, **settings):
            try:
                for role in [*sample.refs().values(), *sample.ests().values()]:
                    sample.audio(role.rpartition(".")[0])
                writer.write(sample)
            except SepcliError as error:
                errors.append(error)
    first_of(errors)


def read_list(place: Place, name: str, data: bytes) -> None:
    """By `mix`, `pack` or `eval`, whichever takes such a list."""
    for each, content in material.recordings().items():
        place.put(each, content)
    path = place.put(name, data)
    quick = ("-n", 1, "--duration", 0.1, "--sample-rate", 8000)
    if name.startswith("paths"):
        command(place, "mix", "--speech", path, *quick, "-o", place.output / "x.tar")
        command(place, "pack", "--speech", path, "-o", place.output / "x.h5")
    elif name.startswith("pairs"):
        copy_samples(path, place.output / "x.tar")
        command(place, "eval", path, "--metrics", "si-sdr", "-o", place.output / "x.json")
    else:
        pairs = place.put("pairs.jsonl", material.lists()["pairs.jsonl"])
        args = ("--metrics", "si-sdr", "--compare", path, "-o", place.output / "x.json")
        command(place, "eval", pairs, *args)


def read_pack(place: Place, name: str, data: bytes) -> None:
    """All of it, its numbers, and stretches of its recordings."""
    from sepcli.samples.pack import Pack
    from sepcli.samples.streams import open_sample_writer, read_samples

    path = place.put("x.h5", data)
    pack = Pack(path)
    with refusable() as numbers:
        _ = list(pack.stats()), list(pack.manifest()), pack.count, pack.skipped
    with refusable() as checked:
        pack.verify()
    with refusable() as stretches:
        for group in pack.groups.values():
            if group.sample_rate:
                pack.read(group, 0, start=10, stop=50)
    with refusable() as copied, open_sample_writer(place.output / "samples") as writer:
        for sample in read_samples(path):
            writer.write(sample)
    first_of(numbers, checked, stretches, copied)


# Settings and models


def read_config(place: Place, name: str, data: bytes) -> None:
    """What a training checks before it begins, and what `info` says of the model."""
    from sepcli import config
    from sepcli.about import LARGE, configured
    from sepcli.runs import runs

    path = place.put("x.yaml", data)
    settings = config.load(path)
    with refusable() as resolved:
        runs.resolve(settings)
    with refusable() as built:
        configured(path, LARGE)
    first_of(resolved, built)


def read_model(place: Place, name: str, data: bytes) -> None:
    """Load it, run it on a little noise, and say what it is."""
    from sepcli.inference.loading import load
    from sepcli.models import modelfile

    path = place.put("x.safetensors", data)
    card = modelfile.read_card(path)
    _ = card.licence, card.sha256, card.quantized, card.consistent
    with refusable() as told:
        command(place, "info", path)
    separated(load(path))
    first_of(told)


def separated(separator) -> None:
    """Run a separator on a little noise; what comes out is as long."""
    if separator.conditioned:
        return
    model = getattr(separator, "model", separator)
    channels = model.channels if model.channels in range(1, 9) else 1
    signal = material.noise(400, channels)
    for estimate in separator.separate(signal, separator.sample_rate).values():
        assert estimate.shape == signal.shape


def read_open_unmix(place: Place, name: str, data: bytes) -> None:
    """A folder of which one file is the mutant."""
    from sepcli.inference.loading import load

    for each, content in material.open_unmix().items():
        if not each.endswith(".pth"):
            place.put(each, content)
    weights = name if name.endswith(".pth") else "vocals.pth"
    path = place.put("vocals.pth", material.open_unmix()[weights])
    place.put("vocals.pth" if name.endswith(".pth") else name, data)
    separated(load(path))


def read_msst(place: Place, name: str, data: bytes) -> None:
    from sepcli.inference.loading import load

    for each, content in material.msst().items():
        place.put(each, content)
    place.put(name, data)
    load(place.inputs / "m.ckpt")


def read_demucs(place: Place, name: str, data: bytes) -> None:
    """The weights by themselves, or a bag of them."""
    from sepcli.inference.loading import load

    for each, content in material.demucs().items():
        place.put(each, content)
    separated(load(place.put(name, data)))


def read_checkpoint(place: Place, name: str, data: bytes) -> None:
    """By a training that goes on; and as a model, which it is not."""
    from sepcli.inference.loading import load
    from sepcli.runs import checkpoint

    path = place.put(name, data)
    with refusable() as resumed:
        checkpoint.load(path)
    with refusable():
        load(path)
    first_of(resumed)


def read_graph(place: Place, name: str, data: bytes) -> None:
    from sepcli.inference.loading import load

    path = place.put("x.onnx", data)
    separated(load(path, threads=1))


def read_program(place: Place, name: str, data: bytes) -> None:
    from sepcli.inference.loading import load

    separated(load(place.put("x.pt2", data), threads=1))


def read_upload(place: Place, name: str, data: bytes) -> None:
    """Receive it, see what is asked for, and do it, as `sepcli serve` does."""
    from sepcli.serving import fields, uploads, worker
    from sepcli.serving.settings import Settings
    from tests.serving import BOUNDARY

    async def pieces():
        for at in range(0, len(data), 500):
            yield data[at : at + 500]

    kind, models = f"multipart/form-data; boundary={BOUNDARY}", worker.Models()
    models._loaded["tiny"] = _kept("tiny", material.loaded)
    limits = Settings(upload_mb=1, duration_s=10)
    form = asyncio.run(uploads.receive(kind, pieces(), place.output, limits))
    facts = {"tiny": worker.facts(models.find("tiny"))}
    about = fields.asked("separate", form, facts)
    (place.output / "job.json").write_text(json.dumps(about))
    try:
        worker.separate(place.output, models, 10.0, lambda _: None, lambda: False)
    except SepcliError as error:
        told = worker.end_of(error, place.output)
        assert str(place.output) not in told["error"], told
        raise


_KEPT: dict[str, object] = {}


def _kept(name, make):
    """What `make` made the first time."""
    if name not in _KEPT:
        _KEPT[name] = make()
    return _KEPT[name]


TARGETS = {
    "audio": Target(material.sounds, read_sound, share=20),
    "ogg": Target(material.ogg_sounds, read_sound, formats.ogg, share=8),
    "rare audio": Target(material.rare_sounds, read_sound, share=4),
    "foreign audio": Target(material.foreign_sounds, read_sound, share=4),
    "tar": Target(material.tars, read_tar, formats.tar, share=6),
    "lists": Target(material.lists, read_list, {"jsonl": json_lines, "json": json_text}),
    "configs": Target(material.configs, read_config, formats.yaml_text),
    "packs": Target(material.packs, read_pack, sealed.pack),
    "models": Target(material.models, read_model, formats.safetensors),
    "open-unmix": Target(
        material.open_unmix,
        read_open_unmix,
        {"json": json_text, "pth": lambda *a: _weights(*a)},
    ),
    "msst": Target(material.msst, read_msst, {"ckpt": formats.zipped, "yaml": formats.yaml_text}),
    "demucs": Target(
        material.demucs, read_demucs, {"th": formats.zipped, "yaml": formats.yaml_text}
    ),
    "checkpoints": Target(material.checkpoints, read_checkpoint, formats.zipped, share=3),
    "graphs": Target(material.graphs, read_graph, sealed.graph, share=8),
    "programs": Target(material.programs, read_program, formats.program),
    "uploads": Target(material.uploads, read_upload),
}


def _weights(rng, data, others):
    return (formats.zipped if data.startswith(b"PK") else formats.pickled)(rng, data, others)
