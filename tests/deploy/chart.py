"""The chart as Helm renders it: its profiles, the features that can be switched on, and the manifests."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.values import Values, merged

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "gen3c"
PROFILES = tuple(sorted(path.name for path in CHART.glob("values-*.yaml")))
GPU_PROFILES = tuple(name for name in PROFILES if "cpu" not in name)
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
RELEASE, NAMESPACE = "demo", "video"
KUBERNETES = ("1.27", "1.31", "1.37")  # the oldest that Chart.yaml admits, one between, the latest that has schemas

Manifest = dict[str, Any]

SHARED = {"accessModes": ["ReadWriteMany"]}
FEATURES: dict[str, Values] = {
    "defaults": {},
    "several pods": {"replicas": 3, "build": {"claim": SHARED}, "checkpoints": {"claim": SHARED}},
    "spare pod": {"rollout": {"spare": 1}, "build": {"claim": SHARED}, "checkpoints": {"claim": SHARED}},
    "mutual tls": {"tls": {"secret": "certificate", "clientCa": True}, "test": {"tlsSecret": "client"}},
    "access key": {"accessKey": {"secret": "key"}},
    "hpa": {"autoscaling": {"enabled": True}},
    "keda": {"autoscaling": {"enabled": True, "kind": "keda", "prometheus": "http://prometheus.monitoring:9090"}},
    "pod monitor": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "traces": {"traces": {"otlpEndpoint": "http://collector.monitoring:4318/v1/traces"}},
    "existing claims": {"build": {"claim": {"existing": "b"}}, "checkpoints": {"claim": {"existing": "c"}}},
    "export job": {
        "build": {"job": {"enabled": True}, "claim": {"existing": "b"}},
        "checkpoints": {"claim": {"existing": "c"}},
    },
    "deployment file": {
        "deployment": {"limits": {"upload_bytes": 1 << 30, "job_seconds": 7200.5}, "models": {"dit": {"warm_up": True}}}
    },
    "everything else": {
        "image": {"registry": "registry.example.com/video", "tag": "2026-11", "pullSecrets": ["pull"]},
        "build": {"native": True, "kinds": ["vggt=pytorch"]},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "networkPolicy": {"egress": [{"ports": [{"port": 5000}]}], "metrics": []},
        "serviceAccount": {"create": False, "name": "mine"},
        "server": {"extraArgs": ["--verbose"], "extraEnv": [{"name": "A", "value": "1"}]},
        "podLabels": {"team": "video"},
        "podAnnotations": {"note": "x"},
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
    },
    "nothing optional": {
        "networkPolicy": {"enabled": False},
        "disruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
    },
}
DOWNLOAD: Values = {
    "checkpoints": {
        "download": {
            "enabled": True,
            "licencesAccepted": True,
            "tokenSecret": "hub",
            "vggt": {"repository": "facebook/VGGT-1B"},
        }
    }
}
GPU_FEATURES: dict[str, Values] = {"download": DOWNLOAD, "float8": {"build": {"fp8": True}}}
CASES = [*product(PROFILES, FEATURES), *product(GPU_PROFILES, GPU_FEATURES)]  # profile and feature


class Refused(Exception):  # noqa: N818
    """Helm's sentence."""


@dataclass(frozen=True)
class Rendered:
    """What a release consists of."""

    notes: str
    manifests: list[Manifest]
    lint: dict[str, Any]

    def of(self, kind: str) -> list[Manifest]:
        return [one for one in self.manifests if one["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The only one of its kind that is no hook."""
        (found,) = [one for one in self.of(kind) if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
        return found

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Kind and metadata-with-spec of each pod or pod template."""
        for one in self.manifests:
            if one["kind"] == "Pod":
                yield one["kind"], one
            elif "template" in one.get("spec", {}):
                yield one["kind"], one["spec"]["template"]

    def server(self) -> Manifest:
        """The container of the server."""
        (container,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        assert isinstance(container, dict)
        return container


def containers(rendered: Rendered) -> list[Manifest]:
    """Of all pods, the initial ones too."""
    return [
        container
        for _, pod in rendered.pods()
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"])
    ]


def mounted(container: Manifest, path: str) -> Manifest:
    """What is mounted there."""
    (found,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == path]
    assert isinstance(found, dict)
    return found


def environment(container: Manifest, name: str) -> Any:
    """The value of a variable, or where it is from; None if it is not set."""
    found = [one for one in container["env"] if one["name"] == name]
    return (found[0].get("value") or found[0]["valueFrom"]) if found else None


def profile(name: str) -> Values:
    """The values of a file of the chart."""
    values = yaml.safe_load((CHART / name).read_text())
    assert isinstance(values, dict)
    return values


def render(
    *layers: Mapping[str, Any], name: str = RELEASE, expressions: Sequence[str] = (), kube_version: str = "v1.31.0"
) -> Rendered:
    """`expressions` are of `--set`. Raises Refused if Helm does."""
    request = {
        "chart": str(CHART),
        "values": merged(*layers),
        "set": expressions,
        "name": name,
        "namespace": NAMESPACE,
        "kube_version": kube_version,
    }
    ended = subprocess.run(
        [sys.executable, "-m", "tests.deploy.helm_engine"],
        input=json.dumps(request),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    if "error" in answer:
        raise Refused(answer["error"])
    texts = dict(answer["rendered"])
    notes = texts.pop("gen3c/templates/NOTES.txt")
    manifests = [one for text in texts.values() for one in yaml.safe_load_all(text) if one]
    return Rendered(notes, manifests, answer["lint"])
