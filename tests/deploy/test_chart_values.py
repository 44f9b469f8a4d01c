"""What may be set in the chart, what is refused and how, and what the settings do."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from gen3c.exported.manifest import TARGETS
from gen3c.presets import PRESETS
from gen3c_server.settings import Deployment
from tests.deploy.chart import (
    CHART,
    GPU_PROFILES,
    NAMESPACE,
    PROFILES,
    ROOT,
    Refused,
    Rendered,
    containers,
    environment,
    profile,
    render,
)
from tests.deploy.values import Values, merged

CPU, GPU = profile("values-cpu.yaml"), profile(GPU_PROFILES[0])
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_chart_has_the_version_of_the_package() -> None:
    text = (CHART / "Chart.yaml").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^(?:v|appV)ersion: \"?([\w.]+)\"?$", text, re.MULTILINE) == [version] * 2


def test_the_schema_has_the_deployment_file_presets_and_targets_of_the_code() -> None:
    model = Deployment.model_json_schema()
    parts = model.pop("$defs")
    assert SCHEMA["properties"]["deployment"] == model
    assert {name: SCHEMA["$defs"][name] for name in parts} == parts
    assert SCHEMA["properties"]["target"]["enum"] == list(TARGETS)
    assert SCHEMA["properties"]["preset"]["enum"] == list(PRESETS)


def test_every_object_of_the_schema_is_closed() -> None:
    """But for those that Kubernetes defines, and maps of names."""
    assert list(unclosed(SCHEMA, "")) == [
        *("/resources", "/gpu_resources"),  # of the deployment file: their names are the user's
        *("/server/extraEnv/valueFrom", "/networkPolicy/clients", "/networkPolicy/metrics", "/networkPolicy/egress"),
        *("/tolerations", "/affinity", "/topologySpreadConstraints"),
        "/global",
        *("$defs/ModelSettings/resources", "$defs/ModelSettings/gpu_resources"),
    ]


def unclosed(schema: Any, path: str) -> Any:
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        yield path.removeprefix("/deployment")
    for name, part in schema.get("properties", {}).items():
        yield from unclosed(part, f"{path}/{name}")
    yield from unclosed(schema.get("items"), path)
    for name, part in schema.get("$defs", {}).items():
        yield from unclosed(part, f"$defs/{name}")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"checkpoint": {"enabled": True}}, "additional properties 'checkpoint' not allowed"),
        ({"tls": {"secretName": "x"}}, "at '/tls': additional properties 'secretName' not allowed"),
        ({"replicas": "2"}, "at '/replicas': got string, want integer"),
        ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
        ({"preset": "large"}, "at '/preset': value must be one of 'tiny', 'gen3c-7b'"),
        ({"target": "gpu"}, "at '/target': value must be one of 'cpu', 'cuda', 'tensorrt'"),
        ({"shm": "2 GB"}, "at '/shm': '2 GB' does not match pattern"),
        ({"resources": {"limits": {"memory": "much"}}}, "at '/resources/limits/memory': 'much' does not match"),
        ({"deployment": {"limits": {"view": 3}}}, "at '/deployment/limits': additional properties 'view' not allowed"),
        ({"deployment": {"limits": {"views": 0}}}, "at '/deployment/limits/views': minimum: got 0, want 1"),
        ({"deployment": {"models": {"dit": {"gpu": 1}}}}, "at '/deployment/models/dit': additional properties 'gpu'"),
        ({"build": {"claim": {"accessModes": []}}}, "at '/build/claim/accessModes': minItems: got 0, want 1"),
        ({"build": {"kinds": ["vggt"]}}, "at '/build/kinds/0': 'vggt' does not match pattern"),
        ({"tls": {"secret": "My Secret"}}, "at '/tls/secret': 'My Secret' does not match pattern"),
        ({"autoscaling": {"kind": "vpa"}}, "at '/autoscaling/kind': value must be one of 'hpa', 'keda'"),
        ({"traces": {"otlpEndpoint": "collector:4318"}}, "at '/traces/otlpEndpoint': 'collector:4318' does not match"),
        ({"ports": {"grpc": 80}}, "at '/ports/grpc': minimum: got 80, want 1,024"),
        ({"server": {"extraEnv": [{"value": "1"}]}}, "at '/server/extraEnv/0': missing property 'name'"),
        ({"checkpoints": {"folder": "../x"}}, "at '/checkpoints/folder': '../x' does not match pattern"),
    ],
)
def test_the_schema_refuses(values: Values, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        render(CPU, values)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (merged(CPU, {"gpus": 1}), "gpus is 1 and target is cpu, which uses none"),
        (merged(GPU, {"gpus": 0}), "gpus is 0 and target is cuda, which needs at least 1"),
        (merged(GPU, {"checkpoints": {"enabled": False}}), "preset is gen3c-7b, which has no weights of its own"),
        (
            merged(GPU, {"checkpoints": {"download": {"enabled": True}}}),
            "checkpoints.download.licencesAccepted is false; read the licences of nvidia/GEN3C-Cosmos-7B and",
        ),
        (
            merged(CPU, {"checkpoints": {"enabled": True, "download": {"enabled": True, "licencesAccepted": True}}}),
            "checkpoints.download is for preset gen3c-7b; preset is tiny",
        ),
        (merged(GPU, {"build": {"job": {"enabled": True}}}), "build.job.enabled needs build.claim.existing"),
        (
            merged(GPU, {"build": {"job": {"enabled": True}, "claim": {"existing": "b"}}}),
            "build.job.enabled needs checkpoints.claim.existing",
        ),
        (
            merged(CPU, {"replicas": 2, "build": {"claim": {"accessModes": ["ReadWriteOncePod"]}}}),
            "build.claim.accessModes is ReadWriteOncePod, and there may be 2 pods",
        ),
        (merged(CPU, {"rollout": {"spare": 1}}), "a new pod on another node cannot mount build.claim"),
        (
            merged(GPU, {"rollout": {"spare": 1}, "build": {"claim": {"accessModes": ["ReadWriteMany"]}}}),
            "a new pod on another node cannot mount checkpoints.claim",
        ),
        (merged(CPU, {"autoscaling": {"enabled": True, "minReplicas": 5}}), "maxReplicas is 4, below minReplicas 5"),
        (merged(CPU, {"autoscaling": {"enabled": True, "kind": "keda"}}), "set autoscaling.prometheus to its URL"),
        (merged(CPU, {"tls": {"clientCa": True}}), "tls.clientCa is true without tls.secret"),
        (merged(CPU, {"tls": {"secret": "t"}}), "helm test over TLS needs test.tlsSecret"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_values_that_do_not_go_together_are_refused(values: Values, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert sentence in str(refused.value)


def build_name(values: Values) -> str:
    (found,) = [word for word in render(values).server()["args"] if word.startswith("--model-repository=")]
    return found


def test_a_build_is_named_by_what_it_is_made_from() -> None:
    """So that an upgrade does not change what the old pods serve, and a rollback finds it."""
    name = build_name(CPU)
    assert re.fullmatch(r"--model-repository=/build/tiny-cpu-[0-9a-f]{10}", name)
    for same in (
        {"replicas": 2},
        {"resources": {"limits": {"cpu": "8"}}},
        {"tls": {"secret": "t"}, "test": {"tlsSecret": "t"}},
    ):
        assert build_name(merged(CPU, same)) == name
    for other in (
        {"image": {"tag": "1.2.3"}},
        {"deployment": {"limits": {"views": 3}}},
        {"build": {"kinds": ["vggt=onnx"]}},
    ):
        assert build_name(merged(CPU, other)) != name


def test_images_come_from_the_registry(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert rendered_cases[PROFILES[0], "defaults"][1].server()["image"] == f"gen3c-server:{version}"
    rendered = rendered_cases[PROFILES[0], "everything else"][1]
    assert rendered.server()["image"] == "registry.example.com/video/gen3c-server:2026-11"
    assert rendered.one("Deployment")["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_a_pod_goes_before_another_comes_unless_there_is_a_spare_gpu() -> None:
    def rollout(values: Values) -> dict[str, int]:
        strategy = render(GPU, values).one("Deployment")["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        found = strategy["rollingUpdate"]
        assert isinstance(found, dict)
        return found

    shared = {name: {"claim": {"accessModes": ["ReadWriteMany"]}} for name in ("build", "checkpoints")}
    assert rollout({}) == {"maxSurge": 0, "maxUnavailable": 1}
    assert rollout({"rollout": {"spare": 1}, **shared}) == {"maxSurge": 1, "maxUnavailable": 0}


def test_claims_stay_when_the_release_goes(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    claims = rendered_cases[GPU_PROFILES[0], "defaults"][1].of("PersistentVolumeClaim")
    assert [claim["metadata"]["name"] for claim in claims] == ["demo-gen3c-build", "demo-gen3c-checkpoints"]
    assert all(claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for claim in claims)
    assert rendered_cases[GPU_PROFILES[0], "existing claims"][1].of("PersistentVolumeClaim") == []


def test_the_script_of_the_download_has_its_variables(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]],
) -> None:
    rendered = rendered_cases[GPU_PROFILES[0], "download"][1]
    (container,) = [one for one in containers(rendered) if one["name"] == "checkpoints"]
    used = set(re.findall(r"\$\{?([A-Z_0-9]+)", rendered.one("ConfigMap")["data"]["checkpoints.sh"]))
    own = {name for name in {one["name"] for one in container["env"]} if not name.startswith("HF_")}
    assert used == own
    assert environment(container, "GEN3C_CHECKPOINTS") == "/checkpoints/gen3c-7b"
    assert environment(container, "PUBLISHED").startswith("/checkpoints/")
    assert environment(container, "HF_TOKEN") == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_the_export_job_comes_before_the_release(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]],
) -> None:
    rendered = rendered_cases[GPU_PROFILES[0], "export job"][1]
    (job,) = rendered.of("Job")
    (config,) = [one for one in rendered.of("ConfigMap") if one["metadata"]["name"].endswith("-export")]
    hooks = [one["metadata"]["annotations"] for one in (config, job)]
    assert {hook["helm.sh/hook"] for hook in hooks} == {"pre-install,pre-upgrade"}
    # The lower weight is made first; the other's is 0.
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1].get("helm.sh/hook-weight", 0))
    assert config["data"] == rendered.one("ConfigMap")["data"]
    # It uses nothing that the release only brings.
    made = {one["metadata"]["name"] for one in rendered.manifests} - {"demo-gen3c-export"}
    assert not made & set(re.findall(r"'(?:name|claimName|serviceAccountName)': '([\w-]+)'", str(job["spec"])))


def test_hpa_counts_jobs(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    rendered = rendered_cases[PROFILES[0], "hpa"][1]
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert spec["metrics"] == [
        {
            "type": "Pods",
            "pods": {"metric": {"name": "gen3c_jobs"}, "target": {"type": "AverageValue", "averageValue": "1"}},
        }
    ]
    deployment = rendered.one("Deployment")
    assert spec["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]


def test_keda_counts_jobs(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    """Against keda.sh/v1alpha1 as documented; its schema is not at hand."""
    (scaled,) = rendered_cases[PROFILES[0], "keda"][1].of("ScaledObject")
    pods = f'{{namespace="{NAMESPACE}", pod=~"^demo-gen3c-[a-z0-9]+-[a-z0-9]{{5}}$"}}'
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert scaled["spec"].pop("advanced")["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }
    assert scaled["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-gen3c"},
        "minReplicaCount": 1,
        "maxReplicaCount": 4,
        "triggers": [
            {
                "type": "prometheus",
                "metricType": "AverageValue",
                "metadata": {
                    "serverAddress": "http://prometheus.monitoring:9090",
                    "query": f"sum(gen3c_jobs_running{pods}) + sum(gen3c_jobs_pending{pods})",
                    "threshold": "1",
                },
            }
        ],
    }


def pods_counted(name: str) -> str:
    """The expression for the names of pods whose jobs KEDA counts, of the release `name`."""
    keda = {"autoscaling": {"enabled": True, "kind": "keda", "prometheus": "http://prometheus.monitoring:9090"}}
    (scaled,) = render(CPU, keda, name=name).of("ScaledObject")
    (expression,) = set(re.findall(r'pod=~"([^"]*)"', scaled["spec"]["triggers"][0]["metadata"]["query"]))
    assert isinstance(expression, str)
    return expression


@pytest.mark.parametrize("name", ["gen3c", "gen3c-7b", "gen3c-7b-canary", "gen3c-" + "x" * 47])
def test_keda_counts_the_pods_of_its_own_release_alone(name: str) -> None:
    expression = pods_counted(name)
    deployment = render(CPU, name=name).one("Deployment")["metadata"]["name"]
    assert re.fullmatch(expression, pod_name(f"{deployment}-5d89c7f6bc-"))
    for other in ("gen3c", "gen3c-7b", "gen3c-7b-canary", "gen3c-7b-5d89c7f6bc"):
        assert (re.fullmatch(expression, pod_name(f"{other}-5d89c7f6bc-")) is not None) == (other == name)
    assert not re.fullmatch(expression, f"{deployment}-health")


def pod_name(base: str) -> str:
    """As Kubernetes makes it of a ReplicaSet's name: cut so that five characters fit behind it."""
    return f"{base[:58]}x7k2p"


def test_prometheus_is_told_both_ports(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    """Against monitoring.coreos.com/v1 as documented; its schema is not at hand."""
    rendered = rendered_cases[PROFILES[0], "pod monitor"][1]
    (monitor,) = rendered.of("PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    ports = {port["name"] for port in rendered.server()["ports"]}
    endpoints = monitor["spec"]["podMetricsEndpoints"]
    assert {one["port"] for one in endpoints} == {"metrics", "health"} <= ports
    assert all(one["path"] == "/metrics" for one in endpoints)
    jobs = {one["port"]: [label["replacement"] for label in one["relabelings"]] for one in endpoints}
    shipped = yaml.safe_load((ROOT / "docker" / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    named = {int(one["static_configs"][0]["targets"][0].rpartition(":")[2]): one["job_name"] for one in shipped}
    # Alerts and dashboard that ship look for these names.
    assert jobs == {"metrics": [named[8002]], "health": [named[8003]]}


@pytest.mark.parametrize("name", PROFILES)
def test_canaries_of_the_large_model_are_as_rare_as_the_document_says(name: str) -> None:
    document = (ROOT / "docs" / "deployment.md").read_text()
    (rare,) = re.findall(r"for `gen3c-7b`, where\s+`--canary-interval (\d+)` is a better choice", document)
    interval = rare if name in GPU_PROFILES else "30"
    assert f"--canary-interval={interval}" in render(profile(name)).server()["args"]


def test_traces_go_where_they_are_told_to(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    given = rendered_cases[PROFILES[0], "traces"][1].server()["args"]
    assert "--otlp-endpoint=http://collector.monitoring:4318/v1/traces" in given


def test_the_notes_say_how_to_reach_it_and_what_is_open(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]],
) -> None:
    plain = rendered_cases[PROFILES[0], "defaults"][1].notes
    assert "--url demo-gen3c.video.svc:8001\n" in plain
    assert "gRPC is plain" in plain
    assert "Nobody is asked who he is" in plain
    closed = rendered_cases[PROFILES[0], "mutual tls"][1].notes
    assert "--tls-ca ca.crt --tls-certificate tls.crt --tls-key tls.key" in closed
    assert "gRPC is plain" not in closed
    assert "Nobody is asked" not in closed
    scaled = rendered_cases[PROFILES[0], "hpa"][1].notes
    assert "build.claim is ReadWriteOnce: pods on other nodes than the first one's will not start." in scaled


def test_names_of_a_release_called_like_the_chart_are_not_doubled() -> None:
    assert render(CPU, name="gen3c").one("Deployment")["metadata"]["name"] == "gen3c"
