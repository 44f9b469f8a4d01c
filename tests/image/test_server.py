"""The server's container at work: what it may do, a job, its health, its stop."""

import json
import subprocess
import threading
import time
from collections.abc import Generator
from pathlib import Path

import av
import pytest

from tests.image import compose, containers
from tests.image.conftest import Build
from tests.image.podman import UID, call, inspect

NO_CAPABILITIES = "0000000000000000"


@pytest.fixture(scope="module")
def server(build: Build, built: str) -> Generator[containers.Server]:
    with containers.server(build, built) as server:
        yield server


def test_the_launcher_is_process_1_without_rights(server: containers.Server) -> None:
    lines = server.run("cat", "/proc/1/status").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == [str(UID)] * 4
    assert status["Gid"] == [str(UID)] * 4
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {NO_CAPABILITIES}
    assert status["NoNewPrivs"] == ["1"]
    command = server.run("cat", "/proc/1/cmdline").split("\0")
    assert command[1:3] == ["/opt/gen3c/bin/gen3c", "serve"]


@pytest.mark.parametrize("folder", ["/", "/opt/gen3c", "/build", "/etc", "/scratch"])
def test_nothing_but_tmp_can_be_written_to(server: containers.Server, folder: str) -> None:
    with pytest.raises(AssertionError, match="Read-only file system"):
        server.run("touch", f"{folder}/file")
    server.run("touch", "/tmp/file")


def test_a_health_check_makes_an_inference(server: containers.Server) -> None:
    check = inspect("container", server.name)["Config"]["Healthcheck"]
    assert check["Test"] == compose.service("server")["healthcheck"]["test"]
    started = time.monotonic()
    call("podman", "--runtime", "runc", "healthcheck", "run", server.name)
    print(f"\nhealth check: {time.monotonic() - started:.1f} s")
    with pytest.raises(AssertionError, match=r"The probe of the server at \S+ failed"):
        server.run("gen3c", "health", "--url", "127.0.0.1:1")


def test_a_client_gets_a_video(build: Build, server: containers.Server, tmp_path: Path) -> None:
    results = tmp_path / "results"
    started = time.monotonic()
    call(*containers.job(build, server.url, results), timeout_s=400)
    print(f"\njob: {time.monotonic() - started:.0f} s")
    video = results / "out" / "video.mp4"
    assert video.stat().st_uid == UID
    with av.open(str(video)) as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert frames == [(320, 192)] * 25


@pytest.fixture
def server_to_stop(build: Build, built: str) -> Generator[containers.Server]:
    with containers.server(build, built, "gen3c-test-server-to-stop") as server:
        yield server


def test_a_stop_ends_the_job_in_time(build: Build, server_to_stop: containers.Server, tmp_path: Path) -> None:
    server = server_to_stop
    grace_s = compose.seconds("server", "stop_grace_period")
    command = containers.job(build, server.url, tmp_path / "results", "--json", "--steps", "900")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as client:
        assert client.stdout is not None
        watchdog = threading.Timer(300, client.kill)
        watchdog.start()
        events = []
        for line in client.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "progress" and events[-1]["stage"] == "denoise":
                break
        started = time.monotonic()
        call("podman", "--runtime", "runc", "stop", "--time", str(grace_s), server.name)
        took = time.monotonic() - started
        events += [json.loads(line) for line in client.stdout]
        code = client.wait()
        watchdog.cancel()
    print(f"\nstop: {took:.1f} s; the client ended with {code}: {events[-1]}")
    state = inspect("container", server.name)["State"]
    assert state["ExitCode"] == 0, server.log()
    assert took < grace_s
    assert "Stopping" in server.log()
    assert (code, events[-1]["event"]) in ((0, "done"), (3, "error"), (4, "error"))
    if code:
        assert events[-1]["code"] in ("CANCELLED", "UNAVAILABLE")
        assert not list((tmp_path / "results").rglob("video.mp4"))
