"""Writes the dashboard grafana/dashboards/gen3c.json (`make dashboard`): every panel is a line or two here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent / "grafana" / "dashboards" / "gen3c.json"
COLUMNS, HEIGHT = 24, 7
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WINDOWS = ("5m", "15m", "1h", "6h", "1d")  # that rates are averaged over, of the variable `window`
DEFAULT_WINDOW = "1h"  # a job of gen3c-7b takes minutes: a shorter one has few


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are PromQL by legend, in which {{label}} is a label's value."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"  # Grafana's name of it
    description: str = ""
    width: int = 8
    kind: str = "timeseries"
    mappings: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # value -> text and colour


def quantiles(histogram: str) -> dict[str, str]:
    """Median and ninetieth percentile of what was observed."""
    return {
        name: f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket[$window])))"
        for name, q in (("median", 0.5), ("90 %", 0.9))
    }


def mean(histogram: str, *by: str) -> str:
    """Mean of what was observed; nothing where nothing was."""
    labels = ", ".join(by)
    total, count = (f"sum by ({labels}) (rate({histogram}_{part}[$window]))" for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def a_call(duration: str) -> str:
    """Mean seconds of one of Triton's durations, by model."""
    return (
        f"sum by (model) (rate(nv_inference_{duration}_duration_us[$window])) / 1e6"
        " / (sum by (model) (rate(nv_inference_request_success[$window])) > 0)"
    )


ROWS: dict[str, tuple[Panel, ...]] = {
    "Service": (
        Panel(
            "Ready",
            {"{{instance}}": "gen3c_server_ready"},
            kind="stat",
            width=4,
            description="Takes jobs: all models live, the last canary succeeded, nothing restarts or stops.",
            mappings={"0": ("not ready", "red"), "1": ("ready", "green")},
        ),
        Panel("Jobs running", {"": "sum(gen3c_jobs_running)"}, kind="stat", width=4),
        Panel("Jobs waiting", {"": "sum(gen3c_jobs_pending)"}, kind="stat", width=4),
        Panel(
            "Restarts",
            {
                "{{cause}}": "sum by (cause) (increase(gen3c_server_restarts_total[$window]))",
                "container": "sum(changes(gen3c_launcher_start_time_seconds[$window]))",
            },
            width=6,
            description="Of the models, by the launcher; and of the whole container.",
        ),
        Panel(
            "Canaries",
            {
                **quantiles("gen3c_canary_duration_seconds"),
                "failures": "sum(increase(gen3c_canary_failures_total[$window]))",
            },
            unit="s",
            width=6,
            description="Seconds of the inference that the launcher makes of every model; and how many failed.",
        ),
    ),
    "Jobs": (
        Panel("Ended, by outcome", {"{{outcome}}": "sum by (outcome) (increase(gen3c_jobs_total[$window]))"}),
        Panel(
            "Running and waiting",
            {"running": "sum(gen3c_jobs_running)", "waiting": "sum(gen3c_jobs_pending)"},
            description="Their sum over running_jobs is what to scale on.",
        ),
        Panel("Wait", quantiles("gen3c_job_wait_seconds"), unit="s", description="Of a job before its work began."),
        Panel(
            "Duration",
            quantiles("gen3c_job_duration_seconds"),
            unit="s",
            description="Work of a completed job, without its wait.",
        ),
        Panel("Source views", {"mean": mean("gen3c_job_source_views"), **quantiles("gen3c_job_source_views")}),
        Panel("Output frames", {"mean": mean("gen3c_job_frames"), **quantiles("gen3c_job_frames")}),
    ),
    "Work": (
        Panel(
            "Pass through a stage, mean",
            {"{{stage}}": mean("gen3c_stage_duration_seconds", "stage")},
            unit="s",
            description="A video of several chunks passes some stages once a chunk.",
        ),
        Panel(
            "Pass through a stage, 90 %",
            {
                "{{stage}}": "histogram_quantile(0.9, sum by (stage, le) "
                "(rate(gen3c_stage_duration_seconds_bucket[$window])))"
            },
            unit="s",
        ),
        Panel("Denoising step", quantiles("gen3c_denoise_step_duration_seconds"), unit="s"),
    ),
    "Triton": (
        Panel(
            "Calls a second, by model",
            {"{{model}}": "sum by (model) (rate(nv_inference_request_success[$window]))"},
            unit="reqps",
            width=6,
        ),
        Panel("Call, mean", {"{{model}}": a_call("request")}, unit="s", width=6),
        Panel(
            "Wait of a call for its model, mean",
            {"{{model}}": a_call("queue")},
            unit="s",
            width=6,
            description="Jobs that run at the same time wait here for each other; their wait for a turn is above.",
        ),
        Panel(
            "Calls that wait or failed",
            {
                "{{model}} waits": "sum by (model) (nv_inference_pending_request_count)",
                "{{model}} failed": "sum by (model) (increase(nv_inference_request_failure[$window]))",
            },
            width=6,
        ),
    ),
    "Memory": (
        Panel(
            "GPU memory",
            {
                "used {{gpu_uuid}}": "nv_gpu_memory_used_bytes",
                "total {{gpu_uuid}}": "nv_gpu_memory_total_bytes",
            },
            unit="bytes",
            description="The 3-D cache has no figure of its own, as no job holds one: the points of one view at a time "
            "are part of this, and of the host's memory on a CPU.",
        ),
        Panel("GPU utilisation", {"{{gpu_uuid}}": "nv_gpu_utilization"}, unit="percentunit"),
        Panel(
            "Memory of the host",
            {"used": "sum(nv_cpu_memory_used_bytes)", "total": "sum(nv_cpu_memory_total_bytes)"},
            unit="bytes",
            description="Of all its processes.",
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The whole, as Grafana reads it."""
    return {
        "uid": "gen3c",
        "title": "gen3c",
        "description": "Jobs, models and memory of gen3c-triton. Written by docker/monitoring/dashboard.py.",
        "tags": ["gen3c"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "window",
                    "label": "averaged over",
                    "type": "interval",
                    "query": ",".join(WINDOWS),
                    "current": {"text": DEFAULT_WINDOW, "value": DEFAULT_WINDOW},
                    "options": [{"text": w, "value": w, "selected": w == DEFAULT_WINDOW} for w in WINDOWS],
                },
            ]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        left = 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + HEIGHT
            number += 1
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": HEIGHT})
            left += panel.width
        top += HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    mappings = {value: {"text": text, "color": color} for value, (text, color) in panel.mappings.items()}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": place,
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                **({"mappings": [{"type": "value", "options": mappings}]} if mappings else {}),
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend or panel.title}
            for i, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text())
    sys.stdout.write(f"{OUTPUT}\n")
