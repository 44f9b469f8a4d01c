"""The pod that the chart renders for CPUs, run for real; each of its probes by hand."""

import subprocess
import threading
import time
from collections.abc import Generator
from pathlib import Path

import av
import pytest

from tests.image import containers, kube
from tests.image.conftest import Build
from tests.image.podman import RUN, UID, call

START_TIMEOUT_S = 240


@pytest.fixture(scope="module")
def pod(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Generator[kube.Pod]:
    with kube.pod(build, tmp_path_factory.mktemp("kube")) as found:
        yield found


def test_the_probes_tell_the_start(pod: kube.Pod) -> None:
    """Alive before it has started, and ready with it."""
    alive, codes = False, set()
    while (code := pod.probe("startupProbe")[0]) != 200:
        assert time.monotonic() - pod.started < START_TIMEOUT_S, pod.log()
        codes.add(code)
        alive |= pod.probe("livenessProbe")[0] == 200
        assert pod.probe("readinessProbe")[0] != 200 or pod.probe("startupProbe")[0] == 200
        time.sleep(0.2)
    print(f"\npod: built and started in {time.monotonic() - pod.started:.0f} s")
    assert codes == {0, 503}
    assert alive
    assert [pod.probe(name)[0] for name in kube.PROBES] == [200, 200, 200]


def test_it_runs_without_rights(pod: kube.Pod) -> None:
    lines = pod.run("cat", "/proc/1/status").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == status["Gid"] == [str(UID)] * 4
    assert {status[name][0] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == ["1"]
    assert pod.run("cat", "/proc/1/cmdline").split("\0")[1:3] == ["/opt/gen3c/bin/gen3c", "serve"]
    for folder in ("/", "/build", "/etc/gen3c"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            pod.run("touch", f"{folder}/file")


def test_a_client_gets_a_video(build: Build, pod: kube.Pod, tmp_path: Path) -> None:
    call(*containers.job(build, f"127.0.0.1:{pod.port('grpc')}", tmp_path / "results"), timeout_s=400)
    with av.open(str(tmp_path / "results" / "out" / "video.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 25


def test_the_pod_of_helm_test_finds_it_healthy(build: Build, pod: kube.Pod) -> None:
    (test,) = pod.rendered.of("Pod")
    (container,) = test["spec"]["containers"]
    assert container["image"].rpartition(":")[0] == build("client")
    words = [f"--url=127.0.0.1:{pod.port('grpc')}" if word.startswith("--url=") else word for word in container["args"]]
    assert words != container["args"]
    assert "healthy" in call(*RUN, "--rm", "--read-only", "--cap-drop=ALL", build("client"), *words)


def test_both_ports_have_metrics(pod: kube.Pod) -> None:
    for name, metric in (("metrics", "gen3c_jobs_total"), ("health", "gen3c_server_ready 1")):
        status, text = kube.http_get(f"http://127.0.0.1:{pod.port(name)}/metrics")
        assert status == 200
        assert metric in text


def test_another_pod_of_the_release_finds_the_build(build: Build, pod: kube.Pod, tmp_path: Path) -> None:
    """The initial container once more, as of a pod that shares the claim: it makes nothing."""
    (container,) = pod.rendered.one("Deployment")["spec"]["template"]["spec"]["initContainers"]
    claim = pod.rendered.one("PersistentVolumeClaim")["metadata"]["name"]
    place = Path(call("podman", "volume", "inspect", "--format={{.Mountpoint}}", claim).strip())
    files = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert any(path.name == "manifest.json" for path in files)
    config = tmp_path / "deployment.yaml"
    config.write_text(pod.rendered.one("ConfigMap")["data"]["deployment.yaml"])
    config.chmod(0o644)
    started = time.monotonic()
    call(
        *(*RUN, "--rm", "--read-only", "--cap-drop=ALL", "--tmpfs=/tmp", f"--volume={claim}:/build"),
        *(f"--volume={config}:/etc/gen3c/deployment.yaml:ro", build("export"), *container["args"]),
        timeout_s=300,
    )
    print(f"\nbuild: found in {time.monotonic() - started:.1f} s")
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    networks = [path for path in files if path.suffix == ".onnx"]
    assert len(networks) >= 4
    assert {path: after[path] for path in networks} == {path: files[path] for path in networks}


def test_a_pod_that_goes_ends_its_job_and_takes_no_other(build: Build, pod: kube.Pod, tmp_path: Path) -> None:
    """What a kubelet does: `preStop`, then SIGTERM."""
    url = f"127.0.0.1:{pod.port('grpc')}"
    command = containers.job(build, url, tmp_path / "results", "--json")
    hook = pod.rendered.server()["lifecycle"]["preStop"]["exec"]["command"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as client:
        assert client.stdout is not None
        watchdog = threading.Timer(400, client.kill)
        watchdog.start()
        for line in client.stdout:
            if '"progress"' in line and '"queued"' not in line:
                break
        drain = threading.Thread(target=pod.run, args=hook, kwargs={"timeout_s": 300})
        drain.start()
        while pod.probe("readinessProbe")[0] == 200:
            assert drain.is_alive()
            time.sleep(0.1)
        refused = subprocess.run(
            [word.replace("gen3c-test-client", "gen3c-test-late-client") for word in command],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        client.stdout.read()
        assert client.wait() == 0
        watchdog.cancel()
    drain.join()
    assert refused.returncode == 3, refused.stderr
    assert "UNAVAILABLE" in refused.stdout
    assert (tmp_path / "results" / "out" / "video.mp4").is_file()
    started = time.monotonic()
    assert pod.stop() == 0
    print(f"\npod: stopped in {time.monotonic() - started:.1f} s after its last job")
