"""What the launcher knows of its server, and tells: whether it is ready, and figures that outlive its restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gen3c_server.launcher.errors import Cause

CAUSES: tuple[Cause, ...] = get_args(Cause)
# Seconds of a canary: of `tiny` tenths, of `gen3c-7b` seconds, and the time that it waits for the calls under way.
CANARY_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True)
class Figure:
    """A metric of the launcher, as Prometheus knows it."""

    name: str
    kind: str
    help: str
    label: str | None = None


READY = Figure("gen3c_server_ready", "gauge", "1 while jobs are taken, else 0.")
RESTARTS = Figure("gen3c_server_restarts_total", "counter", "Restarts of Triton, by cause.", "cause")
CANARY_FAILURES = Figure("gen3c_canary_failures_total", "counter", "Canaries that failed.")
CANARY_DURATION = Figure("gen3c_canary_duration_seconds", "histogram", "Seconds of a canary that succeeded.")
START_TIME = Figure("gen3c_launcher_start_time_seconds", "gauge", "When the launcher began, in seconds since 1970.")
FIGURES = (READY, START_TIME, RESTARTS, CANARY_FAILURES, CANARY_DURATION)
# The supervisor beats several times a second but while it kills a server.
BEAT_WITHIN_S = 120.0


class Status:
    """Safe to use from several threads: the supervisor writes, the health server reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start_time, self._beat = time.time(), time.monotonic()
        self._started = False
        self._why_not: str | None = "The server is starting."
        self._restarts = dict.fromkeys(CAUSES, 0)
        self._canary_failures = 0
        self._canaries = [0] * (len(CANARY_BUCKETS) + 1)  # by bucket; the last one has no bound
        self._canary_seconds = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(self))

    def ready(self) -> None:
        """Jobs are taken: all models answered."""
        with self._lock:
            self._started, self._why_not = True, None

    def unready(self, why: str) -> None:
        """No jobs are taken; `why` is a sentence."""
        with self._lock:
            self._why_not = why

    def restarting(self, cause: Cause) -> None:
        with self._lock:
            self._restarts[cause] += 1

    def canary_succeeded(self, seconds: float) -> None:
        with self._lock:
            self._canaries[sum(seconds > bound for bound in CANARY_BUCKETS)] += 1
            self._canary_seconds += seconds

    def canary_failed(self) -> None:
        with self._lock:
            self._canary_failures += 1

    def beat(self) -> None:
        """The supervisor is at work."""
        with self._lock:
            self._beat = time.monotonic()

    @property
    def is_live(self) -> bool:
        """Whether the supervisor was at work a short time ago."""
        with self._lock:
            return time.monotonic() - self._beat < BEAT_WITHIN_S

    @property
    def has_started(self) -> bool:
        """Whether the server has been ready once."""
        with self._lock:
            return self._started

    @property
    def why_not_ready(self) -> str | None:
        """None if it is ready."""
        with self._lock:
            return self._why_not

    def exposition(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def figures(self) -> Iterator[Metric]:
        """All of `FIGURES` as they are now."""
        with self._lock:
            restarts, counts = dict(self._restarts), list(accumulate(self._canaries))
            ready, failures, seconds = self._why_not is None, self._canary_failures, self._canary_seconds
        yield GaugeMetricFamily(READY.name, READY.help, value=float(ready))
        yield GaugeMetricFamily(START_TIME.name, START_TIME.help, value=self._start_time)
        by_cause = CounterMetricFamily(RESTARTS.name, RESTARTS.help, labels=["cause"])
        for cause, count in restarts.items():
            by_cause.add_metric([cause], count)
        yield by_cause
        yield CounterMetricFamily(CANARY_FAILURES.name, CANARY_FAILURES.help, value=failures)
        bounds = [*map(str, map(float, CANARY_BUCKETS)), "+Inf"]
        buckets = list(zip(bounds, counts, strict=True))
        yield HistogramMetricFamily(CANARY_DURATION.name, CANARY_DURATION.help, buckets=buckets, sum_value=seconds)


class _Figures(Collector):
    """Counts of its own rather than the library's counters, which add series with the time of their making."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        return self._status.figures()
