"""Counters as plain text, in the format of Prometheus (version 0.0.4)."""

import resource
import sys
from collections import Counter
from collections.abc import Iterable

PREFIX = "sepcli_"
ENDS = ("done", "failed", "deleted")
HOP_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What a server has done so far."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()  # by status
        self._jobs: Counter[str] = Counter()  # by state
        self._job_seconds = self._sound_seconds = 0.0
        self._hops: Counter[float] = Counter()  # by the bound of their time
        self._hop_seconds, self._refused = 0.0, 0

    def job(self, state: str, seconds: float, sound_s: float) -> None:
        """Count a job that ended, the time it took and the sound that was separated."""
        self._jobs[state] += 1
        self._job_seconds += seconds
        self._sound_seconds += sound_s

    def hop(self, seconds: float) -> None:
        """Count a message of a live stream that took so long from its arrival to its answer."""
        bound = next((each for each in HOP_SECONDS if seconds <= each), float("inf"))
        self._hops[bound] += 1
        self._hop_seconds += seconds

    def refused_stream(self) -> None:
        """Count a live stream that the processor has no room for."""
        self._refused += 1

    def text(self, **gauges: float) -> str:
        """All of it, and `gauges`, what is so at this moment."""
        lines = []
        for name, value in gauges.items():
            lines += _family(name, "gauge", [("", value)])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory *= 1 if sys.platform == "darwin" else 1024
        lines += _family("peak_memory_bytes", "gauge", [("", memory)])
        statuses = [(f'{{status="{code}"}}', n) for code, n in sorted(self.requests.items())]
        lines += _family("requests_total", "counter", statuses)
        states = [(f'{{state="{state}"}}', self._jobs[state]) for state in ENDS]
        lines += _family("jobs_total", "counter", states)
        lines += _family("job_seconds_total", "counter", [("", self._job_seconds)])
        lines += _family("separated_seconds_total", "counter", [("", self._sound_seconds)])
        lines += _family("streams_refused_total", "counter", [("", self._refused)])
        lines += _family("stream_seconds", "histogram", self._histogram())
        return "\n".join([*lines, ""])

    def _histogram(self):
        total = 0
        for bound in (*HOP_SECONDS, float("inf")):
            total += self._hops[bound]
            shown = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'_bucket{{le="{shown}"}}', total
        yield "_sum", self._hop_seconds
        yield "_count", total


def _family(name: str, kind: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    lines = [f"# TYPE {PREFIX}{name} {kind}"]
    return lines + [f"{PREFIX}{name}{labels} {value:.10g}" for labels, value in samples]
