"""One Triton server from start to end, as a context manager."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gen3c_server.json_lines import is_json_line, json_line
from gen3c_server.launcher.canary import Canary, CanaryCall
from gen3c_server.launcher.errors import PreflightError, ServerError, StartInterruptedError
from gen3c_server.launcher.find import find_triton
from gen3c_server.launcher.flags import check_flags, command_line
from gen3c_server.launcher.health import ServerFacts, is_ready, server_facts
from gen3c_server.launcher.log import (
    LogReader,
    all_unloaded,
    busy_address,
    failed_models,
    last_lines,
    loading_models,
    of_interest,
)
from gen3c_server.launcher.models import check_repository
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.ports import Ports, reserve_ports
from gen3c_server.launcher.preflight import check_machine, check_platform
from gen3c_server.launcher.process import KILL_RESERVE_S, POLL_S, ServerProcess, describe_exit, wait_until
from gen3c_server.launcher.run_dir import RunDirectory, server_environment

# Running jobs get this share of a stop's time to end by themselves, Triton the rest.
DRAIN_SHARE = 0.6
# Triton exits within a second of its last model's end, or not at all.
LINGER_S = 2.0


def never() -> bool:
    """For callers that do not interrupt."""
    return False


def to_stderr(line: str) -> None:
    """Where messages go unless the caller wants them elsewhere."""
    # A terminal that is gone (SIGHUP) must not keep a stop from going on.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def to_stdout_as_json(line: str) -> None:
    """Every message as a JSON object on standard output; one that is JSON already, as models write them, unchanged."""
    with contextlib.suppress(OSError):
        print(line if is_json_line(line) else json_line("server", message=line), flush=True)


class EmbeddedServer:
    """`with EmbeddedServer(options) as server: server.wait_ready(canary)`.

    Entering checks the machine and starts Triton; leaving stops it within `options.exit_timeout_s` and leaves
    nothing behind: no process, no shared memory, no temporary run directory. Should this process be killed, a
    guard process does the same. Entering raises PreflightError; the methods raise ServerError.
    """

    def __init__(self, options: ServeOptions, say: Callable[[str], None] = to_stderr) -> None:
        """`say` takes the messages for the person at the terminal, one line each."""
        self.options = options
        self.shm_prefix = f"gen3c-{os.getpid()}-{secrets.token_hex(4)}-"
        self._say = say
        self._headers = options.security.http_headers()
        self._stubs: dict[int, str] = {}
        self._ready = False
        self._stopped = False

    def __enter__(self) -> Self:
        options = self.options
        check_platform()
        self.run = RunDirectory(options.run_dir)
        try:
            install = find_triton(options.triton)
            libpython = check_machine(install, options.min_shm_bytes)
            check_flags(install.binary, options.triton_flags)
            check_repository(options.model_repository)
            self.ports: Ports = reserve_ports(options)
            self.run.note_shared_memory(self.shm_prefix)
            self.log_path: Path = (options.log_path or self.run.log).resolve()
            environment = server_environment(
                Path(sys.prefix), self.run.library_path(libpython), self.run.path, dict(options.environment)
            )
            command = command_line(
                install.binary,
                options.model_repository.resolve(),
                self.run.backends(install),
                self.ports,
                self.shm_prefix,
                options.exit_timeout_s,
                options.security.flags(self.run.path),
                options.triton_flags,
            )
            self._log = LogReader(self.log_path)
            self.process = ServerProcess(
                command, environment, self.log_path, self.shm_prefix, self.run.path if self.run.temporary else None
            )
        except PreflightError:
            self.run.remove()
            raise
        except OSError as error:
            self.run.remove()
            raise PreflightError(f"The server cannot be started: {error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure or Ctrl-C there is no job worth waiting for.
        self.stop(hurry=(lambda: True) if kind is not None else never)

    @property
    def grpc_url(self) -> str:
        return self.ports.url(self.ports.grpc)

    @property
    def http_url(self) -> str:
        return self.ports.http_url

    @property
    def metrics_url(self) -> str:
        return self.ports.url(self.ports.metrics)

    def wait_ready(self, canary: Canary | None = None, interrupted: Callable[[], bool] = never) -> ServerFacts:
        """Returns when every model is loaded and `canary` has made an inference.

        Ready alone says little: Triton reports it while a model's process is dead or its outputs are empty.
        Raises ServerError with the cause, StartInterruptedError when `interrupted` says so.
        """
        deadline = time.monotonic() + self.options.start_timeout_s
        self._wait_for(lambda: is_ready(self.http_url, self._headers), deadline, interrupted, "loading its models")
        if canary is not None:
            self._run_canary(canary, deadline, interrupted)
        try:
            facts = server_facts(self.http_url, self._headers)
        except (OSError, http.client.HTTPException) as error:
            self.check()
            raise ServerError(f"The server was ready and does not answer any more: {error}.") from error
        self._stubs = self.process.stubs()
        self._ready = True
        return facts

    def check(self) -> None:
        """Raises ServerError if Triton or a model's process has ended. Copies new log lines to the terminal."""
        self._copy_log()
        code = self.process.exit_code()
        if code is not None:
            raise ServerError(self._why_ended(code))
        dead = sorted({model for pid, model in self._stubs.items() if not self.process.lives(pid)})
        if dead:
            # Triton (24.10) neither restarts it nor says that it is not ready.
            raise ServerError(
                f"The process of model {', '.join(dead)} died, so every request to it would fail; perhaps memory "
                f"ran out. The last lines of the log:\n{last_lines(self._log.text())}",
                "process_died",
            )

    def stop(self, hurry: Callable[[], bool] = never) -> None:
        """Drains, stops and cleans up, within `exit_timeout_s`; at once when `hurry` says so. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        deadline = time.monotonic() + self.options.exit_timeout_s
        if self.process.exit_code() is None and not hurry():
            self._stop_gently(deadline, hurry)
        if not self.process.kill(max(KILL_RESERVE_S, deadline - time.monotonic())):
            self._say(f"Processes of the server could not be killed: process group {self.process.group}.")
        self._copy_log()
        self.run.remove()

    def give_up(self, hurry: Callable[[], bool] = never, at_once: Callable[[], bool] = never) -> None:
        """Stops a server that has failed, so that another can be started.

        Running jobs have `restart_grace_s` to end, less when `hurry` says so; then they, as waiting and new ones at
        once, get an error after which the same job may be sent again.
        """
        self.run.restart.touch()
        if self.process.exit_code() is None:
            wait_until(self._has_no_jobs, self.options.restart_grace_s, hurry)
            self.run.drain.touch()
            wait_until(self._has_no_jobs, self.options.exit_timeout_s * DRAIN_SHARE, at_once)
            # What the jobs were told is on its way. Triton does not exit by itself while a process of it is dead.
            self.process.terminate(LINGER_S, at_once)
        self.stop(hurry=lambda: True)

    def _has_no_jobs(self) -> bool:
        return self.run.running_jobs() == 0

    def _stop_gently(self, deadline: float, hurry: Callable[[], bool]) -> None:
        self.run.drain.touch()
        share = self.options.exit_timeout_s * DRAIN_SHARE
        if not wait_until(self._has_no_jobs, share, hurry) and not hurry():
            self._say(f"{self.run.running_jobs()} job(s) still ran after {share:.0f} s and will be cut off.")
        left = deadline - time.monotonic() - min(KILL_RESERVE_S, self.options.exit_timeout_s / 4)
        if not self.process.terminate(max(left, 0.0), self._lingers(hurry)) and not hurry():
            self._say("Triton outlived its models, as it does with an open stream of a client; it was killed.")

    def _lingers(self, hurry: Callable[[], bool]) -> Callable[[], bool]:
        """`hurry`, and also once Triton has had time to exit after its last model and request ended.

        A stream that a client cancelled keeps Triton 24.10 from exiting, with nothing left to lose.
        """
        since: list[float] = []

        def lingers() -> bool:
            if not since and all_unloaded(self._log.text()):
                since.append(time.monotonic())
            return hurry() or (bool(since) and time.monotonic() - since[0] > LINGER_S)

        return lingers

    def _wait_for(self, done: Callable[[], bool], deadline: float, interrupted: Callable[[], bool], doing: str) -> None:
        while not done():
            self.check()
            if interrupted():
                raise StartInterruptedError
            if time.monotonic() > deadline:
                loading = loading_models(self._log.text())
                which = f" Still loading: {', '.join(loading)}." if loading else ""
                raise ServerError(
                    f"The server was not ready after {self.options.start_timeout_s:g} s, {doing}.{which} "
                    f"The last lines of its log:\n{last_lines(self._log.text())}"
                )
            time.sleep(POLL_S)

    def _run_canary(self, canary: Canary, deadline: float, interrupted: Callable[[], bool]) -> None:
        call = CanaryCall(canary, self.grpc_url, max(deadline - time.monotonic(), POLL_S))
        self._wait_for(call.has_ended, deadline, interrupted, "making its first inference")
        if call.failure is not None:
            raise ServerError(
                f"The server started, but its first inference failed: {call.failure}", "canary_failed"
            ) from call.failure

    def _why_ended(self, code: int) -> str:
        text = self._log.text()
        if not self._ready:
            failed = failed_models(text)
            if failed:
                reasons = "\n".join(f"  {model}: {reason}" for model, reason in sorted(failed.items()))
                return f"The server did not start because {len(failed)} model(s) failed to load:\n{reasons}"
            address = busy_address(text)
            if address:
                return f"The server did not start because another program took {address} meanwhile."
        when = "died" if self._ready else "died while it started"
        return f"Triton {when} ({describe_exit(code)}). The last lines of its log:\n{last_lines(text)}"

    def _copy_log(self) -> None:
        for line in self._log.new_lines():
            if self.options.verbose or (self.options.log_format == "json" and is_json_line(line)):
                self._say(line)
                continue
            # Before ready, what failed is told once, as the reason of the failed start.
            message = of_interest(line) if self._ready else None
            if message:
                self._say(f"triton: {message}")
