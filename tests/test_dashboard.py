"""Dashboard, alerts and Prometheus' configuration fit what the server tells, and the tools that read them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring import DASHBOARD, FOLDER, OF_GPUS, Query, alerts, queries
from tests.test_docker import compose
from tests.test_docs import DOCS, section

SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}


def test_the_dashboard_is_what_its_script_writes() -> None:
    code = "import dashboard; print(dashboard.text(), end='')"
    written = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True, timeout=60
    )
    assert written.stdout == DASHBOARD.read_text(), "run `make dashboard`"


@pytest.mark.parametrize("query", [*queries(), *alerts()], ids=str)
def test_a_query_names_metrics_that_are_documented(query: Query) -> None:
    rows = re.findall(r"^\| `(gen3c_\w+)` \| (\w+) \|", (DOCS / "deployment.md").read_text(), re.MULTILINE)
    told = {f"{name}{suffix}" for name, kind in rows for suffix in SUFFIXES[kind]}
    ours = {name for name in query.metrics if name.startswith("gen3c_")}
    assert ours <= told
    assert query.metrics or "up{" in query.expression


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    names = set(re.findall(r"^\| `(gen3c_\w+)` \|", (DOCS / "deployment.md").read_text(), re.MULTILINE))
    shown = {name for query in queries() for name in query.metrics}
    assert {name for name in names if not any(one.startswith(name) for one in shown)} == set()


def test_the_figures_of_a_gpu_are_shown_and_nothing_else_needs_one() -> None:
    named = {name for query in (*queries(), *alerts()) for name in query.metrics}
    assert {name for name in named if "gpu" in name} == OF_GPUS


def test_panels_do_not_overlap() -> None:
    """Grafana moves those that do."""
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_own_checks_pass(words: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool, of Debian's package prometheus, is not installed; make image-test needs it")
    ended = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_alert_says_what_is_wrong_and_where_to_look_and_has_been_tried() -> None:
    rules: list[Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    tried = set(re.findall(r"alertname: (\w+)", (FOLDER / "alerts_test.yml").read_text()))
    assert {rule["alert"] for rule in rules} == tried


def test_targets_are_the_server_s_ports() -> None:
    scrapes = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for scrape in scrapes for config in scrape["static_configs"] for target in config["targets"]]
    published = {port.rpartition(":")[2] for port in compose()["services"]["server"]["ports"]}
    assert [target.partition(":")[0] for target in targets] == ["server", "server"]
    assert {target.partition(":")[2] for target in targets} <= published


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    services = compose("compose.monitoring.yaml")["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    places = {there: FOLDER.parent / here for here, there in mounts.items() if here.startswith("./")}
    provisioning = places["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "gen3c.yml").read_text())["providers"]
    assert DASHBOARD.parent == places[provider["options"]["path"]]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in services["prometheus"]["volumes"])
    configured = Path(next(one for one in services["prometheus"]["command"] if "config.file" in one).partition("=")[2])
    files = {Path(there): FOLDER.parent / here for here, there in mounts.items() if here.startswith("./")}
    assert files[configured] == FOLDER / "prometheus.yml"
    assert files[configured.parent / "alerts.yml"] == FOLDER / "alerts.yml"


def test_every_alert_is_documented_and_no_other() -> None:
    table = section(DOCS / "containers.md", "Monitoring")
    assert re.findall(r"^\| `(Gen3c\w+)` \|", table, re.MULTILINE) == [query.place for query in alerts()]
