"""Downloads from a server that drops, truncates, corrupts, refuses, or is not there."""

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli.audio import read, write
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.models import build
from sepcli.models.weights import published
from sepcli.models.weights.published import PUBLISHED, Published, fetch

DATA = np.random.default_rng(0).bytes(100_003)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`, {path: bytes}; `faults` are those of the next requests, in order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.asked = {"/x": DATA}, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        fault = self.server.faults.pop(0) if self.server.faults else ""
        asked, data = self.headers.get("Range"), self.server.files.get(self.path)
        self.server.asked.append(asked)
        if isinstance(fault, int) or data is None:
            return self.send_error(fault or 404)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if fault == "from the start":
            start = 0
        elif start >= len(data):
            return self.send_error(416)
        if fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "truncate":
            data = data[:-1000]
        data = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "drop" else data)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(published, "PAUSE_S", 0.0)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_connection_that_drops_goes_on_where_it_was(server, tmp_path):
    server.faults = ["drop", 503, "drop", "drop"]
    fetch(f"{server.url}/x", tmp_path / "x", SHA256[:8])
    assert (tmp_path / "x").read_bytes() == DATA
    starts = [int((asked or "bytes=0-")[6:-1]) for asked in server.asked]
    assert starts == [0, 50001, 50001, 75002, 87502]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_later_command_goes_on_and_a_server_without_ranges_begins_again(server, tmp_path):
    part = tmp_path / "x.part"
    for fault in ("", "from the start"):
        part.write_bytes(DATA[:70_000])
        server.faults = [fault]
        fetch(f"{server.url}/x", tmp_path / "x", SHA256)
        assert server.asked[-1] == "bytes=70000-"
        assert (tmp_path / "x").read_bytes() == DATA
    part.write_bytes(DATA)
    fetch(f"{server.url}/x", tmp_path / "x", SHA256)  # all was there but its check


@pytest.mark.parametrize("fault", ["corrupt", "truncate"])
def test_what_is_damaged_is_not_kept(server, tmp_path, fault):
    server.faults = [fault]
    with pytest.raises(SepcliError, match=f"its SHA-256 starts with .*not {SHA256[:8]}; repeat"):
        fetch(f"{server.url}/x", tmp_path / "x", SHA256)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.part").write_bytes(b"something else")
    with pytest.raises(SepcliError, match="damaged in transit"):
        fetch(f"{server.url}/x", tmp_path / "x", SHA256)
    fetch(f"{server.url}/x", tmp_path / "x", SHA256)
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_server_that_refuses_or_is_not_there_is_one_line(server, tmp_path):
    with pytest.raises(SepcliError, match="/y: the server answers 404"):
        fetch(f"{server.url}/y", tmp_path / "y", SHA256)
    server.faults = ["drop", *[500] * 9]
    with pytest.raises(SepcliError, match=r"answers 500; .* which resumes at 50,001 bytes"):
        fetch(f"{server.url}/x", tmp_path / "x", SHA256)
    assert (tmp_path / "x.part").read_bytes() == DATA[:50001]
    with Server() as closed:
        url = closed.url
    with pytest.raises(SepcliError, match=r"Connection refused.*; check the network and repeat"):
        fetch(f"{url}/x", tmp_path / "z", SHA256)


def run(*args):
    return CliRunner().invoke(main, list(map(str, args)))


@pytest.fixture
def small(server, tmp_path, monkeypatch):
    """A small published model of two sources, not yet downloaded."""
    monkeypatch.setenv("SEPCLI_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    sizes = {"window": 64, "hop": 16, "hidden": 4, "layers": 1, "channels": 2}
    names = {}
    for source in ("vocals", "drums"):
        model = build("open_unmix", sources=(source,), residual=False, **sizes)
        prefix = f"networks.{source}."
        state = {key.removeprefix(prefix): value for key, value in model.state_dict().items()}
        file = io.BytesIO()
        torch.save(state, file)
        digits = hashlib.sha256(file.getvalue()).hexdigest()[:8]
        names[f"{source}-{digits}.pth"] = digits
        server.files[f"/files/{source}-{digits}.pth"] = file.getvalue()
    monkeypatch.setitem(PUBLISHED, "small", Published(f"{server.url}/files", names, "CC0", "small"))
    return tmp_path / "cache" / "models" / "small"


def test_a_published_model_is_downloaded_once_and_separates(small, server, tmp_path):
    write(tmp_path / "song.wav", 0.1 * np.ones((2, 3000), np.float32), 44100)
    missing = run("separate", "-m", "small", tmp_path / "song.wav")
    assert missing.exit_code == 1
    assert missing.stderr == "Error: small: not downloaded; do so with: sepcli download small\n"
    server.faults = ["drop"]
    assert run("download", "small").exit_code == 0
    asked = len(server.asked)
    again = run("download", "small")
    assert (again.exit_code, again.stdout) == (0, f"{small}\n")
    assert len(server.asked) == asked
    done = run("separate", "-m", "small", tmp_path / "song.wav", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert read(tmp_path / "out" / "song" / "vocals.wav")[0].shape == (2, 3000)
    about = json.loads(run("info", "small", "--json").stdout)
    assert (about["licence"], about["sources"]) == ("CC0", ["vocals", "drums"])


def test_nothing_is_downloaded_where_nothing_is_kept(small, monkeypatch):
    monkeypatch.setenv("SEPCLI_CACHE", "off")
    result = run("download", "small")
    assert result.exit_code == 1
    assert "SEPCLI_CACHE=off keeps nothing" in result.stderr


def test_the_table_is_that_of_the_authors_package():
    from pathlib import Path

    import openunmix

    text = Path(openunmix.__file__).read_text()
    urls = {
        f"{each.url}/{name}"
        for key, each in PUBLISHED.items()
        for name in each.names
        if key.startswith("umx")
    }
    assert len(urls) == 12
    assert all(f'"{url}"' in text for url in urls)
    listed = run("download").stdout
    assert "CC BY-NC-SA 4.0" in listed


def test_an_unknown_name_is_one_line():
    result = run("download", "nothing")
    assert result.exit_code == 1
    assert "nothing: not known; choose from umx, umxhq, umxl" in result.stderr
