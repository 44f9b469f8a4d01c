"""What docker/monitoring asks Prometheus for."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "docker" / "monitoring"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "gen3c.json"
# A Triton without a GPU has none of these.
OF_GPUS = frozenset({"nv_gpu_memory_total_bytes", "nv_gpu_memory_used_bytes", "nv_gpu_utilization"})


@dataclass(frozen=True)
class Query:
    """One PromQL expression and where it stands."""

    place: str
    expression: str

    @property
    def metrics(self) -> set[str]:
        """Names of metrics; `sum` and labels are none."""
        return set(re.findall(r"\b(?:gen3c|nv)_\w+", self.expression))

    def __str__(self) -> str:
        return self.place


def queries() -> list[Query]:
    """Those of the dashboard, its variables with their defaults."""
    dashboard = json.loads(DASHBOARD.read_text())
    (window,) = [one for one in dashboard["templating"]["list"] if one["name"] == "window"]
    return [
        Query(
            f"{panel['title']}: {target['legendFormat']}", target["expr"].replace("$window", window["current"]["value"])
        )
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def alerts() -> list[Query]:
    """Those of the rules."""
    rules = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    return [Query(rule["alert"], rule["expr"]) for rule in rules]
