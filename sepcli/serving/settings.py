"""What a server allows, and what it offers."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from sepcli.errors import SepcliError

MEGABYTE = 1_000_000
BUSIEST = 192_000  # samples per second of sound, all channels together, that a duration stands for
FASTEST = 1_536_000  # samples per second, all channels together: 8 channels at 192 kHz
MOST_REFERENCES = 8
TRIES = 3  # of a job whose server or worker dies each time
FIRST_REQUEST_S = 15.0  # until a connection has to have asked for something
GRACE_S = 10.0  # for requests that are running when the server is told to stop


@dataclass(frozen=True)
class Settings:
    """Limits of a server, and its models {name: what `modelfile.locate` takes}.

    folder: of the jobs. token: that requests have to bear; None lets everyone in.
    workers: processes that separate, of `threads` threads each. queue: jobs that may wait.
    upload_mb, duration_s: of one request. pause_s: between two pieces of an upload.
    slowest: bytes per second that an upload has to make on the average, after a pause.
    keep_s: how long a finished job is kept. streams: live ones at once, None for as many as the
    processor is measured to carry.
    """

    models: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("sepcli-serve")
    token: str | None = None
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    queue: int = 32
    upload_mb: float = 512.0
    duration_s: float = 1200.0
    pause_s: float = 15.0
    slowest: float = 1000.0
    keep_s: float = 3600.0
    streams: int | None = None

    @property
    def most_bytes(self) -> int:
        """Of an upload."""
        return int(self.upload_mb * MEGABYTE)


class RequestError(SepcliError):
    """What is wrong with a request, with the status of HTTP that says so."""

    def __init__(self, status: int, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s

    @property
    def headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_s)))}
