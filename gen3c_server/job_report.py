"""What an operator learns of jobs, metrics, log lines and traces, read off the events that their callers get.

A log line or a span tells no more than names of ours, numbers and the ids: no media, prompts, file names or paths.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from gen3c_client.contract import Done, Error, Event, Progress

from gen3c_server import metrics
from gen3c_server.errors import JobError
from gen3c_server.job_queue import EventStream
from gen3c_server.job_trace import NoTrace, Trace
from gen3c_server.json_lines import json_line

logger = logging.getLogger("gen3c")

# Characters of a caller's id and of a message. A line must stay below 4096 bytes, for pipes to keep it whole; an
# escaped character has six.
LONGEST_ID, LONGEST_MESSAGE = 128, 400


class Record(Protocol):
    """`gen3c_server.metrics.Recorder.record`."""

    def __call__(self, family: metrics.Family, value: float = 1, label: str | None = None) -> None: ...


class JobReport:
    """The stream of one job, which also reports what passes through it.

    Seconds are counted as in `Done.timings_s`: the time since the step before belongs to the stage of a step.
    """

    def __init__(
        self,
        job_id: str,
        request_id: str,  # that the caller gave the request; may be empty
        stream: EventStream,
        record: Record,
        write: Callable[[str], None] | None,  # takes log lines; None: there is no log of jobs
        clock: Callable[[], float] = time.monotonic,  # seconds
        trace: Trace | None = None,
    ) -> None:
        self.id = job_id
        self.trace = trace or NoTrace()
        ids = {"job_id": job_id, "request_id": request_id[:LONGEST_ID]}
        self._ids = {**ids, "trace_id": self.trace.trace_id}
        self.trace.describe(ids)
        self._stream = stream
        self._record = record
        self._write = write
        self._clock = clock
        self._media: int | None = None
        self._frames: int | None = None
        self._accepted = self._started = self._last = clock()
        self._waits = True
        self._stage: str | None = None  # that the last step belongs to
        self._stage_s = 0.0
        self._step = 0

    def describe(self, *, media: int, frames: int) -> None:
        """Tell how much was sent and is asked for, before the job is accepted."""
        self._media, self._frames = media, frames
        self.trace.describe({"media": media, "frames": frames})

    def begin(self) -> None:
        """The work begins."""
        self._safely(self._on_begin)

    def send(self, event: Event, blob: bytes | None = None) -> None:
        self._stream.send(event, blob)
        self._safely(lambda: self._on_event(event))

    def finish(self, error: JobError | None) -> None:
        try:
            self._stream.finish(error)
        finally:
            self._safely(lambda: self._on_end(error))

    def fail(self, error: JobError) -> None:
        """The error as an event, and the end of the stream."""
        try:
            self.send(Error(code=error.code, message=error.message, field=error.field))
        finally:
            self.finish(error)

    def is_cancelled(self) -> bool:
        return self._stream.is_cancelled()

    def _on_begin(self) -> None:
        self._waits = False
        self._started = self._last = self._clock()
        self._record(metrics.WAIT, self._started - self._accepted)
        self.trace.begin()

    def _on_event(self, event: Event) -> None:
        match event:
            case Progress(stage="queued", total=ahead):
                self.trace.accept()
                self._log("job_accepted", jobs_ahead=ahead, media=self._media, frames=self._frames)
            case Progress(stage=stage, step=step, total=total, message=part):
                self.trace.step(stage, is_last=step >= total and not part)
                self._on_step(stage, step)
            case Done():
                self._end_stage()
                for family, name in ((metrics.VIEWS, "views"), (metrics.FRAMES, "num_frames")):
                    count = event.provenance.get(name)
                    if isinstance(count, int):
                        self._record(family, count)
                        self.trace.describe({"views" if family is metrics.VIEWS else "frames": count})

    def _on_step(self, stage: str, step: int) -> None:
        now = self._clock()
        seconds, self._last = now - self._last, now
        if stage != self._stage:
            self._end_stage()
            self._stage, self._stage_s = stage, 0.0
        elif stage == "denoise" and step > self._step:
            self._record(metrics.STEP_DURATION, seconds)
        self._step = step
        self._stage_s += seconds

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._record(metrics.STAGE_DURATION, self._stage_s, self._stage)
            self._log("stage_done", stage=self._stage, seconds=round(self._stage_s, 3))
        self._stage = None

    def _on_end(self, error: JobError | None) -> None:
        now = self._clock()
        outcome = metrics.outcome_of(error)
        seconds = 0.0 if self._waits else now - self._started
        self._record(metrics.JOBS, label=outcome)
        if outcome == "completed":
            self._record(metrics.DURATION, seconds)
        # Other outcomes' sentences may quote the caller's words.
        failure = error.message[:LONGEST_MESSAGE] if error is not None and outcome == "failed" else None
        self._log(
            "job_ended",
            level="error" if outcome == "failed" else "info",
            outcome=outcome,
            code=None if error is None else error.code,
            stage=self._stage,  # that it ended in
            seconds=round(seconds, 3),
            wait_seconds=round((now if self._waits else self._started) - self._accepted, 3),
            message=failure,
        )
        self.trace.describe({"outcome": outcome} if error is None else {"outcome": outcome, "code": error.code})
        self.trace.end(failure)

    def _log(self, event: str, level: str = "info", **fields: str | float | None) -> None:
        if self._write is not None:
            self._write(json_line(event, level=level, **self._ids, **fields))

    def _safely(self, report: Callable[[], None]) -> None:
        """A report that fails must not cost the job."""
        try:
            report()
        except Exception:
            logger.exception("job %s: something of it was not reported", self.id)
