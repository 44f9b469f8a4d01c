"""The trace of one job: a span for it, in that its stages one after another, in those the calls of other models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from gen3c_client.contract import TraceParent

from gen3c_server.traces import call_span, calls_of, remote_context, trace_parent

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

JOB = "gen3c.job"
QUEUED = "queued"
NO_STAGE = "work"  # of a job that ended before it was told what stage the last work was of


class Trace(Protocol):
    """What is told of a job for its trace. Safe to use from several threads."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; None: the job is part of no trace."""
        ...

    def describe(self, attributes: Mapping[str, str | int]) -> None:
        """Facts of the job."""
        ...

    def accept(self) -> None:
        """The job waits for its turn."""
        ...

    def begin(self) -> None:
        """The job's work begins."""
        ...

    def step(self, stage: str, *, is_last: bool) -> None:
        """Work of `stage` has been done since the step before; `is_last`: what comes now is of another stage."""
        ...

    def end(self, failure: str | None) -> None:
        """The job has ended; `failure` says what was the server's fault."""
        ...

    def calls(self) -> AbstractContextManager[None]:
        """Entered by the thread that does the job's work: calls of other models become part of the trace."""
        ...


class NoTrace:
    """A `Trace` that is kept nowhere."""

    def __init__(self, parent: TraceParent | None = None) -> None:
        self.trace_id = None if parent is None else parent.trace_id

    def describe(self, attributes: Mapping[str, str | int]) -> None:
        pass

    def accept(self) -> None:
        pass

    def begin(self) -> None:
        pass

    def step(self, stage: str, *, is_last: bool) -> None:
        pass

    def end(self, failure: str | None) -> None:
        pass

    def calls(self) -> AbstractContextManager[None]:
        return nullcontext()


class JobTrace:
    """A `Trace` as spans.

    The time since the step before belongs to the stage of a step, as in the metrics. So a call may be made before
    it is known in which stage: after the last step of one, in the next, which is named later; otherwise in the one
    that goes on, whose end is then not before the call's.
    """

    def __init__(self, tracer: Tracer, parent: TraceParent | None) -> None:
        from opentelemetry.trace import SpanKind

        self._tracer = tracer
        self._lock = threading.Lock()
        self._job = tracer.start_span(JOB, remote_context(parent), SpanKind.SERVER)
        self._queued: Span | None = None
        self._stage: Span | None = None
        self._name: str | None = None  # of the stage; None until it is known
        self._edge = time.time_ns()  # where the stage that is still to come begins

    @property
    def trace_id(self) -> str:
        return trace_parent(self._job).trace_id

    def describe(self, attributes: Mapping[str, str | int]) -> None:
        self._job.set_attributes({f"gen3c.{name}": value for name, value in attributes.items()})

    def accept(self) -> None:
        with self._lock:
            self._queued = self._child(QUEUED, None)

    def begin(self) -> None:
        with self._lock:
            self._edge = time.time_ns()
            self._end_queued()

    def step(self, stage: str, *, is_last: bool) -> None:
        with self._lock:
            now = time.time_ns()
            if self._stage is not None and self._name is None:
                self._stage.update_name(stage)
            elif self._stage is None or self._name != stage:
                self._end_stage()
                self._stage = self._child(stage, self._edge)
            self._name = stage
            self._edge = max(self._edge, now)
            if is_last:
                self._end_stage()

    def end(self, failure: str | None) -> None:
        from opentelemetry.trace import StatusCode

        with self._lock:
            self._edge = time.time_ns()
            self._end_queued()
            self._end_stage()
            if failure is not None:
                self._job.set_status(StatusCode.ERROR, failure)
            self._job.end(self._edge)

    def calls(self) -> AbstractContextManager[None]:
        return calls_of(self)

    @contextmanager
    def call(self, model: str) -> Iterator[dict[str, str]]:
        with self._lock:
            if self._stage is None:
                self._stage, self._name = self._child(NO_STAGE, self._edge), None
            stage = self._stage
        try:
            with call_span(self._tracer, stage, model) as parameters:
                yield parameters
        finally:
            with self._lock:
                self._edge = time.time_ns()

    def _child(self, name: str, start: int | None) -> Span:
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(name, set_span_in_context(self._job), start_time=start)

    def _end_queued(self) -> None:
        if self._queued is not None:
            self._queued.end(self._edge)
            self._queued = None

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._stage.end(self._edge)
            self._stage = self._name = None
