"""Jobs in line: admission, cancellation, deadlines and the end of the server. Knows nothing of Triton or of GEN3C."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gen3c_client.contract import Error, Event, Progress

from gen3c_server.errors import JobError

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

    def should_stop(self) -> bool:
        """Whether work should end at the next step."""
        return self.stop_reason is not None


class JobQueue:
    """Runs jobs one after another on `workers` threads; at most `queued` wait.

    While a job lives there is a file for it in `jobs_dir`. When it should stop, a file of the same name appears in
    `cancel_dir`, for models that work for it elsewhere. Once `drain_token` exists, all jobs are stopped and new ones
    are refused.
    """

    def __init__(
        self,
        jobs_dir: Path,
        cancel_dir: Path,
        drain_token: Path,
        *,
        queued: int,
        workers: int = 1,
        on_change: Callable[[int, int], None] = lambda running, waiting: None,  # noqa: ARG005
    ) -> None:
        """`on_change` is told how many jobs run and wait, at first and after every change; it must not block."""
        self._jobs_dir, self._cancel_dir, self._drain_token = jobs_dir, cancel_dir, drain_token
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
            if self._closed or self._drain_token.exists():
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
            _touch(self._jobs_dir / job.id)
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
                draining = self._drain_token.exists()
                now = time.monotonic()
                for job in (*self._running, *self._waiting):
                    if job.stream.is_cancelled():
                        self._stop(job, JobError("CANCELLED", "The caller cancelled the job."))
                    elif draining:
                        self._stop(job, _shutting_down())
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
            _touch(self._cancel_dir / job.id)

    def _count(self) -> None:
        self._on_change(len(self._running), len(self._waiting))

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._running.discard(job)
            self._count()
        for folder in (self._cancel_dir, self._jobs_dir):
            try:
                (folder / job.id).unlink(missing_ok=True)
            except OSError:
                logger.exception("job %s: its file in %s stays", job.id, folder.name)


def _touch(path: Path) -> None:
    """Leave a token for others. The queue goes on without it: a full disk must not end cancellation for all jobs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        logger.exception("the token %s cannot be written", path.name)


def _shutting_down() -> JobError:
    return JobError("CANCELLED", "The server is shutting down; the job was stopped.", reason="shutdown")


def _end(job: Job, error: JobError | None) -> None:
    try:
        try:
            if error is not None:
                job.stream.send(Error(code=error.code, message=error.message, field=error.field))
        finally:  # a job that cannot be told of its end has ended, too
            job.stream.finish(error)
    except Exception:
        logger.exception("job %s: the caller could not be told of its end", job.id)
