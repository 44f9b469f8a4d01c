"""What a launch can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gen3c_server.json_lines import LogFormat
from gen3c_server.launcher.errors import PreflightError
from gen3c_server.launcher.security import Security

MIB = 1 << 20


@dataclass(frozen=True)
class ServeOptions:
    """One embedded server, and how it is supervised. Illegal values raise PreflightError at construction.

    model_repository: folder with one folder a model; it is served in place and never written to.
    host: address that all ports listen on.
    http_port, grpc_port, metrics_port: 1 to 65535, or None to take a free one.
    health_port: the same, of the launcher's own HTTP server.
    run_dir: scratch folder of this server, made if absent. None: a fresh temporary one, removed at the end.
        Of a given one only what the launcher put there is removed, not the log.
    environment: added to the environment of the server and so of its models.
    exit_timeout_s: seconds that a whole stop may take: drain, Triton's own exit, SIGKILL.
    start_timeout_s: seconds until the first inference must have succeeded.
    log_path: the server's log, appended to. None: `triton.log` in the run directory.
    verbose: copy the whole log to standard error, not only its warnings and errors.
    log_format: with "json", lines of the log that are JSON, as models write them, are copied as they are.
    triton: a Triton installation folder (with bin/tritonserver). None: see `find_triton`.
    triton_flags: further flags of `tritonserver`, such as `--cuda-memory-pool-byte-size=0:4294967296`.
    min_shm_bytes: free bytes that /dev/shm must have; tensors between server and models live there.
    canary_interval_s: seconds between the end of a canary and the next one; 0 makes only the first.
    canary_timeout_s: seconds that a canary may take; the first may take what is left of the start timeout.
    stall_timeout_s: seconds of jobs without progress after which the server has failed.
    restarts: how often a server that failed is started again within `restart_window_s` of service; then the
        launch has failed.
    restart_grace_s: seconds that running jobs get to end before a restart.
    security: TLS, and who may call what.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    health_port: int | None = None
    run_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    exit_timeout_s: float = 20.0
    start_timeout_s: float = 300.0
    log_path: Path | None = None
    verbose: bool = False
    log_format: LogFormat = "text"
    triton: Path | None = None
    triton_flags: tuple[str, ...] = ()
    min_shm_bytes: int = 256 * MIB
    canary_interval_s: float = 30.0
    canary_timeout_s: float = 60.0
    stall_timeout_s: float = 900.0
    restarts: int = 3
    restart_window_s: float = 600.0
    restart_grace_s: float = 10.0
    security: Security = field(default_factory=Security)

    def __post_init__(self) -> None:
        uses = {
            "HTTP": self.http_port,
            "gRPC": self.grpc_port,
            "metrics": self.metrics_port,
            "health": self.health_port,
        }
        ports = {use: port for use, port in uses.items() if port is not None}
        for port in ports.values():
            if not 1 <= port <= 65535:
                raise PreflightError(f"Port {port} does not exist; ports are 1 to 65535.")
        if len(set(ports.values())) < len(ports):
            raise PreflightError(
                "HTTP, gRPC, metrics and health need different ports; given were "
                f"{', '.join(f'{port} ({use})' for use, port in ports.items())}."
            )
        for name, seconds in (
            ("exit timeout", self.exit_timeout_s),
            ("start timeout", self.start_timeout_s),
            ("canary timeout", self.canary_timeout_s),
            ("stall timeout", self.stall_timeout_s),
            ("restart window", self.restart_window_s),
        ):
            if not seconds > 0:
                raise PreflightError(f"The {name} is {seconds} s; it must be above 0.")
        for name, seconds in (("canary interval", self.canary_interval_s), ("restart grace", self.restart_grace_s)):
            if not seconds >= 0:
                raise PreflightError(f"The {name} is {seconds} s; legal: from 0.")
        if self.restarts < 0:
            raise PreflightError(f"The number of restarts is {self.restarts}; legal: from 0.")
