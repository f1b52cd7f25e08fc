"""Messages on a training: what a hook gets, and that it is never in the way."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.errors import UsageError
from sepcli.runs import notify
from sepcli.runs.notify import Notifier, body

SECRET = "T0K3N-of-mine"
CONFIG = """
model: {name: conv_tasnet, filters: 8, bottleneck: 4, hidden: 4, skip: 4, blocks: 1, repeats: 1,
        sources: [modulated, sines]}
data:
  train: {kind: toy, items: 4, duration_s: 0.25}
  valid: {kind: toy, items: 2, duration_s: 0.25}
train: {steps: 4, batch: 2, log_every: 1, validate_every: 2}
"""


@contextlib.contextmanager
def hook(answers=(), *, wait=0.0):
    """A server that gives `answers`, (status, text), one after the other, then success.

    Yields its address and the list of what it got, which grows.
    """
    got, answers = [], iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            got.append(
                (self.path, self.headers["Content-Type"], json.loads(self.rfile.read(length)))
            )
            time.sleep(wait)
            status, text = next(answers, (200, "ok"))
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{SECRET}", got
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(notify, "ATTEMPTS_S", (0.0, 0.01, 0.01))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def train(tmp_path, *args, code=0, env=None, monkeypatch=None):
    (tmp_path / "config.yaml").write_text(CONFIG)
    words = ["train", f"{tmp_path}/config.yaml", "-o", f"{tmp_path}/run", *args]
    if monkeypatch:
        monkeypatch.setattr("sys.argv", ["sepcli", *words])
    result = CliRunner().invoke(main, words, env=env)
    assert result.exit_code == code, result.output
    return result


def everything_written(tmp_path):
    return b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_training_tells_its_start_its_validations_and_its_end(tmp_path, monkeypatch):
    with hook() as (url, got):
        result = train(tmp_path, "--notify", url, monkeypatch=monkeypatch)
    events = [message["event"] for _, _, message in got]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert len(events) == 5
    assert set(events[1:-1]) <= {"best", "validation"}
    path, kind, message = got[1]
    assert (path, kind) == (f"/{SECRET}", "application/json")
    assert message["text"] == message["content"]
    assert message["text"].startswith("run: step 0: SI-SDR ")
    assert message["step"] == 0
    assert message["si_sdr_db"] == pytest.approx(float(message["text"].split()[4]), abs=0.01)
    assert "***" in json.loads((tmp_path / "run/scores.json").read_text())["command"]
    assert SECRET.encode() not in everything_written(tmp_path)
    assert SECRET not in result.output


def test_the_environment_may_name_the_hook(tmp_path):
    with hook() as (url, got):
        train(tmp_path, env={"SEPCLI_NOTIFY": url})
    assert len(got) == 5
    assert SECRET.encode() not in everything_written(tmp_path)


def test_what_ends_badly_is_told(tmp_path):
    bad = ("--set", "train.lr=1.0e+30", "--set", "train.max_bad_steps=2", "--set", "train.clip=0")
    bad += ("--set", "train.warmup=0")
    with hook() as (url, got):
        train(tmp_path, "--notify", url, *bad, "--set", "train.steps=9", code=1)
    events = [message["event"] for _, _, message in got]
    assert "nan" in events
    assert "steps without a finite loss" in got[events.index("nan")][2]["text"]
    assert events[-1] == "failed"
    assert "training diverged" in got[-1][2]["text"]


def test_a_hook_that_fails_is_tried_again_and_then_left_alone(tmp_path):
    with hook([(500, ""), (429, ""), (200, "ok"), (503, ""), (503, ""), (503, "")]) as (url, got):
        result = train(tmp_path, "--notify", url)
    assert [message["event"] for _, _, message in got[:3]] == ["start"] * 3
    assert len({json.dumps(message) for _, _, message in got[3:6]}) == 1
    assert len(got) == 9
    assert "a message was not delivered (HTTP 503); the training continues" in result.stderr
    assert SECRET not in result.output


def test_what_is_forbidden_is_not_tried_again(tmp_path):
    with hook([(403, "")] * 99) as (url, got):
        result = train(tmp_path, "--notify", url)
    assert len(got) == 5
    assert result.stderr.count("not delivered (HTTP 403)") == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/{}", "http://nowhere.invalid/{}"])
def test_a_hook_that_is_not_there_is_one_line(tmp_path, address):
    result = train(tmp_path, "--notify", address.format(SECRET))
    assert result.stderr.count("not delivered (URLError); the training continues") == 1
    assert SECRET not in result.output
    assert (tmp_path / "run/best.safetensors").exists()


def test_a_hook_that_does_not_answer_does_not_hold_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE_S", 0.1)
    with hook(wait=300) as (url, got):
        began = time.monotonic()
        result = train(tmp_path, "--notify", url)
        assert time.monotonic() - began < 200
        assert result.stderr.count("not delivered (no answer in time)") == 1
        assert len(got) == 1


def test_no_more_messages_wait_than_fit(monkeypatch):
    monkeypatch.setattr(notify, "WAITING", 3)
    monkeypatch.setattr(notify, "PATIENCE_S", 0.1)
    with hook(wait=300) as (url, _), Notifier(url, "x") as notifier:
        for number in range(50):
            notifier.tell("validation", f"{number}")
        assert notifier._waiting.qsize() <= 3


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/services/T0/B0/x", {"text": "x: hello"}),
        ("/api/webhooks/1/x", {"content": "x: hello"}),
        ("/cgi-bin/webhook/send?key=x", {"msgtype": "text", "text": {"content": "x: hello"}}),
        ("/y", {"text": "x: hello", "content": "x: hello", "run": "x", "event": "end", "step": 3}),
    ],
)
def test_hooks_get_the_form_that_they_take(path, expected):
    message = {"run": "x", "event": "end", "line": "hello", "step": 3}
    assert body(f"https://example.org{path}", message) == expected


def test_a_refusal_with_the_status_of_success_is_one(capfd):
    refused = json.dumps({"errcode": 45009, "errmsg": "too many"})
    accepted = json.dumps({"errcode": 0, "errmsg": "ok"})
    with hook([(200, refused), (200, accepted)]) as (url, got):
        with Notifier(f"{url}/cgi-bin/webhook/send", "x") as notifier:
            notifier.tell("end", "done")
        assert len(got) == 2


@pytest.mark.parametrize("url", [f"ftp://x/{SECRET}", SECRET, f"https:///{SECRET}"])
def test_what_is_no_address_is_a_usage_error_that_keeps_the_secret(url):
    with pytest.raises(UsageError, match="not an address") as error:
        Notifier(url, "x")
    assert SECRET not in str(error.value)


def test_without_an_address_nothing_happens():
    with Notifier(None, "x") as notifier:
        notifier.tell("end", "done")
        assert not notifier._thread.is_alive()
