"""The parts of `sepcli serve` by themselves: no process is started here."""

import asyncio
import base64
import json
import socket
import struct
import sys
import zlib

import numpy as np
import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.serving import pool, settings, store
from sepcli.serving.guard import Guard
from sepcli.serving.metrics import Metrics
from sepcli.serving.pool import Died, Pool
from sepcli.serving.settings import RequestError, Settings
from sepcli.serving.store import Store
from sepcli.serving.uploads import receive, shown_name
from sepcli.serving.views import write_views
from tests.serving import multipart, noise, sound

TOKEN = "a-token+of/ours"


# --- Uploads


def received(folder, body, kind, pieces=1, wait=0.0, **limits):
    """The `Form` of a body that comes in so many pieces, with a wait before each."""

    async def flow():
        size = -(-len(body) // pieces)
        for at in range(0, len(body), size):
            await asyncio.sleep(wait)
            yield body[at : at + size]

    return asyncio.run(receive(kind, flow(), folder, Settings(**limits)))


@pytest.mark.parametrize("pieces", [1, 7, 100_000])
def test_an_upload_is_the_same_however_it_is_cut(tmp_path, pieces):
    data = bytes(range(256)) * 10 + b"\r\n--limit-of-a-par" + b"\r\n" * 5
    body, kind = multipart([("file", data, "a.wav"), ("model", "ä"), ("file", b"", "b.wav")])
    form = received(tmp_path, body, kind, pieces)
    assert form.fields == {"model": ["ä"]}
    (first, shown), (second, _) = form.files["file"]
    assert (first.read_bytes(), second.read_bytes(), shown) == (data, b"", "a")
    assert {path.parent for path, _ in form.files["file"]} == {tmp_path}


@pytest.mark.parametrize(
    ("pieces", "wait", "limits", "line"),
    [
        (2, 0.3, {"pause_s": 0.1}, "no data arrived for 0.1 s"),
        (40, 0.02, {"pause_s": 0.2, "slowest": 1e6}, "slower than 1000 kB/s"),
    ],
)
def test_an_upload_that_drips_is_refused(tmp_path, pieces, wait, limits, line):
    body, kind = multipart([("file", sound(0.1), "a.wav")])
    with pytest.raises(RequestError, match=line) as refused:
        received(tmp_path, body, kind, pieces, wait, **limits)
    assert refused.value.status == 408


def test_an_upload_of_unknown_length_stops_at_the_limit(tmp_path):
    taken = 0

    async def endless():
        nonlocal taken
        yield multipart([("file", b"", "a.wav")])[0][:-23]
        while True:
            taken += 1
            yield b"x" * 10_000

    kind = multipart([])[1]
    with pytest.raises(RequestError, match=r"larger than 0\.1 MB"):
        asyncio.run(receive(kind, endless(), tmp_path, Settings(upload_mb=0.1)))
    assert taken == 10


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("song.wav", "song"),
        ("../../etc/passwd", "passwd"),
        ("C:\\songs\\a.b.mp3", "a.b"),
        ("..", "audio"),
        ("", "audio"),
        (".wav", "audio"),
        ("a\r\nSet-Cookie: x=1.wav", "aSet-Cookie x=1"),
        ("x" * 500 + ".wav", "x" * 80),
        ("\x00\x1b[31m<b>.wav", "[31mb"),
    ],
)
def test_what_a_client_calls_a_file_is_never_a_path(name, shown):
    assert shown_name(name) == shown


# --- The guard


def asked(headers, path="/models", kind="http", **scope):
    """The status that a request gets from a guard with a token, in front of what says 200."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def ask():
        metrics = Metrics()
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope_ = {"type": kind, "path": path, "headers": pairs, "extensions": EXTENSIONS, **scope}
        await Guard(app, TOKEN, metrics)(scope_, nothing, send)
        return metrics

    asyncio.run(ask())
    return sent[0]["status"]


EXTENSIONS = {"websocket.http.response": {}}
HIDDEN = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer  {TOKEN}"}, 200),
        ({"authorization": f"Bearer {TOKEN}s"}, 401),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer \xff\xfe"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://evil", "host": "here"}, 403),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://here", "host": "here"}, 200),
        ({"authorization": f"Bearer {TOKEN}", "origin": "null", "host": "here"}, 403),
    ],
)
def test_a_request_bears_the_token_and_comes_from_here(headers, status):
    assert asked(headers) == status


def test_the_page_and_health_are_open():
    for path in ("/", "/health", "/page/main.js"):
        assert asked({}, path) == 200
    for path in ("/metrics", "/pages", "/stream", "/jobs/1"):
        assert asked({}, path) == 401


def test_a_stream_may_have_its_token_among_the_subprotocols():
    def status(*protocols):
        return asked({}, "/stream", "websocket", subprotocols=protocols)

    assert status("sepcli", f"bearer.{HIDDEN}") == 200
    for wrong in ((), ("sepcli",), (f"bearer.{HIDDEN[2:]}",), ("bearer.%%%",), ("bearer.",)):
        assert status(*wrong) == 401


# --- Jobs in folders


def upload(jobs, **about):
    folder = jobs.begin_upload()
    (folder / "upload-1").write_bytes(b"data")
    return jobs.add(folder, {"kind": "enhance", "model": "m", "name": "a", **about})


def test_a_server_finds_what_an_earlier_one_left(tmp_path):
    jobs = Store(tmp_path)
    first, second, ended, _left, broken = (upload(jobs, waiting=number == 3) for number in range(5))
    store.fail(ended, 422, "no sound")
    jobs.begin_upload()
    (first.folder / ".done.1.part").mkdir()
    (broken.folder / "job.json").write_bytes(b"{")
    with pytest.raises(SepcliError, match="another server has its jobs there"):
        Store(tmp_path)
    jobs.close()
    jobs = Store(tmp_path)
    assert [job.id for job in jobs.recover()] == [first.id, second.id]
    assert set(jobs.jobs) == {first.id, second.id, ended.id}
    assert jobs.find(ended.id).error == {"status": 422, "error": "no sound"}
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == sorted(jobs.jobs)
    assert not list((tmp_path / "incoming").iterdir())
    assert not list(first.folder.glob(".*"))
    jobs.close()


def test_jobs_expire_but_not_while_they_are_read(tmp_path):
    jobs = Store(tmp_path)
    waiting, read, old = (upload(jobs) for _ in range(3))
    for job in (read, old):
        store.fail(job, 500, "x")
    read.readers = 1
    assert jobs.expired(3600) == []
    assert jobs.expired(-1) == [old]
    jobs.remove(old)
    assert not old.folder.exists()
    assert (old.state, waiting.state) == ("deleted", "queued")
    jobs.close()


class Puppet:
    """A worker that does what the list `acts` says, whatever the job."""

    acts = ()

    def __init__(self, settings):
        self.left, self.facts, self.starts = list(self.acts), {}, 0

    async def start(self):
        self.starts += 1

    async def end(self):
        pass

    async def do(self, job):
        act = self.left.pop(0)
        if act == "die":
            raise Died("ended with -9")
        if act == "done":
            (job.folder / "done").mkdir()
            result = {"frames": 16000, "sample_rate": 16000, "stems": []}
            (job.folder / "done" / "result.json").write_text(json.dumps(result))
            return None
        return act


@pytest.mark.parametrize(
    ("acts", "state", "error"),
    [
        (["done"], "done", None),
        (["die", "done"], "done", None),
        (["die"] * 9, "failed", "crashed on this sound repeatedly"),
        ([{"status": 422, "error": "no sound"}], "failed", "no sound"),
        ([None], "failed", "the server lost the result"),
    ],
)
def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(
    tmp_path, monkeypatch, acts, state, error
):
    monkeypatch.setattr(Puppet, "acts", acts)
    monkeypatch.setattr(pool, "Worker", Puppet)
    jobs, metrics = Store(tmp_path), Metrics()

    async def run():
        workers = Pool(Settings(), jobs, metrics)
        await workers.start()
        job = upload(jobs)
        await workers.add(job)
        await asyncio.wait_for(job.wait(), 30)
        assert workers._workers[0].starts == 1 + min(acts.count("die"), settings.TRIES)
        while workers.running:
            await asyncio.sleep(0)
        await workers.close()
        return job

    job = asyncio.run(run())
    assert job.state == state
    assert error is None or error in job.error["error"]
    assert f'sepcli_jobs_total{{state="{state}"}} 1' in metrics.text()
    jobs.close()


def test_a_job_that_killed_its_servers_is_not_begun_for_ever(tmp_path):
    jobs = Store(tmp_path)
    job = upload(jobs)
    assert [store.count_try(job) for _ in range(4)] == [1, 2, 3, 4]
    store.forget_tries(job)
    assert store.count_try(job) == 1
    jobs.close()


# --- Metrics and views


def test_metrics_count():
    metrics = Metrics()
    metrics.job("done", 2.0, 10.0)
    for seconds in (0.0015, 0.004, 3.0):
        metrics.hop(seconds)
    lines = metrics.text(streams=3).splitlines()
    for line in (
        "sepcli_streams 3",
        'sepcli_jobs_total{state="done"} 1',
        "sepcli_job_seconds_total 2",
        "sepcli_separated_seconds_total 10",
        'sepcli_stream_seconds_bucket{le="0.001"} 0',
        'sepcli_stream_seconds_bucket{le="0.005"} 2',
        'sepcli_stream_seconds_bucket{le="+Inf"} 3',
        "sepcli_stream_seconds_count 3",
    ):
        assert line in lines


def shades(data):
    """The (rows, columns) of palette indices in PNG bytes."""
    columns, rows = struct.unpack(">II", data[16:24])
    at = data.index(b"IDAT")
    size = struct.unpack(">I", data[at - 4 : at])[0]
    lines = zlib.decompress(data[at + 4 : at + 4 + size])
    return np.frombuffer(lines, np.uint8).reshape(rows, columns + 1)[:, 1:]


def test_views_show_when_and_at_what_frequency_there_is_sound(tmp_path):
    rate, t = 16000, np.arange(64_000) / 16000
    tone = np.where(t < 2, np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)[None]
    paths = {name: tmp_path / f"{name}.wav" for name in ("tone", "quiet")}
    sepcli.write(paths["tone"], 0.5 * tone, rate)
    sepcli.write(paths["quiet"], 0.05 * tone, rate)
    write_views(paths, tmp_path)
    loud, quiet = (shades((tmp_path / f"{name}.png").read_bytes()) for name in paths)
    row = np.argmax(loud[:, 200])
    frequency = 8000 * (60 / 8000) ** ((row + 0.5) / 128)  # bands are logarithmic, highest first
    assert abs(frequency - 1000) < 50
    assert loud[row, 200] >= 253
    assert loud[:, 420:].max() == 0
    assert 255 - quiet[row, 200] == pytest.approx(20 / 70 * 255, abs=2)  # 20 dB of 70
    peaks = np.array(json.loads((tmp_path / "peaks.json").read_text())["tone"])
    np.testing.assert_allclose(peaks[:400], [[-0.5, 0.5]] * 400, atol=0.01)
    assert not peaks[400:].any()


def test_views_of_few_samples(tmp_path):
    path = tmp_path / "a.wav"
    sepcli.write(path, noise(5 / 16000), 16000)
    write_views({"a": path}, tmp_path)
    peaks = json.loads((tmp_path / "peaks.json").read_text())["a"]
    np.testing.assert_allclose(peaks, noise(5 / 16000).T.repeat(2, 1), atol=1e-4)


# --- The command


def invoke(*args, **env):
    return CliRunner().invoke(main, ["serve", *map(str, args)], env=env)


def test_what_cannot_be_served_is_one_line(tmp_path):
    short = tmp_path / "token"
    short.write_text("1234567\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, line in (
            (["-m", "nowhere"], "no model 'nowhere'"),
            (["-m", "denoise", "-m", "denoise"], "the name 'denoise' is taken; say -m OTHER=den"),
            (["--token-file", tmp_path / "none"], "none: No such file"),
            (["--token-file", short], "token: a token has at least 8 ASCII characters"),
            (["--port", port, "--folder", tmp_path], f"127.0.0.1:{port}: Address already in use;"),
            (["--host", "192.0.2.1", "--folder", tmp_path], "192.0.2.1:8000: Cannot assign"),
        ):
            result = invoke(*args)
            assert result.exit_code in (1, 2), result.output
            assert line in result.stderr.splitlines()[-1]


def test_a_missing_extra_is_one_line(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("sepcli.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = invoke()
    assert result.exit_code == 1
    assert "pip install 'sepcli[serve]'" in result.stderr


def test_a_server_that_others_reach_should_have_a_token(tmp_path, caplog):
    jobs = Store(tmp_path)
    result = invoke("--host", "0.0.0.0", "--port", 0, "--folder", tmp_path)
    assert "0.0.0.0 without a token: whoever reaches it can use it" in result.stderr
    assert "another server has its jobs there" in result.stderr
    result = invoke("--host", "0.0.0.0", "--port", 0, "--folder", tmp_path, SEPCLI_TOKEN=TOKEN)
    assert "without a token" not in result.stderr
    jobs.close()
