"""`gen3c serve` without its command line: run one server until it is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from gen3c_server.launcher.errors import PreflightError, ServerError, StartInterruptedError
from gen3c_server.launcher.health import ServerFacts
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.server import Canary, EmbeddedServer, to_stderr

OK, FAILED, PREFLIGHT = 0, 1, 2
WATCH_S = 0.2


class StopSignals:
    """Counts SIGTERM, SIGINT and SIGHUP while entered. One asks for a stop, a second for a stop at once.

    A counter and polling, not an Event: setting an Event in a handler can deadlock with a wait on it.
    Outside the main thread Python has no signal handlers, and nothing is counted.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in self.NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> bool:
        return self.count >= 1

    def at_once(self) -> bool:
        return self.count >= 2

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def serve(
    options: ServeOptions,
    canary: Canary | None = None,
    note: str = "",
    say: Callable[[str], None] = to_stderr,
) -> int:
    """Starts the server, waits for `canary`, and serves until SIGTERM or SIGINT (a second one kills at once).

    `note` ends the line that says that the server is ready, such as the preset and its weights. Returns the
    exit code: 0 stopped as asked, 1 the server failed or died, 2 the machine or the options cannot run it.
    """
    with StopSignals() as signals:
        try:
            with EmbeddedServer(options, say) as server:
                facts = server.wait_ready(canary, signals.stop)
                say(_ready_line(server, facts, note))
                while not signals.stop():
                    server.check()
                    time.sleep(WATCH_S)
                say("Stopping; again to stop at once.")
                server.stop(hurry=signals.at_once)
        except PreflightError as error:
            say(str(error))
            return PREFLIGHT
        except ServerError as error:
            say(str(error))
            if options.log_path is None and options.run_dir is None:
                say("The whole log is gone with the temporary run directory; --log-file keeps it.")
            return FAILED
        except StartInterruptedError:
            say("Stopped before the server was ready.")
    return OK


def _ready_line(server: EmbeddedServer, facts: ServerFacts, note: str) -> str:
    return (
        f"Ready: gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}; "
        f"Triton {facts.version}; models {', '.join(facts.models)}" + (f"; {note}" if note else "")
    )
