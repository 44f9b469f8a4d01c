"""What is reported of a job, from the events of its stream."""

import json
from typing import Any

import pytest
from gen3c_client.contract import Done, Error, Event, Info, Progress

from gen3c_server.errors import JobError
from gen3c_server.job_report import JobReport
from gen3c_server.metrics import Family


class Caller:
    """A stream; broken ones raise."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.events: list[Event] = []
        self.ends: list[JobError | None] = []

    def send(self, event: Event, blob: bytes | None = None) -> None:  # noqa: ARG002
        if self.broken:
            raise RuntimeError("the caller has gone")
        self.events.append(event)

    def finish(self, error: JobError | None) -> None:
        self.ends.append(error)

    def is_cancelled(self) -> bool:
        return False


class Watched:
    """A job's report at times that the test sets."""

    def __init__(self, caller: Caller | None = None) -> None:
        self.now = 100.0
        self.records: list[tuple[str, float, str | None]] = []
        self.lines: list[dict[str, Any]] = []
        self.caller = caller or Caller()
        self.report = JobReport("j1", "r1", self.caller, self.record, self.write, lambda: self.now)

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))

    def record(self, family: Family, value: float = 1, label: str | None = None) -> None:
        self.records.append((family.name.removeprefix("gen3c_"), round(value, 6), label))

    def after(self, seconds: float, stage: Any, step: int, total: int, message: str = "") -> None:
        self.now += seconds
        self.report.send(Progress(stage=stage, step=step, total=total, message=message))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_stages_and_steps_of_two_chunks(watched: Watched) -> None:
    watched.report.describe(media=2, frames=49)
    watched.report.send(Progress(stage="queued", step=0, total=2))
    watched.now += 5
    watched.report.begin()
    watched.after(1, "geometry", 1, 3, "sweep.coarse")
    watched.after(1, "geometry", 1, 1)
    watched.report.send(Info(message="a word"))
    for chunk in range(2):
        watched.after(2, "condition", 2 * chunk, 4)
        watched.after(1, "condition", 2 * chunk + 2, 4)
        watched.after(0.5, "denoise", 2 * chunk, 4)  # what is done before the first step is none
        watched.after(4, "denoise", 2 * chunk + 1, 4)
        watched.after(6, "denoise", 2 * chunk + 2, 4)
    watched.now += 1
    watched.report.send(Done(seed=0, timings_s={}, provenance={"views": 3, "num_frames": 49}))
    watched.report.finish(None)
    chunk_records = [
        ("denoise_step_duration_seconds", 4, None),
        ("denoise_step_duration_seconds", 6, None),
        ("stage_duration_seconds", 10.5, "denoise"),
    ]
    assert watched.records == [
        ("job_wait_seconds", 5, None),
        ("stage_duration_seconds", 2, "geometry"),
        ("stage_duration_seconds", 3, "condition"),
        *chunk_records,
        ("stage_duration_seconds", 3, "condition"),
        *chunk_records,
        ("job_source_views", 3, None),
        ("job_frames", 49, None),
        ("jobs_total", 1, "completed"),
        ("job_duration_seconds", 30, None),
    ]
    ended = watched.lines[-1]
    assert (ended["outcome"], ended["seconds"], ended["wait_seconds"], ended["level"]) == ("completed", 30, 5, "info")
    assert {(line["job_id"], line["request_id"]) for line in watched.lines} == {("j1", "r1")}
    assert [watched.lines[0][name] for name in ("event", "jobs_ahead", "media", "frames")] == ["job_accepted", 2, 2, 49]


def test_a_job_that_fails_tells_where_and_how(watched: Watched) -> None:
    watched.report.begin()
    watched.after(1, "media", 1, 1)
    watched.after(2, "geometry", 0, 1)
    watched.now += 1
    watched.report.finish(JobError("INTERNAL", "Internal error; the server's log has the details under 0a1b."))
    assert ("stage_duration_seconds", 2, "geometry") not in watched.records
    ended = watched.lines[-1]
    assert (ended["event"], ended["outcome"], ended["code"]) == ("job_ended", "failed", "INTERNAL")
    assert (ended["stage"], ended["seconds"], ended["level"]) == ("geometry", 4, "error")
    assert "0a1b" in ended["message"]


def test_what_a_caller_wrote_is_not_repeated(watched: Watched) -> None:
    watched.report.fail(JobError("INVALID_ARG", "prompt: too long (got 'a castle')", "spec.castle"))
    assert [type(event) for event in watched.caller.events] == [Error]
    assert watched.records == [("jobs_total", 1, "invalid")]
    assert "castle" not in json.dumps(watched.lines)


def test_a_job_that_ends_while_it_waits_has_no_seconds_of_work(watched: Watched) -> None:
    watched.now += 7
    watched.report.finish(JobError("CANCELLED", "The caller cancelled the job."))
    assert watched.records == [("jobs_total", 1, "cancelled")]
    assert (watched.lines[-1]["seconds"], watched.lines[-1]["wait_seconds"]) == (0, 7)


def test_a_caller_that_has_gone_changes_no_count() -> None:
    watched = Watched(Caller(broken=True))
    with pytest.raises(RuntimeError, match="gone"):
        watched.report.fail(JobError("INVALID_ARG", "no"))
    assert watched.records == [("jobs_total", 1, "invalid")]
    assert len(watched.caller.ends) == 1


def test_a_report_that_fails_costs_the_job_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def record(family: Family, value: float = 1, label: str | None = None) -> None:
        raise OSError(f"{family.name} {value} {label}")

    caller = Caller()
    report = JobReport("j1", "", caller, record, None)
    report.begin()
    report.send(Progress(stage="media", step=1, total=1))
    report.send(Progress(stage="geometry", step=1, total=1))
    report.finish(None)
    assert len(caller.events) == 2
    assert caller.ends == [None]
    assert "job j1: something of it was not reported" in caplog.text


def test_a_line_fits_into_a_pipe_s_buffer(watched: Watched) -> None:
    lines: list[str] = []
    report = JobReport("0123456789abcdef", "\n\u1234" * 4000, Caller(), watched.record, lines.append)
    report.finish(JobError("UNAVAILABLE", "\u1234" * 4000))
    (line,) = lines
    assert len(line.encode()) < 4096
    assert "\n" not in line
