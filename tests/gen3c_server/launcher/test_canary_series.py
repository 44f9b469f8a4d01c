"""When canaries are made, and what their outcome counts for. The server's side of it: test_supervisor.py."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gen3c_server.launcher import ServeOptions, ServerError
from gen3c_server.launcher.canary import MOST_INTERVALS, CanarySeries
from gen3c_server.launcher.status import Status
from gen3c_server.unanswered import UnansweredError

INTERVAL_S = 0.1


@dataclass
class World:
    """A server as its canaries see it."""

    answer: Callable[[], None] = lambda: None
    progress_age_s: float | None = None  # of jobs; None: there is none
    calls: int = 0
    said: list[str] = field(default_factory=list)
    status: Status = field(default_factory=Status)

    def series(self, interval_s: float = INTERVAL_S) -> CanarySeries:
        options = ServeOptions(Path(), canary_interval_s=interval_s, canary_timeout_s=1, stall_timeout_s=50)
        return CanarySeries(self._canary, "url", options, self.status, self._makes_progress, self.said.append)

    def _canary(self, url: str, timeout_s: float) -> None:
        assert (url, timeout_s) == ("url", 1)
        self.calls += 1
        self.answer()

    def _makes_progress(self, within_s: float) -> bool:
        return self.progress_age_s is not None and self.progress_age_s < within_s


def poll(series: CanarySeries, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        series.poll()
        time.sleep(0.005)


def fail(error: Exception) -> Callable[[], None]:
    def answer() -> None:
        raise error

    return answer


def test_an_idle_server_is_asked_at_every_interval() -> None:
    world = World()
    poll(world.series(), 10 * INTERVAL_S)
    assert 4 <= world.calls <= 10
    assert b"gen3c_canary_failures_total 0.0\n" in world.status.exposition()
    counted = re.search(rb"gen3c_canary_duration_seconds_count (\d+)", world.status.exposition())
    assert counted is not None
    assert world.calls - int(counted[1]) in (0, 1)  # the last may be under way


def test_an_interval_of_0_asks_never() -> None:
    world = World()
    poll(world.series(0), 0.3)
    assert world.calls == 0


def test_jobs_that_get_on_are_not_disturbed_for_ten_intervals() -> None:
    world = World(progress_age_s=0)
    series = world.series()
    poll(series, 0.6 * MOST_INTERVALS * INTERVAL_S)
    assert world.calls == 0
    poll(series, 0.8 * MOST_INTERVALS * INTERVAL_S)
    assert world.calls == 1


def test_an_error_is_a_failure_whatever_runs() -> None:
    world = World(fail(ValueError("OUT is empty.")), progress_age_s=10)
    with pytest.raises(ServerError, match=r"A canary failed: OUT is empty\.") as failed:
        poll(world.series(), 2)
    assert failed.value.cause == "canary_failed"


@pytest.mark.parametrize(("age_s", "fails"), [(10, False), (60, True), (None, True)])
def test_no_answer_is_a_failure_unless_jobs_get_on(age_s: float | None, fails: bool) -> None:
    world = World(fail(UnansweredError("No answer.")), progress_age_s=age_s)
    if fails:
        with pytest.raises(ServerError, match="No answer"):
            poll(world.series(), 2)
        return
    poll(world.series(), 1)
    assert world.calls > 1
    assert world.said == ["No answer. Jobs make progress meanwhile, so the server goes on."]


def test_jobs_that_ended_meanwhile_excuse_too() -> None:
    """The canary waited behind their last call."""
    world = World(progress_age_s=10)

    def answer() -> None:
        world.progress_age_s = None
        raise UnansweredError("No answer.")

    world.answer = answer
    with pytest.raises(ServerError):  # of the second one, without any job
        poll(world.series(), 2)
    assert world.calls == 2


def test_a_canary_that_never_returns_holds_nothing_up() -> None:
    release = threading.Event()
    world = World(lambda: release.wait(30) and None)
    series = world.series()
    try:
        with pytest.raises(ServerError, match="did not end within 1 seconds"):
            poll(series, 10)
    finally:
        release.set()
