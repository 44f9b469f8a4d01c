"""The three ports of a server: free ones are picked, given ones must be free."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from gen3c_server.launcher.errors import PreflightError
from gen3c_server.launcher.options import ServeOptions


@dataclass(frozen=True)
class Ports:
    """Where one server listens."""

    host: str
    http: int
    grpc: int
    metrics: int
    http_host: str

    @property
    def http_url(self) -> str:
        """As `url`; HTTP may listen elsewhere than the others."""
        return dialled(self.http_host, self.http)

    def url(self, port: int) -> str:
        """`host:port` as a client on this machine dials it."""
        return dialled(self.host, port)


def dialled(host: str, port: int) -> str:
    """`host:port` as a client on this machine dials what listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reserve_ports(options: ServeOptions) -> Ports:
    """The ports to start with. Triton refuses port 0, so free ones are found by binding them for a moment.

    Raises PreflightError naming the port that is busy and its use.
    """
    wanted = {"HTTP": options.http_port, "gRPC": options.grpc_port, "metrics": options.metrics_port}
    http_host = options.security.http_host(options.host)
    bound: list[socket.socket] = []
    try:
        numbers = []
        # The given ones first, so that a free port picked for one use is not the port given for another.
        for use, port in sorted(wanted.items(), key=lambda item: item[1] is None):
            host = http_host if use == "HTTP" else options.host
            bound.append(listen(host, port, use))
            numbers.append((use, int(bound[-1].getsockname()[1])))
    finally:
        for listener in bound:
            listener.close()
    found = dict(numbers)
    return Ports(options.host, found["HTTP"], found["gRPC"], found["metrics"], http_host)


def listen(host: str, port: int | None, use: str) -> socket.socket:
    """A socket that listens; None takes a free port. Raises PreflightError with the option of that `use`."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # As Triton does: connections of an earlier server in TIME_WAIT are no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port or 0))
        listener.listen(1)
    except (OSError, UnicodeError) as error:
        listener.close()
        option = f"--{use.lower()}-port"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PreflightError(
                f"Port {port} ({use}) on {host} is in use by another program. Stop it, or choose another "
                f"port with {option} (0 takes a free one)."
            ) from error
        if isinstance(error, PermissionError):
            raise PreflightError(
                f"Port {port} ({use}) needs more rights than this user has; choose one above 1023 with {option}."
            ) from error
        raise PreflightError(f"The server cannot listen on {host}:{port or 0} ({use}): {error}.") from error
    return listener
