"""The command line of `tritonserver`.

Triton exits at once on a flag that it does not know, and releases differ. The flags written here exist in every
release from 24.10 on; a caller's own are checked against what the binary at hand says that it knows.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from gen3c_server.launcher.errors import PreflightError
from gen3c_server.launcher.ports import Ports
from gen3c_server.launcher.security import FLAGS


def command_line(
    binary: Path,
    repository: Path,
    backends: Path,
    ports: Ports,
    shm_prefix: str,
    exit_timeout_s: float,
    security: Iterable[str] = (),
    extra: Iterable[str] = (),
) -> list[str]:
    """The arguments that start the server, program first; `security` are the flags of `security.Security`."""
    return [
        str(binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--http-address={ports.http_host}",
        f"--http-port={ports.http}",
        f"--grpc-address={ports.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={ports.host}",
        f"--metrics-port={ports.metrics}",
        # No loading at run time: the load API can upload code, and a failed model ends the start.
        "--model-control-mode=none",
        "--exit-on-error=true",
        "--strict-readiness=true",
        # What instrumented gRPC clients send becomes the request's parameter of that name.
        "--grpc-header-forward-pattern=^traceparent$",
        # Completing configurations starts every stub twice.
        "--disable-auto-complete-config",
        # Triton's own exit timeout ends in crashes and hangs while a request runs (seen in 24.10), so it lies
        # beyond the launcher's deadline, which kills cleanly.
        f"--exit-timeout-secs={math.ceil(exit_timeout_s) + 5}",
        *security,
        *extra,
    ]


def check_flags(binary: Path, extra: Iterable[str]) -> None:
    """Raises PreflightError for a flag that the launcher sets itself or that this binary does not know."""
    names = [_name(flag) for flag in extra]
    if not names:
        return
    set_here = {_name(flag) for flag in command_line(binary, Path(), Path(), Ports("", 0, 0, 0, ""), "", 0, FLAGS)[1:]}
    # Backend settings are one flag each and may be repeated.
    set_here.discard("--backend-config")
    known = known_flags(binary)
    for name in names:
        if name in set_here:
            raise PreflightError(f"The launcher sets the Triton flag {name} itself; it cannot be given as well.")
        if name not in known:
            raise PreflightError(f"The Triton server {binary} does not know the flag {name!r}.")


def known_flags(binary: Path) -> frozenset[str]:
    """The flags in the binary's own help text."""
    done = subprocess.run(
        [str(binary), "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,  # 24.10 prints its help and exits with 1
    )
    return frozenset(re.findall(r"^\s*(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))


def _name(flag: str) -> str:
    return flag.partition("=")[0]
