"""Jobs in line: admission, cancellation, deadlines and the end of the server. Knows nothing of Triton or of GEN3C."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gen3c_client.contract import Error, Event, Progress

from gen3c_server.errors import JobError
from gen3c_server.job_tokens import JobTokens

logger = logging.getLogger("gen3c")

_POLL_S = 0.1


class EventStream(Protocol):
    """Where a job's events go."""

    def send(self, event: Event, blob: bytes | None = None) -> None: ...

    def finish(self, error: JobError | None) -> None:
        """The last word; nothing may follow."""

    def is_cancelled(self) -> bool:
        """The caller has gone or has cancelled."""


class Job:
    """One job. `stop_reason` is set by the queue, from another thread than the one that works."""

    def __init__(self, job_id: str, stream: EventStream, work: Callable[["Job"], None], timeout_s: float) -> None:
        self.id = job_id
        self.stream = stream
        self.work = work
        self.timeout_s = timeout_s
        self.started: float | None = None
        self.stop_reason: JobError | None = None
        self.on_event: Callable[[], None] = lambda: None

    def send(self, event: Event, blob: bytes | None = None) -> None:
        """Tell the caller; and, through `on_event`, whoever asks whether jobs get on."""
        self.on_event()
        self.stream.send(event, blob)

    def should_stop(self) -> bool:
        """Whether work should end at the next step."""
        return self.stop_reason is not None


class JobQueue:
    """Runs jobs one after another on `workers` threads; at most `queued` wait.

    `tokens` tell others of the jobs. Once they say that the server drains, all jobs are stopped; that, a restart and
    a closed server refuse new ones and those that wait.
    """

    def __init__(
        self,
        tokens: JobTokens,
        *,
        queued: int,
        workers: int = 1,
        on_change: Callable[[int, int], None] = lambda running, waiting: None,  # noqa: ARG005
    ) -> None:
        """`on_change` is told how many jobs run and wait, at first and after every change; it must not block."""
        self._tokens = tokens
        self._limit = queued
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._workers = workers
        self._on_change = on_change
        self._changed = threading.Condition()
        self._closed = False
        self._count()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Put a job in line; raises JobError UNAVAILABLE if the line is full or the server is about to stop."""
        with self._changed:
            if self._tokens.is_restarting():
                raise _restarting()
            if self._closed or self._tokens.is_draining() or self._tokens.is_closed():
                raise JobError(
                    "UNAVAILABLE",
                    "The server is shutting down; try another one, or again later.",
                    reason="shutdown",
                )
            if len(self._waiting) + len(self._running) >= self._limit + self._workers:
                raise JobError(
                    "UNAVAILABLE",
                    f"The server is busy: {len(self._running)} job(s) running and {len(self._waiting)} waiting, "
                    f"{self._limit} may wait. Try again later.",
                    reason="queue_full",
                )
            ahead = len(self._waiting) + len(self._running)
            job.stream.send(Progress(stage="queued", step=0, total=ahead, message=f"{ahead} job(s) ahead"))
            job.on_event = self._tokens.made_progress
            self._tokens.add(job.id)
            self._waiting.append(job)
            self._count()
            self._changed.notify_all()

    def is_busy(self) -> bool:
        """Whether a job is running."""
        with self._changed:
            return bool(self._running)

    def close(self, timeout_s: float) -> None:
        """Stop everything and wait for the threads."""
        with self._changed:
            self._closed = True
            for job in (*self._running, *self._waiting):
                self._stop(job, _shutting_down())
            self._changed.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self._running.add(job)
                self._count()
                job.started = time.monotonic()
            self._tokens.made_progress()
            try:
                self._run(job)
            finally:
                self._forget(job)

    def _run(self, job: Job) -> None:
        error = job.stop_reason
        try:
            if error is None:
                job.work(job)
        except Exception as failure:
            error = JobError.of(failure)
            if error.code == "CANCELLED" and job.stop_reason is not None:
                error = job.stop_reason
        _end(job, error)

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed and not self._waiting and not self._running:
                    return
                draining, restarting = self._tokens.is_draining(), self._tokens.is_restarting()
                closed = self._tokens.is_closed()
                now = time.monotonic()
                for job in (*self._running, *self._waiting):
                    if job.stream.is_cancelled():
                        self._stop(job, JobError("CANCELLED", "The caller cancelled the job."))
                    elif restarting and (draining or job.started is None):
                        self._stop(job, _restarting())
                    elif draining:
                        self._stop(job, _shutting_down())
                    elif closed and job.started is None:
                        self._stop(job, _closed())
                    elif job.started is not None and now - job.started > job.timeout_s:
                        self._stop(job, JobError("DEADLINE", f"The job took more than {job.timeout_s:g} seconds."))
                dropped = [job for job in self._waiting if job.should_stop()]
                for job in dropped:
                    self._waiting.remove(job)
                if dropped:
                    self._count()
            for job in dropped:
                _end(job, job.stop_reason)
                self._forget(job)
            time.sleep(_POLL_S)

    def _stop(self, job: Job, reason: JobError) -> None:
        if job.stop_reason is None:
            job.stop_reason = reason
            self._tokens.cancel(job.id)

    def _count(self) -> None:
        self._on_change(len(self._running), len(self._waiting))

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._running.discard(job)
            self._count()
        self._tokens.remove(job.id)


def _shutting_down() -> JobError:
    return JobError("CANCELLED", "The server is shutting down; the job was stopped.", reason="shutdown")


def _closed() -> JobError:
    return JobError(
        "UNAVAILABLE",
        "The server is about to stop, and the job had not begun; send it again, to another one or later.",
        reason="shutdown",
    )


def _restarting() -> JobError:
    return JobError(
        "UNAVAILABLE", "A model of the server failed, and the server restarts; send the job again.", reason="shutdown"
    )


def _end(job: Job, error: JobError | None) -> None:
    try:
        try:
            if error is not None:
                job.stream.send(Error(code=error.code, message=error.message, field=error.field))
        finally:  # a job that cannot be told of its end has ended, too
            job.stream.finish(error)
    except Exception:
        logger.exception("job %s: the caller could not be told of its end", job.id)
