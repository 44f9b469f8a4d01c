"""`gen3c serve` without its command line: run one server until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable

from gen3c_server.launcher.canary import Canary
from gen3c_server.launcher.errors import PreflightError, ServerError, StartInterruptedError
from gen3c_server.launcher.health_server import HealthServer
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.server import to_stderr
from gen3c_server.launcher.status import Status
from gen3c_server.launcher.stop_signals import StopSignals
from gen3c_server.launcher.supervisor import Supervisor

OK, FAILED, PREFLIGHT = 0, 1, 2


def serve(
    options: ServeOptions,
    canary: Canary | None = None,
    note: str = "",
    say: Callable[[str], None] = to_stderr,
) -> int:
    """Starts the server, waits for `canary`, and serves until SIGTERM or SIGINT (a second one kills at once).

    A server that fails after its start is restarted, as `options` say. `note` ends the line that says that the server
    is ready, such as the preset and its weights. Returns the exit code: 0 stopped as asked, 1 the server failed, 2 the
    machine or the options cannot run it.
    """
    status = Status()
    with StopSignals() as signals:
        try:
            with HealthServer(options.host, options.health_port, status) as health:
                Supervisor(options, canary, status, signals, say, health.url, note).run()
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
