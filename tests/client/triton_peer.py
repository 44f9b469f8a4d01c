"""Starts a real Triton that serves `peer_repository`."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent / "peer_repository"


@dataclass
class Peer:
    """A running server."""

    url: str
    pid: int


@contextmanager
def serve_peer(run_dir: Path, *flags: str) -> Iterator[Peer]:
    """The server that the nvidia-pytriton wheel carries, ready; nothing of it is left after the block."""
    tritonserver = Path(sysconfig.get_path("purelib")) / "pytriton" / "tritonserver"
    if not (tritonserver / "bin" / "tritonserver").exists():
        pytest.skip("the Triton server of the extra 'embedded' (nvidia-pytriton) is not installed")
    backend = run_dir / "backends" / "python"
    backend.mkdir(parents=True)
    stub = tritonserver / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    shipped = tritonserver / "backends" / "python"
    for file in (shipped / "libtriton_python.so", shipped / "triton_python_backend_utils.py", stub):
        (backend / file.name).symlink_to(file)
    port = _free_port()
    shm_prefix = f"gen3c_peer_{os.getpid()}_{port}_"
    command = [
        str(tritonserver / "bin" / "tritonserver"),
        f"--model-repository={REPOSITORY}",
        f"--backend-directory={run_dir / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        "--disable-auto-complete-config",
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--exit-timeout-secs=2",
        *flags,
    ]
    # The stub finds site-packages through the first python3 on PATH, and libpython through LD_LIBRARY_PATH.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = (run_dir / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_ready(process, run_dir / "server.log")
        yield Peer(f"127.0.0.1:{port}", process.pid)
    finally:
        _stop(process)
        for region in Path("/dev/shm").glob(f"{shm_prefix}*"):  # a killed server leaves it
            region.unlink(missing_ok=True)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the server and its stubs, whatever state they are in."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(8)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """By the log, not by a call: the server may want certificates."""
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        if "Started GRPCInferenceService" in log.read_text():
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server was not ready within 30 s:\n{log.read_text()[-3000:]}")
