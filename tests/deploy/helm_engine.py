"""Helm's own engine: `python -m tests.deploy.helm_engine`, a JSON object in, one out.

A process of its own, because Helm is a Go library: its runtime would put signal handlers into the process of the tests.
"""

import json
import sys
from typing import Any

import helm_python

from tests.deploy.values import merged


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Lints and renders `chart` with `values` and `--set` over them: manifests by template, or why Helm refuses."""
    chart, values = request["chart"], request["values"]
    try:
        for expression in request["set"]:
            values = merged(values, helm_python.parse_set_string(expression))
        with helm_python.Chart.load(chart) as loaded:
            rendered = loaded.render(values, name=request["name"], namespace=request["namespace"])
    except helm_python.HelmError as error:
        return {"error": str(error)}
    report = helm_python.lint(chart, values, strict=True, kube_version=request["kube_version"])
    return {"rendered": rendered, "lint": report}


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
