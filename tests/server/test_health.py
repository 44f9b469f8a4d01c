"""`gen3c health`, as a container's health check calls it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gen3c_server.canary import check
from gen3c_server.launcher import EmbeddedServer

PROGRAM = Path(sys.executable).parent / "gen3c"


def health(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "health", "--url", url], capture_output=True, text=True, timeout=90, check=False)


def test_a_server_that_infers_is_healthy(server: EmbeddedServer) -> None:
    ended = health(server.grpc_url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"The server at {server.grpc_url} is healthy: every model answered.\n"


def test_who_asks_while_another_does_is_answered_too(server: EmbeddedServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len({str(done) for done in pool.map(lambda _: check(server.grpc_url), range(4))}) == 1


def test_where_no_server_is_nothing_is_healthy() -> None:
    ended = health("127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("The probe of the server at 127.0.0.1:1 failed: ")
    assert "Traceback" not in ended.stderr
