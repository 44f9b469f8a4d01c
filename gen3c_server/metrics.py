"""What the job model counts and measures for Prometheus: the families, and how their values get to the server.

Knows nothing of Triton: who makes a `Recorder` says how a family is opened (gen3c_server.triton_metrics).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from gen3c_client.contract import Stage

from gen3c_server.errors import JobError

logger = logging.getLogger("gen3c")

Kind = Literal["counter", "gauge", "histogram"]
Outcome = Literal["completed", "cancelled", "timed_out", "invalid", "queue_full", "shutdown", "failed"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STAGES: tuple[str, ...] = tuple(stage for stage in get_args(Stage) if stage != "queued")

# Seconds. Of `tiny` on a laptop a stage takes tenths and a job seconds, of `gen3c-7b` minutes and up to an hour.
STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
JOB_BUCKETS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
VIEW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FRAME_BUCKETS = (25, 49, 97, 121, 241, 481, 721, 961, 1211)  # whole chunks of both presets, up to the default limit

MOST_PENDING = 10_000  # updates that wait for the server; more are dropped


@dataclass(frozen=True)
class Family:
    """A family of metrics, as Prometheus knows it: one time series for each value of its label."""

    name: str
    kind: Kind
    help: str
    label: str | None = None
    values: tuple[str, ...] = ()  # all that the label can be
    buckets: tuple[float, ...] = ()  # upper bounds, of a histogram


JOBS = Family("gen3c_jobs_total", "counter", "Jobs that have ended, by outcome.", "outcome", OUTCOMES)
RUNNING = Family("gen3c_jobs_running", "gauge", "Jobs that are worked on.")
PENDING = Family("gen3c_jobs_pending", "gauge", "Jobs that wait for their turn.")
WAIT = Family(
    "gen3c_job_wait_seconds", "histogram", "Seconds that a job waited before its work began.", buckets=JOB_BUCKETS
)
DURATION = Family(
    "gen3c_job_duration_seconds",
    "histogram",
    "Seconds of work of a completed job, without the time that it waited.",
    buckets=JOB_BUCKETS,
)
STAGE_DURATION = Family(
    "gen3c_stage_duration_seconds",
    "histogram",
    "Seconds of a finished pass through a stage; a video of several chunks passes some stages once a chunk.",
    "stage",
    STAGES,
    STAGE_BUCKETS,
)
STEP_DURATION = Family(
    "gen3c_denoise_step_duration_seconds", "histogram", "Seconds of a denoising step.", buckets=STEP_BUCKETS
)
VIEWS = Family("gen3c_job_source_views", "histogram", "Source views of a completed job.", buckets=VIEW_BUCKETS)
FRAMES = Family("gen3c_job_frames", "histogram", "Output frames of a completed job.", buckets=FRAME_BUCKETS)

FAMILIES = (JOBS, RUNNING, PENDING, WAIT, DURATION, STAGE_DURATION, STEP_DURATION, VIEWS, FRAMES)


def outcome_of(error: JobError | None) -> Outcome:
    """How a job ended that the caller was told `error` of; None: it was completed."""
    match error:
        case None:
            return "completed"
        case JobError(reason="queue_full" | "shutdown" as reason):
            return reason
        case JobError(code="INVALID_ARG"):
            return "invalid"
        case JobError(code="CANCELLED"):
            return "cancelled"
        case JobError(code="DEADLINE"):
            return "timed_out"
        case _:
            return "failed"


class Metric(Protocol):
    """One time series. Each kind has one method that works: counter, gauge, histogram."""

    def increment(self, value: float) -> None: ...

    def set(self, value: float) -> None: ...

    def observe(self, value: float) -> None: ...


OpenFamily = Callable[[Family], Callable[[dict[str, str]], Metric]]
"""Registers a family; what it returns makes the time series of given labels, and must be kept as long as they are."""

_Update = tuple[Metric, Kind, float]


class Recorder:
    """Brings values to the server, on one thread of its own.

    Nothing that goes wrong with a metric may cost a job, and Triton (24.10) crashes as a whole, SIGSEGV, when two
    threads use one metric at the same time. So jobs only leave their values here, which neither waits nor raises.
    All time series exist from the start, at 0: the first event of a kind would be lost to `rate()` otherwise.
    """

    def __init__(self, open_family: OpenFamily) -> None:
        self._series: dict[tuple[str, str | None], Metric] = {}
        self._families: list[Callable[[dict[str, str]], Metric]] = []  # Triton's series die with their family
        self._updates: queue.Queue[_Update | None] = queue.Queue(MOST_PENDING)
        try:
            for family in FAMILIES:
                series = open_family(family)
                self._families.append(series)
                for value in family.values or (None,):
                    labels = {} if family.label is None or value is None else {family.label: value}
                    self._series[family.name, value] = series(labels)
        except Exception:
            logger.exception("metrics cannot be recorded; jobs run without them")
            self._series.clear()
        self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)
        self._thread.start()

    def record(self, family: Family, value: float = 1, label: str | None = None) -> None:
        """Add `value` to a counter, set a gauge to it, or have a histogram observe it. Never waits, never raises."""
        metric = self._series.get((family.name, label))
        if metric is not None:
            self._put((metric, family.kind, value))

    def close(self, timeout_s: float) -> None:
        """Wait until all that was recorded has arrived, `timeout_s` at most."""
        self._put(None)
        self._thread.join(timeout_s)

    def _put(self, update: _Update | None) -> None:
        try:
            self._updates.put_nowait(update)
        except queue.Full:
            logger.warning("a metric was lost: the server takes none")

    def _work(self) -> None:
        while (update := self._updates.get()) is not None:
            metric, kind, value = update
            try:
                match kind:
                    case "counter":
                        metric.increment(value)
                    case "gauge":
                        metric.set(value)
                    case "histogram":
                        metric.observe(value)
            except Exception:
                logger.exception("a metric was lost")
