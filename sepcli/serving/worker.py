"""The process that separates: jobs as JSON lines on standard input, how far they are on standard
output.

    {"do": "describe", "models": {name: path}, "device"} -> {"facts": {name: {...}}}
    {"do": "job", "folder", "duration_s"}    -> {"progress": 0.5} ..., {"end": null or {...}}
    {"do": "stop"}                           -> the job ends at its next block

It ends with its standard input: when the server is gone, nobody wants its result.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sepcli import files
from sepcli.audio import Writer, open_blocks
from sepcli.errors import SepcliError
from sepcli.inference.blockwise import Separates, WithResidual
from sepcli.inference.loading import load
from sepcli.inference.presence import Watched
from sepcli.inference.references import read_references
from sepcli.jobs.extract import extractor
from sepcli.jobs.outputs import Form, choose, write_stems
from sepcli.serving.settings import BUSIEST, FASTEST, RequestError
from sepcli.serving.views import write_views

NICENESS = 10  # live streams, which cannot wait, come first
MIXTURE = "mixture"


class Stopped(Exception):  # noqa: N818  (nothing is wrong)
    """The server wants no more of this job."""


class Models:
    """The models by name, loaded when first needed."""

    def __init__(self) -> None:
        self._paths, self._device, self._loaded = {}, "cpu", {}

    def describe(self, paths: dict[str, str], device: str) -> dict[str, Any]:
        """What each model is; SepcliError for one that cannot be loaded."""
        self._paths, self._device = paths, device
        return {name: facts(self.find(name)) for name in paths}

    def find(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load(self._paths[name], self._device)
        return self._loaded[name]


def facts(separator: Any) -> dict[str, Any]:
    """What clients may know of a model."""
    model = separator.model
    return {
        "sources": list(model.sources),
        "sample_rate": model.sample_rate,
        "channels": model.channels,
        "parameters": sum(p.numel() for p in model.parameters()),
        "takes_reference": bool(model.conditioned),
        "causal": bool(model.causal),
        "latency_ms": 1000 * model.latency / model.sample_rate if model.causal else None,
        "licence": separator.card.licence,
    }


class Bounded:
    """An open reader that refuses to go on for too long, and writes down what it read.

    Raises RequestError where there is more than `duration_s` of it, Stopped when asked to.
    """

    def __init__(
        self, reader: Any, duration_s: float, name: str, stopped: Callable[[], bool]
    ) -> None:
        check_size(reader, duration_s, name)
        self._reader, self._stopped, self.writer = reader, stopped, None
        self._duration_s, self._name, self.read_frames = duration_s, name, 0
        self.name, self.sample_rate, self.channels = (
            reader.name,
            reader.sample_rate,
            reader.channels,
        )
        self.frames, self.skip = reader.frames, reader.skip

    def read(self, frames: int) -> np.ndarray:
        if self._stopped():
            raise Stopped
        block = self._reader.read(frames)
        self.read_frames += block.shape[1]
        check_frames(self._reader, self.read_frames, self._duration_s, self._name)
        if self.writer:
            self.writer.write(block)
        return block


def check_size(reader: Any, duration_s: float, name: str) -> None:
    """Raise RequestError for a sound whose header says that it is too much."""
    check_rate(reader, name)
    check_frames(reader, reader.frames or 0, duration_s, name)


def check_rate(reader: Any, name: str) -> None:
    """Raise RequestError for a sound of too many samples per second."""
    if reader.sample_rate * reader.channels > FASTEST:
        raise RequestError(
            413, f"{name}: {reader.channels} channels at {reader.sample_rate} Hz; reduce them"
        )


def check_frames(reader: Any, frames: int, duration_s: float, name: str) -> None:
    """Raise RequestError for so many frames of a sound, if they are too many."""
    if frames > duration_s * reader.sample_rate:
        raise RequestError(
            413, f"{name}: longer than {duration_s:g} s, the limit of this server; cut it"
        )
    if frames * reader.channels > duration_s * BUSIEST:
        raise RequestError(
            413,
            f"{name}: more than {duration_s * BUSIEST / 1e6:g} million samples, the limit of this "
            "server; lower its sample rate or cut it",
        )


def separate(
    folder: Path,
    models: Models,
    duration_s: float,
    tell: Callable[[float], None],
    stopped: Callable[[], bool],
) -> None:
    """Do the job in `folder` (see `store`), and put what came out into its folder `done`."""
    about = json.loads((folder / "job.json").read_bytes())
    separator, watched = models.find(about["model"]), None
    if about["references"]:
        watched = told_whom(separator, folder, about["references"])
        chosen = WithResidual(watched) if about["residual"] else watched
    else:
        chosen = choose(separator, about["targets"], residual=about["residual"])
    form = Form(container=about["format"], subtype=about["subtype"])
    with files.replacing(folder / "done") as part:
        part.mkdir()
        paths = {
            source: part / f"{number}.{form.extension()}"
            for number, source in enumerate(chosen.sources)
        }
        with open_blocks(folder / about["file"]) as reader:
            heard = Bounded(reader, duration_s, about["name"], stopped)
            notes = run(heard, chosen, paths, form, part if about["views"] else None, tell)
        if about["views"]:
            paths = {MIXTURE: part / f"{MIXTURE}.wav", **paths}
            write_views(paths, part)
        result = {
            "sample_rate": heard.sample_rate,
            "channels": heard.channels,
            "frames": heard.read_frames,
            "stems": [
                {"name": name, "file": path.name, "bytes": path.stat().st_size}
                for name, path in paths.items()
            ],
            "notes": [shown(note, part, about["name"]) for note in notes],
        }
        if watched:
            result["presence"] = round(watched.presence, 4)
        files.save(part / "result.json", json.dumps(result))


def run(
    heard: Any,
    chosen: Separates,
    paths: dict[str, Path],
    form: Form,
    copy: Path | None,
    tell: Callable[[float], None],
) -> list[str]:
    """Write the stems, and the mixture into the folder `copy`; returns remarks."""
    if copy is None:
        return write_stems(heard, chosen, paths, form=form, tell=tell)
    with Writer(copy / f"{MIXTURE}.wav", heard.sample_rate, heard.channels) as heard.writer:
        return write_stems(heard, chosen, paths, form=form, tell=tell)


def told_whom(separator: Any, folder: Path, references: list[dict[str, str]]) -> Watched:
    """The extractor of the voice that the uploaded references hold."""
    paths = [folder / each["file"] for each in references]
    for path, each in zip(paths, references, strict=True):
        with open_blocks(path) as reader:
            check_rate(reader, each["name"])
    return extractor(separator, read_references(paths, separator.sample_rate))


def end_of(error: BaseException, folder: Path) -> dict[str, Any]:
    """What to tell of a job that failed: never where its files are."""
    about = json.loads((folder / "job.json").read_bytes())
    if isinstance(error, RequestError):
        return {"status": error.status, "error": str(error)}
    if isinstance(error, SepcliError):
        line = str(error)
        for each in [{"file": about["file"], "name": about["name"]}, *about["references"]]:
            line = line.replace(str(folder / each["file"]), each["name"])
        return {"status": 422, "error": shown(line, folder, about["name"])}
    if isinstance(error, MemoryError):
        return {"status": 503, "error": "not enough memory for this sound; send a shorter one"}
    traceback.print_exception(error)
    return {"status": 500, "error": "the server failed; its log says why"}


def shown(line: str, folder: Path, name: str) -> str:
    """A line without the folder that it names."""
    return line.replace(f"{folder}{os.sep}", "").replace(str(folder), name)


def serve(requests: "queue.Queue[dict[str, Any]]", stop: threading.Event, say: Any) -> None:
    """Do what is asked for, one after the other."""
    models = Models()
    while True:
        request = requests.get()
        if request["do"] == "describe":
            try:
                say({"facts": models.describe(request["models"], request["device"])})
            except SepcliError as error:
                say({"error": str(error)})
            continue
        folder = Path(request["folder"])
        tell = Teller(say)
        try:
            separate(folder, models, request["duration_s"], tell, stop.is_set)
            say({"end": None})
        except Stopped:
            say({"end": {"status": 410, "error": "deleted"}})
        except Exception as error:
            say({"end": end_of(error, folder)})


class Teller:
    """Says how far a job is, when that is worth a line."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say, self._said = say, 0.0

    def __call__(self, fraction: float) -> None:
        if fraction - self._said >= 0.01:
            self._said = fraction
            self._say({"progress": fraction})


def read(requests: "queue.Queue[dict[str, Any]]", stop: threading.Event) -> None:
    """Take requests as they come; end the process when there are no more."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["do"] == "stop":
            stop.set()
        else:
            stop.clear()
            requests.put(request)
    os._exit(0)


def main() -> None:
    os.nice(NICENESS)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is for the log

    def say(message):
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=read, args=(requests, stop), daemon=True).start()
    try:
        serve(requests, stop, say)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
