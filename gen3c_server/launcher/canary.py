"""Inferences that prove that a server works: one call in a thread, and the series of them while it serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gen3c_server.launcher.errors import ServerError
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.status import Status
from gen3c_server.unanswered import UnansweredError

Canary = Callable[[str, float], object]
"""Makes one real inference on the gRPC server at `host:port` within so many seconds.

Raises whatever says why that failed; UnansweredError if there was no answer in time, or one that puts off."""

# A canary that knows its time ends by itself a little after it.
_SLACK_S = 5.0
MOST_INTERVALS = 10  # that a canary is put off


class CanaryCall:
    """A canary under way, in a thread: a call that never returns cannot hold up a stop or hide a death."""

    def __init__(self, canary: Canary, url: str, timeout_s: float) -> None:
        self._canary, self._url, self._timeout_s = canary, url, timeout_s
        self.failure: Exception | None = None
        self.seconds = 0.0  # that it took, once it has ended
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._call, name="canary", daemon=True)
        self._thread.start()

    def has_ended(self) -> bool:
        """Whether there is an answer, or the time for one is over."""
        if not self._thread.is_alive():
            return True
        if time.monotonic() - self._began < self._timeout_s + _SLACK_S:
            return False
        self.failure = UnansweredError(f"The canary did not end within {self._timeout_s:g} seconds.")
        return True

    def _call(self) -> None:
        try:
            self._canary(self._url, self._timeout_s)
        except Exception as error:
            self.failure = error
        self.seconds = time.monotonic() - self._began


class CanarySeries:
    """Canaries at an interval. `poll` never waits.

    At full size a canary costs as much as a step of a job, so it is put off while jobs make progress, which proves much
    of the same; not for ever, for jobs that all fail make progress, too. And a canary waits behind the calls that jobs
    have under way, which may be long: one that is not answered counts for nothing while jobs make progress. A process
    that died, which the watch sees by itself, is another matter.
    """

    def __init__(
        self,
        canary: Canary,
        url: str,
        options: ServeOptions,
        status: Status,
        makes_progress: Callable[[float], bool],
        say: Callable[[str], None],
    ) -> None:
        """`makes_progress`: whether jobs run and have got on in the last so many seconds."""
        self._canary, self._url, self._options, self._status = canary, url, options, status
        self._makes_progress, self._say = makes_progress, say
        self._call: CanaryCall | None = None
        self._busy = False  # when the canary under way began
        self._told_of_busy = False
        self._last = time.monotonic()  # when a canary ended

    def poll(self) -> None:
        """Starts the next canary when it is time. Raises ServerError if one has failed."""
        if self._options.canary_interval_s == 0:
            return
        if self._call is None:
            if self._is_due():
                self._busy = self._has_excuse()
                self._call = CanaryCall(self._canary, self._url, self._options.canary_timeout_s)
            return
        if not self._call.has_ended():
            return
        call, self._call = self._call, None
        self._last = time.monotonic()
        self._judge(call)

    def _is_due(self) -> bool:
        waited, interval = time.monotonic() - self._last, self._options.canary_interval_s
        return waited >= interval and (waited >= MOST_INTERVALS * interval or not self._makes_progress(interval))

    def _has_excuse(self) -> bool:
        return self._makes_progress(self._options.stall_timeout_s)

    def _judge(self, call: CanaryCall) -> None:
        if call.failure is None:
            self._told_of_busy = False
            self._status.canary_succeeded(call.seconds)
            return
        if isinstance(call.failure, UnansweredError) and (self._busy or self._has_excuse()):
            if not self._told_of_busy:
                self._say(f"{call.failure} Jobs make progress meanwhile, so the server goes on.")
            self._told_of_busy = True
            return
        raise ServerError(f"A canary failed: {call.failure}", "canary_failed") from call.failure
