import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gen3c_client.contract import Error, Event, Progress

from gen3c.errors import CancelledError, InvalidInputError
from gen3c_server.errors import JobError
from gen3c_server.job_queue import Job, JobQueue
from gen3c_server.job_tokens import JobTokens


class Recorder:
    """A caller: keeps what it is told, and may cancel."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: JobError | None = None
        self.ended = threading.Event()
        self.cancelled = False

    def send(self, event: Event, blob: bytes | None = None) -> None:  # noqa: ARG002
        self.events.append(event)

    def finish(self, error: JobError | None) -> None:
        self.error = error
        self.ended.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def wait(self) -> JobError | None:
        assert self.ended.wait(5), "the job did not end"
        return self.error


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for name in ("jobs", "cancel"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def counts() -> list[tuple[int, int]]:
    """Jobs running and waiting, as the queue told."""
    return []


@pytest.fixture
def queue(run_dir: Path, counts: list[tuple[int, int]]):
    queue = JobQueue(JobTokens(run_dir), queued=2, on_change=lambda *now: counts.append(now))
    yield queue
    queue.close(5)


def work_until_stopped(job: Job) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if job.should_stop():
            raise CancelledError("stopped")
        time.sleep(0.01)


def submit(queue: JobQueue, work: Callable[[Job], None], name: str, timeout_s: float = 60) -> Recorder:
    recorder = Recorder()
    queue.submit(Job(name, recorder, work, timeout_s))
    return recorder


def test_jobs_run_in_order_and_one_failure_costs_nobody_else(queue: JobQueue, run_dir: Path) -> None:
    ran: list[str] = []

    def fail(job: Job) -> None:
        ran.append(job.id)
        raise InvalidInputError("steps is 0; legal: 1 to 1000.", "spec.steps")

    first = submit(queue, fail, "a")
    second = submit(queue, lambda job: ran.append(job.id), "b")
    assert second.wait() is None
    error = first.wait()
    assert error is not None
    assert (error.code, error.field) == ("INVALID_ARG", "spec.steps")
    assert isinstance(first.events[-1], Error)
    assert ran == ["a", "b"]
    time.sleep(0.05)
    assert not list((run_dir / "jobs").iterdir())


def test_a_full_line_refuses_with_the_figure(queue: JobQueue, counts: list[tuple[int, int]]) -> None:
    running = submit(queue, work_until_stopped, "a")
    time.sleep(0.1)
    waiting = [submit(queue, work_until_stopped, name) for name in "bc"]
    with pytest.raises(JobError, match="2 may wait") as refused:
        submit(queue, work_until_stopped, "d")
    assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "queue_full")
    assert [r.events[0] for r in waiting] == [
        Progress(stage="queued", step=0, total=n, message=f"{n} job(s) ahead") for n in (1, 2)
    ]
    assert counts == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    for recorder in (*waiting, running):
        recorder.cancelled = True
        recorder.wait()
    time.sleep(0.05)
    assert counts[-1] == (0, 0)
    assert (1, 1) in counts[5:]  # a job that leaves the line is told, too


def test_a_burst_is_not_admitted_before_the_worker_has_looked(queue: JobQueue) -> None:
    admitted: list[Recorder] = []
    refused = 0
    for i in range(30):
        try:
            admitted.append(submit(queue, work_until_stopped, f"job{i}"))
        except JobError:
            refused += 1
    assert len(admitted) == 3  # one runs, two wait
    assert refused == 27
    for recorder in admitted:
        recorder.cancelled = True


def test_a_lost_token_folder_costs_no_cancellation(queue: JobQueue, run_dir: Path) -> None:
    (run_dir / "cancel").rmdir()
    for name in ("a", "b"):
        recorder = submit(queue, work_until_stopped, name)
        time.sleep(0.15)
        recorder.cancelled = True
        error = recorder.wait()
        assert error is not None
        assert error.code == "CANCELLED"


def test_cancelling_a_running_job_stops_it_and_tells_other_models(queue: JobQueue, run_dir: Path) -> None:
    seen_token = threading.Event()

    def work(job: Job) -> None:
        while not job.should_stop():
            time.sleep(0.01)
        if (run_dir / "cancel" / job.id).exists():
            seen_token.set()
        raise CancelledError("stopped")

    recorder = submit(queue, work, "a")
    time.sleep(0.1)
    assert (run_dir / "jobs" / "a").exists()
    recorder.cancelled = True
    error = recorder.wait()
    assert error is not None
    assert error.code == "CANCELLED"
    assert "caller" in error.message
    assert seen_token.is_set()
    time.sleep(0.05)
    assert not list((run_dir / "cancel").iterdir())


def test_a_waiting_job_can_be_cancelled_at_once(queue: JobQueue) -> None:
    running = submit(queue, work_until_stopped, "a")
    waiting = submit(queue, work_until_stopped, "b")
    waiting.cancelled = True
    started = time.monotonic()
    error = waiting.wait()
    assert error is not None
    assert error.code == "CANCELLED"
    assert time.monotonic() - started < 1
    assert not running.ended.is_set()
    running.cancelled = True


def test_a_job_that_takes_too_long_is_stopped_with_the_figure(queue: JobQueue) -> None:
    error = submit(queue, work_until_stopped, "a", timeout_s=0.3).wait()
    assert error is not None
    assert error.code == "DEADLINE"
    assert "0.3 seconds" in error.message


def test_draining_stops_all_and_refuses_new(queue: JobQueue, run_dir: Path) -> None:
    recorders = [submit(queue, work_until_stopped, name) for name in "ab"]
    (run_dir / "drain").touch()
    for recorder in recorders:
        error = recorder.wait()
        assert error is not None
        assert error.code == "CANCELLED"
        assert "shutting down" in error.message
        assert error.reason == "shutdown"
    with pytest.raises(JobError, match="shutting down") as refused:
        submit(queue, work_until_stopped, "c")
    assert refused.value.reason == "shutdown"


def test_before_a_restart_running_jobs_may_end_and_all_others_are_told_to_come_again(
    queue: JobQueue, run_dir: Path
) -> None:
    end = threading.Event()
    running = submit(queue, lambda job: [None] * (not end.wait(5)), "a")
    time.sleep(0.1)
    waiting = submit(queue, work_until_stopped, "b")
    (run_dir / "restart").touch()
    error = waiting.wait()
    assert error is not None
    assert (error.code, error.reason) == ("UNAVAILABLE", "shutdown")
    with pytest.raises(JobError, match="send the job again") as refused:
        submit(queue, work_until_stopped, "c")
    assert refused.value.code == "UNAVAILABLE"
    assert not running.ended.is_set()
    end.set()
    assert running.wait() is None


def test_a_restart_that_cannot_wait_stops_running_jobs(queue: JobQueue, run_dir: Path) -> None:
    running = submit(queue, work_until_stopped, "a")
    time.sleep(0.1)
    for token in ("restart", "drain"):
        (run_dir / token).touch()
    error = running.wait()
    assert error is not None
    assert error.code == "UNAVAILABLE"


def test_others_see_whose_job_it_is_and_that_it_gets_on(queue: JobQueue, run_dir: Path) -> None:
    told, go_on = threading.Event(), threading.Event()
    mark = run_dir / "progress-made"

    def work(job: Job) -> None:
        go_on.wait(5)
        job.send(Progress(stage="media", step=0, total=1))
        told.set()
        go_on.wait(5)

    submit(queue, work, "a")
    time.sleep(0.1)
    assert (run_dir / "jobs" / "a").read_text() == str(os.getpid())
    os.utime(mark, (0, 0))  # since it began, long ago
    go_on.set()
    assert told.wait(5)
    assert time.time() - mark.stat().st_mtime < 5


def test_unexpected_failures_do_not_show_their_insides(queue: JobQueue) -> None:
    def work(job: Job) -> None:  # noqa: ARG001
        raise RuntimeError("secret path /srv/models")

    error = submit(queue, work, "a").wait()
    assert error is not None
    assert error.code == "INTERNAL"
    assert "secret" not in error.message


def test_a_caller_that_cannot_be_told_has_its_stream_finished(queue: JobQueue) -> None:
    class Gone(Recorder):
        def send(self, event: Event, blob: bytes | None = None) -> None:
            if isinstance(event, Error):
                raise RuntimeError("the stream is broken")
            super().send(event, blob)

    def fail(job: Job) -> None:  # noqa: ARG001
        raise InvalidInputError("steps is 0; legal: 1 to 1000.", "spec.steps")

    gone = Gone()
    queue.submit(Job("a", gone, fail, 60))
    error = gone.wait()
    assert error is not None
    assert error.code == "INVALID_ARG"
