"""The chart's pod for CPUs, rendered by Helm's engine and run by podman: the pod itself, without a cluster.

What podman does not do of what a kubelet does is done here: volumes in memory may be written to by all, probes are
called. What it cannot do is left out: a network of the pod's own, hence its ports; restarts, with which podman 4.3
would also run the initial containers again and again.
"""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy.chart import Manifest, Rendered, profile, render
from tests.image.conftest import NAMES, Build
from tests.image.podman import RUN, call, inspect, succeeds

POD = "gen3c-test-kube"
CONTAINER = f"{POD}-server"
PREFIX = "gen3c-test-kube-"  # of podman's volumes
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# As options of `podman run` in podman.RUN: the defaults cannot be had everywhere.
CONFIGURATION = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""


@dataclass(frozen=True)
class Pod:
    """The pod at work."""

    rendered: Rendered
    configuration: Path
    started: float

    def probe(self, name: str) -> tuple[int, str]:
        """What a kubelet would get from the probe: status, or 0 where nobody answers, and the body."""
        server = self.rendered.server()
        get = server[name]["httpGet"]
        port = {one["name"]: one["containerPort"] for one in server["ports"]}[get["port"]]
        return http_get(f"http://127.0.0.1:{port}{get['path']}")

    def port(self, name: str) -> int:
        (found,) = [one["containerPort"] for one in self.rendered.server()["ports"] if one["name"] == name]
        return int(found)

    def log(self) -> str:
        return podman(self.configuration, "logs", CONTAINER)

    def run(self, *command: str, timeout_s: float = 120) -> str:
        """A command in the server's container."""
        return podman(self.configuration, "exec", CONTAINER, *command, timeout_s=timeout_s)

    def stop(self) -> int:
        """As a kubelet does after `preStop`, with the rest of the grace period; the exit code."""
        spec = self.rendered.one("Deployment")["spec"]["template"]["spec"]
        podman(
            self.configuration, "stop", "--time", str(spec["terminationGracePeriodSeconds"]), CONTAINER, timeout_s=200
        )
        return int(inspect("container", CONTAINER)["State"]["ExitCode"])


def http_get(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def rendered_for(build: Build) -> Rendered:
    """The chart with the images of the tests and free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    for target in ("server", "export", "client"):
        build(target)
    registry, _, _ = NAMES["server"].rpartition("/")
    return render(
        profile("values-cpu.yaml"),
        {
            "image": {"registry": registry, "tag": "latest", "pullPolicy": "Never", **{name: name for name in NAMES}},
            "ports": dict(zip(("http", "grpc", "metrics", "health"), ports, strict=True)),
        },
        name=POD,  # of all that podman gets
    )


def pod_of(rendered: Rendered) -> list[Manifest]:
    """What podman plays: the Deployment's pod, its ConfigMap and its claim."""
    spec = json.loads(json.dumps(rendered.one("Deployment")["spec"]["template"]["spec"]))
    spec |= {"hostNetwork": True, "restartPolicy": "Never"}
    for container in (*spec["initContainers"], *spec["containers"]):
        for name in (*PROBES, "ports"):
            container.pop(name, None)
        for mount in container["volumeMounts"]:
            mount["name"] = f"{PREFIX}{mount['name']}"
    for volume in spec["volumes"]:
        volume["name"] = f"{PREFIX}{volume['name']}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}
    return [rendered.one("ConfigMap"), rendered.one("PersistentVolumeClaim"), pod]


@contextmanager
def pod(build: Build, folder: Path) -> Generator[Pod]:
    """Played; its initial containers have ended, and the server's runs."""
    configuration = folder / "containers.conf"
    configuration.write_text(CONFIGURATION)
    rendered = rendered_for(build)
    manifests = pod_of(rendered)
    file = folder / "pod.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    names = [one["metadata"]["name"] for one in manifests[:2]] + [f"{PREFIX}{name}" for name in ("shm", "tmp")]
    remove(names)
    try:
        # A kubelet lets everybody write to an emptyDir.
        for name, place in zip(names[2:], ("/dev/shm", "/tmp"), strict=True):
            call("podman", "volume", "create", name)
            mount = [f"--volume={name}:{place}", "--user=0", "--entrypoint=chmod"]
            call(*RUN, "--rm", *mount, build("server"), "1777", place)
        started = time.monotonic()
        podman(configuration, "kube", "play", "--network=host", str(file), timeout_s=600)
        yield Pod(rendered, configuration, started)
    finally:
        remove(names)


def podman(configuration: Path, *words: str, timeout_s: float = 120) -> str:
    return call("podman", "--runtime", "runc", *words, timeout_s=timeout_s, CONTAINERS_CONF=str(configuration))


def remove(volumes: list[str]) -> None:
    """What an earlier run may have left, too."""
    succeeds("podman", "pod", "rm", "--force", "--ignore", "--time=0", POD)
    for name in volumes:
        succeeds("podman", "volume", "rm", "--force", name)
