"""Keeps a server going: watches its processes, makes canaries, and starts it again when it has failed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from gen3c_server.json_lines import json_line
from gen3c_server.launcher.canary import Canary, CanarySeries
from gen3c_server.launcher.errors import Cause, PreflightError, ServerError, StartInterruptedError
from gen3c_server.launcher.health import ServerFacts
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.ports import Ports
from gen3c_server.launcher.process import wait_until
from gen3c_server.launcher.server import EmbeddedServer, never
from gen3c_server.launcher.status import Status
from gen3c_server.launcher.stop_signals import StopSignals

WATCH_S = 0.2
# Before a server that could not even be started is tried again: a port or memory may need a moment.
PAUSE_S = 5.0


class Supervisor:
    """One Triton after another, on the same ports.

    A model alone cannot be started again: Triton would need its load API, through which code can be uploaded.
    """

    def __init__(
        self,
        options: ServeOptions,
        canary: Canary | None,
        status: Status,
        signals: StopSignals,
        say: Callable[[str], None],
        health_url: str,
        note: str = "",
    ) -> None:
        """`note` ends the line that says that the server is ready."""
        self._options = options
        self._canary, self._status, self._signals, self._say = canary, status, signals, say
        self._health_url, self._note = health_url, note
        # Time counts while the server is ready: failed starts, which may take longer than the window, add up.
        self._served_s = 0.0
        self._restarts: deque[float] = deque()  # when there was one, within the window, in seconds served
        self._closed = False  # by `gen3c drain`

    def run(self) -> None:
        """Serves until a stop is asked for.

        Raises PreflightError or ServerError if the first start fails, ServerError if the server failed once too often,
        StartInterruptedError if the stop came before the server was ready.
        """
        while (failure := self._serve_one()) is not None:
            self._count_restart(failure.cause)

    def _serve_one(self) -> ServerError | None:
        """One Triton from its start to its end: None if that was asked for, else why it failed."""
        try:
            with EmbeddedServer(self._options, self._say) as server:
                self._keep_ports(server.ports)
                if self._closed:
                    server.run.closed.touch()
                return self._serve(server)
        except (ServerError, PreflightError, OSError) as error:
            if not self._status.has_started:
                raise
            failure = error if isinstance(error, ServerError) else ServerError(f"The server cannot run: {error}")
            self._tell(failure)
            if failure is not error and wait_until(self._stop, PAUSE_S, never):
                raise StartInterruptedError from error
            return failure

    def _serve(self, server: EmbeddedServer) -> ServerError | None:
        try:
            facts = server.wait_ready(self._canary, self._stop)
        except StartInterruptedError:
            self._status.unready("The server is stopping.")
            raise
        self._say(self._ready_line(server, facts))
        self._status.ready()
        ready_since = time.monotonic()
        try:
            self._watch(server)
        except ServerError as failure:
            self._served_s += time.monotonic() - ready_since
            self._closed = server.run.closed.exists()
            self._tell(failure)
            server.give_up(self._stop, self._at_once)
            if not self._stop():
                return failure
        self._status.unready("The server is stopping.")
        self._say("Stopping; again to stop at once.")
        server.stop(hurry=self._at_once)
        return None

    def _stop(self) -> bool:
        """Whether a stop was asked for. Asked in every loop, and so the launcher's sign of life."""
        self._status.beat()
        return self._signals.stop()

    def _at_once(self) -> bool:
        self._status.beat()
        return self._signals.at_once()

    def _watch(self, server: EmbeddedServer) -> None:
        """Until a stop is asked for. Raises ServerError as soon as something is dead or a canary fails."""
        canaries = None
        if self._canary is not None:
            canaries = CanarySeries(
                self._canary,
                server.grpc_url,
                self._options,
                self._status,
                server.run.makes_progress,
                self._say,
            )
        idle = time.monotonic()  # when there was no job last
        while not self._stop():
            server.check()
            if server.run.running_jobs() == 0:
                idle = time.monotonic()
            self._check_stall(server, time.monotonic() - idle)
            if server.run.closed.exists():
                self._status.unready("The server is about to stop and takes no new job.")
            if canaries is not None:
                canaries.poll()
            time.sleep(WATCH_S)

    def _check_stall(self, server: EmbeddedServer, busy_s: float) -> None:
        """Canaries may pass by what a job hangs in: a thread of the job model, or the geometry that it waits for."""
        stall_s = self._options.stall_timeout_s
        if busy_s > stall_s and not server.run.makes_progress(stall_s):
            raise ServerError(f"No job has got on for {stall_s:g} s (--stall-timeout).", "jobs_stalled")

    def _tell(self, failure: ServerError) -> None:
        if failure.cause == "canary_failed":
            self._status.canary_failed()
        self._status.unready("The server has failed and is being restarted.")
        if self._options.log_format == "json":
            self._say(json_line("server_failed", level="error", cause=failure.cause, message=str(failure)))
        else:
            self._say(str(failure))

    def _count_restart(self, cause: Cause) -> None:
        """Tells of a restart. Raises ServerError if there were too many already."""
        now, options = self._served_s, self._options
        while self._restarts and now - self._restarts[0] > options.restart_window_s:
            self._restarts.popleft()
        if len(self._restarts) >= options.restarts:
            self._status.unready("The server has failed and is not restarted any more.")
            raise ServerError(
                f"The server was restarted {len(self._restarts)} time(s) in the last {options.restart_window_s:g} s of "
                f"service; "
                f"--restarts allows {options.restarts}. It is not restarted any more.",
                cause,
            )
        self._restarts.append(now)
        self._status.restarting(cause)
        count = f"{len(self._restarts)} of {options.restarts} in {options.restart_window_s:g} s"
        self._say(f"Restarting the server ({count}).")

    def _keep_ports(self, ports: Ports) -> None:
        self._options = replace(self._options, http_port=ports.http, grpc_port=ports.grpc, metrics_port=ports.metrics)

    def _ready_line(self, server: EmbeddedServer, facts: ServerFacts) -> str:
        return (
            f"Ready: gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}, "
            f"health {self._health_url}; Triton {facts.version}; models {', '.join(facts.models)}"
            + (f"; {self._note}" if self._note else "")
        )
