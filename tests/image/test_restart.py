"""A model's process dies in the hardened container: the launcher, process 1, restarts the server inside it."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.image import containers
from tests.image.conftest import Build

SEEN_S, BACK_S = 10.0, 60.0
# What the image has no program for: SIGKILL to the process of a model, which is this script's argument.
KILL = """
import os, pathlib, signal, sys
for folder in pathlib.Path("/proc").iterdir():
    if folder.name.isdigit():
        words = (folder / "cmdline").read_bytes().split(b"\\0")
        if words[0].endswith(b"_stub") and f"/{sys.argv[1]}/".encode() in words[1]:
            os.kill(int(folder.name), signal.SIGKILL)
            print(folder.name)
"""


@pytest.fixture
def server(build: Build, built: str) -> Generator[containers.Server]:
    with containers.server(build, built, "gen3c-test-server-to-fail") as server:
        yield server


def until(server: containers.Server, status: int, timeout_s: float) -> float:
    """The seconds until /ready has that status."""
    started = time.monotonic()
    while server.page("/ready")[0] != status:
        assert time.monotonic() - started < timeout_s, server.log()
        time.sleep(0.1)
    return time.monotonic() - started


def test_a_dead_model_is_back_and_its_job_is_told_to_come_again(
    build: Build, server: containers.Server, tmp_path: Path
) -> None:
    assert server.page("/ready") == (200, "The server is ready.\n")
    command = containers.job(build, server.url, tmp_path / "results", "--json", "--steps", "900")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as client:
        assert client.stdout is not None
        watchdog = threading.Timer(300, client.kill)
        watchdog.start()
        for line in client.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["stage"] == "denoise":
                break
        assert server.run("python3", "-c", KILL, "dit").strip().isdigit()
        killed = time.monotonic()
        seen = until(server, 503, SEEN_S)
        events = [json.loads(line) for line in client.stdout]
        code = client.wait()
        watchdog.cancel()
    assert (code, events[-1]["event"], events[-1]["code"]) == (3, "error", "UNAVAILABLE"), events[-1]
    until(server, 200, BACK_S - (time.monotonic() - killed))
    print(f"\nseen after {seen:.1f} s, back after {time.monotonic() - killed:.1f} s; the job was told: {events[-1]}")
    metrics = server.page("/metrics")[1]
    assert re.search(r'^gen3c_server_restarts_total\{cause="process_died"\} 1\.0$', metrics, re.MULTILINE)
    assert re.search(r"^gen3c_server_ready 1\.0$", metrics, re.MULTILINE)
    assert "every model answered" in server.run("gen3c", "health")
    assert server.run("cat", "/proc/1/cmdline").split("\0")[1:3] == ["/opt/gen3c/bin/gen3c", "serve"]
