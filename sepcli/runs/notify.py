"""Messages on a training to a web hook: sent beside it, tried again, and never in its way.

The address is a secret: whoever has it can write there. It is neither logged nor kept, and no
message that this module makes has it in it.
"""

import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from sepcli.errors import UsageError, note
from sepcli.runs.runlog import plain

ATTEMPTS_S = (0.0, 1.0, 4.0, 15.0)  # waits before each attempt
TIMEOUT_S = 10.0  # of an attempt
WAITING = 100  # messages; when more wait, the newest is dropped
PATIENCE_S = 10.0  # in the end, for what still waits
FORMS = {  # by a part of the address: what a hook of that kind takes
    "/cgi-bin/webhook": lambda text: {"msgtype": "text", "text": {"content": text}},  # WeCom
    "/api/webhooks/": lambda text: {"content": text},  # Discord
    "/services/": lambda text: {"text": text},  # Slack
}


class Notifier:
    """Sends messages on the run `name` to the hook at `url`; a context manager.

    url: without one, nothing is sent. Raises UsageError for what is no address.
    """

    def __init__(self, url: str | None, name: str) -> None:
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise UsageError("--notify: not an address; use one that begins with https://")
        self._url, self._name = url, name
        self._skipped, self._failed = 0, False
        self._waiting: queue.Queue[Any] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._send_all, daemon=True)

    def __enter__(self) -> Self:
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if error is not None:
            self.tell("failed", str(error) or type(error).__name__)
        if self._url:
            self._put(None)
            self._thread.join(PATIENCE_S)
            if self._thread.is_alive():
                self._complain("no answer in time")  # once: whatever comes later is not told

    def see(self, record: Mapping[str, Any]) -> None:
        """Tell of a record of `loop.fit` what is worth a message."""
        if record["event"] == "valid":
            event = "best" if record["best"] else "validation"
            gain = f"{record['si_sdr_db']:.2f} dB, {record['si_sdri_db']:+.2f} dB over the mixture"
            text = f"step {record['step']}: SI-SDR {gain}" + (" (best)" if record["best"] else "")
            self.tell(event, text, record)
        elif record["event"] == "train":
            if record["skipped"] > self._skipped:
                new = record["skipped"] - self._skipped
                text = f"step {record['step']}: {new} steps without a finite loss and gradient"
                self.tell("nan", text, record)
            self._skipped = record["skipped"]

    def tell(self, event: str, text: str, values: Mapping[str, Any] | None = None) -> None:
        """Send a message later on: `event` in a word, and what it is in a line."""
        if self._url:
            numbers = {k: v for k, v in plain(dict(values or {})).items() if _is_plain(v)}
            self._put({**numbers, "event": event, "run": self._name, "line": text})

    def _put(self, message):
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._complain("too many wait")

    def _send_all(self):
        while (message := self._waiting.get()) is not None:
            reason = self._deliver(message)
            if reason:
                self._complain(reason)

    def _deliver(self, message):
        """Try to send a message; returns why it could not be, or None."""
        reason = None
        for wait in ATTEMPTS_S:
            time.sleep(wait)
            reason, hopeless = _post(self._url, message)
            if reason is None or hopeless:
                break
        return reason

    def _complain(self, reason):
        if not self._failed:
            note(f"--notify: a message was not delivered ({reason}); the training continues")
        self._failed = True


def _post(url, message):
    """Send a message; returns (why that failed, or None; whether another attempt is in vain)."""
    try:
        data = json.dumps(body(url, message)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "sepcli"}
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return _refusal(answer.read(1000)), False
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}", 400 <= error.code < 500 and error.code not in (408, 429)
    except Exception as error:  # of a network everything is to be expected, and texts have the URL
        return type(error).__name__, False


def _refusal(answer):
    """What a hook says that refuses with the status of success, as WeCom does, or None."""
    try:
        code = json.loads(answer).get("errcode")
    except (ValueError, AttributeError):
        return None
    return f"error {code}" if code else None


def body(url: str, message: dict[str, Any]) -> dict[str, Any]:
    """What a hook at this address is sent: its own form, or `text`, `content` and all numbers."""
    message = dict(message)
    text = f"{message['run']}: {message.pop('line')}"
    for part, form in FORMS.items():
        if part in urlsplit(url).path:
            return form(text)
    return {"text": text, "content": text, **message}


def _is_plain(value):
    return isinstance(value, bool | int | float | str)
