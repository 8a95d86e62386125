"""Figures of a server, in the text form that Prometheus reads.

metrics = Metrics()
metrics.answered("/predict", 200, seconds=0.04)
metrics.batch("birds", 4, seconds=0.03)
metrics.text(gauges={"resnest_ready": 1})
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # the client libraries' own, to 30
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
KIND = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of values up to each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        total, lines = 0, []
        for bound, count in zip([*map("{:g}".format, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {self.sum:.6f}", f"{name}_count{{{labels}}} {total}"]


class Metrics:
    """Counts of requests, and how long they and batches take; several threads may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._sizes: dict[str, Histogram] = {}
        self._engine: dict[str, Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request; `route` is one of the server's, never a path that a client made up."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, Histogram(SECONDS)).add(seconds)

    def batch(self, model: str, size: int, seconds: float) -> None:
        with self._lock:
            self._sizes.setdefault(model, Histogram(SIZES)).add(size)
            self._engine.setdefault(model, Histogram(SECONDS)).add(seconds)

    def text(self, gauges: Mapping[str, tuple[str, Mapping[str, float]]]) -> str:
        """All figures. `gauges` are those of this moment: name -> help text, and values by labels."""
        with self._lock:
            lines = [*_head("resnest_requests_total", "counter", "Answered requests.")]
            lines += [
                f'resnest_requests_total{{route="{_escaped(route)}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            lines += _histograms("resnest_request_seconds", "Seconds from request to answer.", "route", self._seconds)
            lines += _histograms("resnest_batch_size", "Pictures of a batch.", "model", self._sizes)
            lines += _histograms("resnest_engine_seconds", "Seconds of a batch in the engine.", "model", self._engine)
        for name, (about, values) in gauges.items():
            lines += _head(name, "gauge", about)
            lines += [f"{name}{labels} {value:g}" for labels, value in values.items()]
        return "\n".join(lines) + "\n"


def label(name: str, value: str) -> str:
    """The labels of a value: {model="birds"}."""
    return f'{{{name}="{_escaped(value)}"}}'


def _histograms(name: str, about: str, key: str, found: Mapping[str, Histogram]) -> list[str]:
    lines = _head(name, "histogram", about)
    for value, histogram in sorted(found.items()):
        lines += histogram.lines(name, f'{key}="{_escaped(value)}"')
    return lines


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
