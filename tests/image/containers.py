"""The containers of the tests: a build in a volume, a server that serves it, a client with a job."""

import socket
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.image import compose
from tests.image.conftest import Build
from tests.image.podman import RUN, call, inspect, succeeds
from tests.launcher_pages import page

START_TIMEOUT_S = 240
# In the client's image, too.
CLIP = "/opt/gen3c/lib/python3.11/site-packages/gen3c/samples/courtyard.mp4"


@dataclass(frozen=True)
class Server:
    """A server that has said `Ready`."""

    name: str
    url: str
    health: str  # of the launcher's pages

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the launcher."""
        return page(self.health, path)

    def log(self) -> str:
        """Both streams."""
        ended = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True, cwd="/", check=True)
        return ended.stdout + ended.stderr

    def run(self, *command: str) -> str:
        """A command in the container."""
        return call("podman", "--runtime", "runc", "exec", self.name, *command)


@contextmanager
def volume(build: Build) -> Generator[str]:
    """A volume that the exporter has filled."""
    name = "gen3c-test-build"
    call("podman", "volume", "rm", "--force", name)
    call("podman", "volume", "create", name)
    try:
        started = time.monotonic()
        command = compose.service("export")["command"]
        call(
            *(*RUN, "--rm", *compose.hardening("export"), f"--volume={name}:/build", build("export"), *command),
            timeout_s=600,
        )
        print(f"\nexport: {time.monotonic() - started:.0f} s")
        yield name
    finally:
        call("podman", "volume", "rm", "--force", name)


@contextmanager
def server(build: Build, built: str, name: str = "gen3c-test-server", *more: str) -> Generator[Server]:
    """The service `server` of compose.yaml on free ports of the host; `more` are options of podman."""
    call("podman", "rm", "--force", "--ignore", name)
    image = build("server")
    http, grpc, metrics, health = free_ports(4)
    started = time.monotonic()
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", f"--health-port={health}"]
    ports.append("--host=127.0.0.1")
    call(
        *(*RUN, "--detach", f"--name={name}", f"--env=GEN3C_URL=127.0.0.1:{grpc}", *compose.hardening("server"), *more),
        *(f"--volume={built}:/build:ro", image, *compose.service("server")["command"], *ports),
    )
    found = Server(name, f"127.0.0.1:{grpc}", f"127.0.0.1:{health}")
    try:
        while "Ready: " not in found.log():
            assert inspect("container", name)["State"]["Running"], found.log()
            assert time.monotonic() - started < START_TIMEOUT_S, found.log()
            time.sleep(0.5)
        print(f"\nserver: ready after {time.monotonic() - started:.1f} s")
        yield found
    finally:
        call("podman", "rm", "--force", "--ignore", "--time=0", name)


def job(build: Build, url: str, results: Path, *options: str, podman: Sequence[str] = ()) -> list[str]:
    """The command of a client's container that writes to `results`; its name is gen3c-test-client.

    `options` are the client's, `podman` those of the container.
    """
    results.mkdir(exist_ok=True)
    results.chmod(0o777)  # the client runs as a user of its own
    succeeds("podman", "rm", "--force", "--ignore", "gen3c-test-client")
    hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
    return [
        *(*RUN, "--rm", "--name=gen3c-test-client", *hardened, f"--volume={results}:/work", *podman, build("client")),
        *("generate", CLIP, "--max-frames", "4", "--url", url, "--output", "/work/out", *options),
    ]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
