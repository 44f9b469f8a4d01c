"""The real Prometheus over the real server: the configuration that ships, and every query of the dashboard."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from gen3c_client.transport import Client

from tests.conftest import build_tiny
from tests.image.containers import free_ports
from tests.monitoring import FOLDER, OF_GPUS, alerts, queries
from tests.server.conftest import SmallJob, run
from tests.test_docs import BIN, ENVIRONMENT

SECONDS = 240  # until the server is ready


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """The finite ones of an instant query."""
        found = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in found if math.isfinite(value)]

    def wait(self, expression: str, seconds: float = 60) -> list[float]:
        """The values of a query once it has any."""
        deadline = time.monotonic() + seconds
        while not (values := self.values(expression)):
            assert time.monotonic() < deadline, f"{expression} gives nothing"
            time.sleep(0.5)
        return values


def require_prometheus() -> None:
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        pytest.fail(
            f"This test needs {' and '.join(missing)}. On Debian: apt-get install --no-install-recommends prometheus",
            pytrace=False,
        )


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`gen3c serve`; its ports by the names of prometheus.yml, and its gRPC address."""
    require_prometheus()
    built = build_tiny(tmp_path_factory.mktemp("build"))
    names = ("http-port", "grpc-port", "metrics-port", "health-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [BIN / "gen3c", "serve", "--model-repository", built, "--canary-interval", "2"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    with log.open("w") as out, running(command, out) as process:
        deadline = time.monotonic() + SECONDS
        while "Ready: " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield {
            "server:8002": f"127.0.0.1:{ports['metrics-port']}",
            "server:8003": f"127.0.0.1:{ports['health-port']}",
            "grpc": f"127.0.0.1:{ports['grpc-port']}",
        }


@pytest.fixture(scope="module")
def prometheus(serving: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the configuration that ships, but these ports, and every second; it has seen a job."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = (FOLDER / "prometheus.yml").read_text().replace(" 15s", " 1s")
    for name in ("server:8002", "server:8003"):
        assert name in configuration
        configuration = configuration.replace(name, serving[name])
    (folder / "prometheus.yml").write_text(configuration)
    shutil.copy(FOLDER / "alerts.yml", folder)
    (port,) = free_ports(1)
    command = ["prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("w") as out, running(command, out, folder) as process:
        found = Prometheus(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 30
        while True:
            try:
                found.get("status/runtimeinfo")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        # What has never been seen at 0 has no increase.
        found.wait('gen3c_jobs_total{outcome="completed"} == 0')
        found.wait("gen3c_server_ready == 1")
        run(Client(serving["grpc"]), SmallJob())
        found.wait('gen3c_jobs_total{outcome="completed"} == 1')
        yield found


@contextmanager
def running(command: list[Any], out: IO[str], cwd: Path = Path("/")) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [str(word) for word in command], cwd=cwd, env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    asked = [query for query in queries() if not query.metrics & OF_GPUS]
    for query in asked:
        prometheus.wait(query.expression)
    print(f"\n{len(asked)} queries of the dashboard have data; not run, as they are of a GPU:")
    for query in queries():
        if query not in asked:
            print(f"  {query}")
            assert prometheus.values(query.expression) == []
    assert {name for query in queries() if query not in asked for name in query.metrics} == OF_GPUS


def test_the_figures_are_those_of_the_job(prometheus: Prometheus) -> None:
    assert prometheus.values("gen3c_job_frames_sum") == [25]
    assert prometheus.values("gen3c_job_source_views_sum") == [SmallJob().views]
    (completed,) = prometheus.values('sum(increase(gen3c_jobs_total{outcome="completed"}[5m]))')
    assert 0.9 < completed < 2  # Prometheus extrapolates to the window's ends
    (step,) = prometheus.values(
        next(query.expression for query in queries() if query.place == "Denoising step: median")
    )
    assert 0 < step < 60


def test_both_targets_are_up_and_no_alert_is_out_of_order_or_firing(prometheus: Prometheus) -> None:
    targets = prometheus.get("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"]: target["health"] for target in targets} == {
        "gen3c-triton": "up",
        "gen3c-launcher": "up",
    }
    (group,) = prometheus.get("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [query.place for query in alerts()]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert prometheus.get("alerts")["alerts"] == []


def test_promtool_takes_the_configuration() -> None:
    """As tests/test_dashboard.py, where Prometheus need not be installed."""
    require_prometheus()
    for words in ("check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"):
        subprocess.run(["promtool", *words.split()], cwd=FOLDER, check=True, capture_output=True)
