"""The families of metrics, and the recorder: what goes wrong with a metric costs nobody anything."""

import threading
import weakref
from collections.abc import Callable

import pytest

from gen3c_server.errors import JobError
from gen3c_server.metrics import (
    FAMILIES,
    JOBS,
    MOST_PENDING,
    PENDING,
    RUNNING,
    STAGE_DURATION,
    Family,
    Metric,
    Recorder,
    outcome_of,
)


class Series:
    """A time series of a server; `on_use` runs in every call."""

    def __init__(self, family: "OpenedFamily", on_use: Callable[[], None]) -> None:
        self._family = weakref.ref(family)
        self._on_use = on_use
        self.told: list[tuple[str, float]] = []
        self.threads: set[int] = set()

    def increment(self, value: float) -> None:
        self._use("counter", value)

    def set(self, value: float) -> None:
        self._use("gauge", value)

    def observe(self, value: float) -> None:
        self._use("histogram", value)

    def _use(self, kind: str, value: float) -> None:
        self.threads.add(threading.get_ident())
        self._on_use()
        if self._family() is None:
            raise RuntimeError("the family has been deleted")  # as Triton says
        self.told.append((kind, value))


class OpenedFamily:
    """As Triton's: its series are of no use once it is gone."""

    def __init__(self, registry: "Registry", family: Family) -> None:
        self._registry, self._family = registry, family

    def __call__(self, labels: dict[str, str]) -> Metric:
        series = Series(self, self._registry.on_use)
        self._registry.series[self._family.name, *labels.items()] = series
        return series


class Registry:
    """A server's metrics."""

    def __init__(self, on_use: Callable[[], None] = lambda: None) -> None:
        self.on_use = on_use
        self.series: dict[tuple[object, ...], Series] = {}

    def open(self, family: Family) -> OpenedFamily:
        return OpenedFamily(self, family)


def test_names_follow_the_conventions() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith("gen3c_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.help.endswith(".")
        assert (family.label is None) == (not family.values)
        assert bool(family.buckets) == (family.kind == "histogram")
        assert list(family.buckets) == sorted(set(family.buckets))
        assert ("econds" in family.help) == family.name.endswith("_seconds")


def test_every_series_is_there_from_the_start_and_takes_its_values() -> None:
    registry = Registry()
    recorder = Recorder(registry.open)
    assert len(registry.series) == sum(max(1, len(family.values)) for family in FAMILIES)
    recorder.record(RUNNING, 2)
    recorder.record(JOBS, label="failed")
    recorder.record(STAGE_DURATION, 1.5, "decode")
    recorder.record(JOBS, label="no such outcome")
    recorder.close(5)
    told = {key: series.told for key, series in registry.series.items() if series.told}
    assert told == {
        ("gen3c_jobs_running",): [("gauge", 2)],
        ("gen3c_jobs_total", ("outcome", "failed")): [("counter", 1)],
        ("gen3c_stage_duration_seconds", ("stage", "decode")): [("histogram", 1.5)],
    }


def test_many_threads_record_and_one_speaks_to_the_server() -> None:
    """Triton 24.10 ends with SIGSEGV when two threads use one metric at a time."""
    registry = Registry()
    recorder = Recorder(registry.open)
    threads = [threading.Thread(target=lambda: [recorder.record(PENDING, i) for i in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close(5)
    series = registry.series["gen3c_jobs_pending",]
    assert len(series.told) == 400
    assert len(series.threads) == 1
    assert threading.get_ident() not in series.threads


def test_a_metric_that_fails_is_logged_and_the_next_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    failures = [RuntimeError("the server is gone")]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    registry = Registry(fail_once)
    recorder = Recorder(registry.open)
    recorder.record(RUNNING, 1)
    recorder.record(RUNNING, 2)
    recorder.close(5)
    assert registry.series["gen3c_jobs_running",].told == [("gauge", 2)]
    assert "a metric was lost" in caplog.text


def test_a_server_that_takes_no_metrics_keeps_nobody_waiting() -> None:
    gate = threading.Event()
    recorder = Recorder(Registry(lambda: bool(gate.wait(20))).open)
    for i in range(MOST_PENDING + 10):
        recorder.record(RUNNING, i)
    recorder.close(0.01)
    gate.set()


def test_a_server_without_metrics_is_none_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(family: Family) -> OpenedFamily:
        raise RuntimeError(f"{family.name}: metrics are off")

    recorder = Recorder(refuse)
    recorder.record(RUNNING, 1)
    recorder.close(5)
    assert "jobs run without them" in caplog.text


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "completed"),
        (JobError("CANCELLED", ""), "cancelled"),
        (JobError("CANCELLED", "", reason="shutdown"), "shutdown"),
        (JobError("UNAVAILABLE", "", reason="shutdown"), "shutdown"),
        (JobError("UNAVAILABLE", "", reason="queue_full"), "queue_full"),
        (JobError("UNAVAILABLE", ""), "failed"),
        (JobError("DEADLINE", ""), "timed_out"),
        (JobError("INVALID_ARG", ""), "invalid"),
        (JobError("INTERNAL", ""), "failed"),
    ],
)
def test_the_outcome_of_a_job(error: JobError | None, outcome: str) -> None:
    assert outcome_of(error) == outcome
