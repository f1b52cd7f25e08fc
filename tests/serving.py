"""A server of small models in a process of its own, and what talks to it."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import sepcli
from sepcli.audio import Writer, decode, encode_wav
from sepcli.models import build, modelfile
from sepcli.nn.model import Model
from tests.models import GRID, randomise
from tests.separators import NAME, SETTINGS
from tests.test_contract import Told

ROOT = Path(__file__).parent.parent
OWN = "told=tests.test_contract:Told,slow=tests.serving:Slow"
ALONE = ("--port", "0", "--threads", "1", "--folder")
BOUNDARY = "limit-of-a-part"


class Slow(Model):
    """Gives the mixture, after a while."""

    sample_rate, sources, channels, hop = 8000, ("same",), 1, 1

    def __init__(self, seconds=0.4):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x[:, None]


def make_models(folder):
    """Small models: {name: path}."""
    torch.manual_seed(0)
    nets = {
        "tiny": (NAME, SETTINGS, randomise(build(NAME, **SETTINGS))),
        "grid": ("usef_gridnet", GRID, randomise(build("usef_gridnet", **GRID))),
        "told": ("told", {}, Told()),
        "slow": ("slow", {}, Slow()),
    }
    paths = {name: folder / f"{name}.safetensors" for name in nets}
    for name, (model, settings, net) in nets.items():
        modelfile.save(paths[name], model, settings, net.state_dict(), {"licence": "MIT"})
    return paths


class Answer:
    """What came back of a request."""

    def __init__(self, response):
        self.status, self.headers = response.status, dict(response.headers)
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def audio(self):
        return decode(self.body, "the answer")


class Served:
    """`sepcli serve` on a free port, as a context."""

    def __init__(self, models, folder, *options, env=None):
        self.folder = Path(folder)
        self._command = [*(f"-m{name}={path}" for name, path in models.items()), *options]
        self._env = os.environ | {
            "SEPCLI_MODELS": OWN,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            **(env or {}),
        }

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.log.close()

    def start(self):
        self.log.truncate(0)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sepcli", "serve", *ALONE, str(self.folder), *self._command],
            stderr=self.log,
            env=self._env,
        )
        until = time.monotonic() + 240
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.told())):
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < until, self.told()
            time.sleep(0.05)
        self.port = int(found[1])

    def told(self):
        self.log.seek(0)
        return self.log.read()

    def kill(self):
        """As an out-of-memory killer does it."""
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, **headers):
        with contextlib.closing(self.connect()) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            return Answer(connection.getresponse())

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, parts, **headers):
        body, kind = multipart(parts)
        return self.ask("POST", path, body, content_type=kind, **headers)

    def job(self, path, parts):
        """The id of a job that is begun."""
        answer = self.post(path, parts, prefer="respond-async")
        assert answer.status == 202, answer.body
        assert answer.headers["location"] == f"/jobs/{answer.json['id']}"
        return answer.json["id"]

    def wait(self, name, *states):
        """The state of a job, once it is one of `states`."""
        self.until(lambda: self.get(f"/jobs/{name}").json["state"] in states)
        return self.get(f"/jobs/{name}").json

    def until(self, condition):
        """Wait until `condition()` is true."""
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until, self.told()
            time.sleep(0.02)

    def metric(self, name):
        text = self.get("/metrics").body.decode()
        return float(re.search(rf"^sepcli_{re.escape(name)} (.*)$", text, re.MULTILINE)[1])

    def family(self):
        """What /proc says of the server and of its workers, {name: text} each."""
        for path in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it has just ended
                told = dict(line.split(":", 1) for line in path.read_text().splitlines())
                if self.process.pid in (int(told["Pid"]), int(told["PPid"])):
                    yield told

    def left(self):
        """All files of jobs and uploads; a folder that goes meanwhile is passed over."""
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.folder)
            for folder, folders, names in os.walk(self.folder)
            for name in folders + names
            if name not in ("lock", "jobs", "incoming")
        )

    def address(self, query):
        return f"ws://127.0.0.1:{self.port}/stream?{query}"


def multipart(parts):
    """(body, content type) of [(field, text or bytes, name of a file or None), ...]."""
    body = b""
    for field, value, *filename in parts:
        named = f'; filename="{filename[0]}"' if filename else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{named}\r\n\r\n'
        body += head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def noise(seconds, rate=16000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * rng.standard_normal((channels, round(seconds * rate))).astype(np.float32)


def sound(seconds=1.0, rate=16000, channels=1, seed=0, form="wav"):
    """The bytes of a file of noise."""
    if form == "wav":
        return encode_wav(noise(seconds, rate, channels, seed), rate)
    buffer = io.BytesIO()
    with Writer(buffer, rate, channels, format=form) as writer:
        writer.write(noise(seconds, rate, channels, seed))
    return buffer.getvalue()


def silence(seconds, rate=8000):
    """A few kB of FLAC that are many more when they are unpacked."""
    buffer = io.BytesIO()
    with Writer(buffer, rate, 1, format="flac") as writer:
        for _ in range(seconds):
            writer.write(np.zeros((1, rate), np.float32))
    return buffer.getvalue()


LIMITS = ("--upload-mb", "1", "--max-duration", "100", "--queue", "3", "--streams", "2")


def expected(models, name, audio, rate):
    """What the library makes of it, {source: (C, T)}."""
    return sepcli.load(models[name]).separate(audio, rate)
