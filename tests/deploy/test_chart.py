"""The chart: every profile with every feature renders to what Kubernetes accepts, and its parts fit together."""

import json
import re
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest

from gen3c_server.settings import Deployment
from tests.deploy.chart import KUBERNETES, PROFILES, Rendered, containers, environment, mounted
from tests.deploy.programs import program, understand
from tests.deploy.values import Values

CUSTOM = {"PodMonitor", "ScaledObject"}  # kinds that Kubernetes itself does not know
VARIABLES = {"GEN3C_CHECKPOINTS", "GEN3C_THREADS"}


def test_helm_finds_no_fault(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    assert rendered.lint["errors"] == []
    assert [message["error"] for message in rendered.lint["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_manifest(case: tuple[Values, Rendered], version: str) -> None:
    _, rendered = case
    for manifest in rendered.manifests:
        if manifest["kind"] not in CUSTOM:
            validate(json.dumps(manifest), version)


@cache  # many are the same in many cases
def validate(manifest: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


def test_a_misspelt_field_would_be_found(rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]]) -> None:
    deployment = rendered_cases[PROFILES[0], "defaults"][1].one("Deployment")
    text = json.dumps(deployment).replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        validate(text, KUBERNETES[-1])


def test_names_are_unique_and_selectors_find_the_pods(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered.manifests]
    assert len(set(names)) == len(names)
    deployment = rendered.one("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    selectors = [deployment["selector"]["matchLabels"], rendered.one("Service")["spec"]["selector"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in rendered.of("PodDisruptionBudget")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in rendered.of("PodMonitor")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in rendered.of("NetworkPolicy")]
    others = [pod["metadata"]["labels"].items() for kind, pod in rendered.pods() if kind != "Deployment"]
    for selector in selectors:
        assert selector.items() <= labels
        assert not any(selector.items() <= other for other in others)


def test_what_is_mounted_is_there(case: tuple[Values, Rendered]) -> None:
    """But for secrets and existing claims, which are the user's."""
    values, rendered = case
    made = {one["metadata"]["name"] for one in rendered.of("PersistentVolumeClaim")}
    made |= {values.get(name, {}).get("claim", {}).get("existing") for name in ("build", "checkpoints")}
    maps = {one["metadata"]["name"]: one["data"] for one in rendered.of("ConfigMap")}
    accounts = {one["metadata"]["name"] for one in rendered.of("ServiceAccount")}
    accounts |= {"default", values.get("serviceAccount", {}).get("name", "default")}
    for _, pod in rendered.pods():
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "default") in accounts
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounted = set()
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            mounted |= set(mounts.values())
            assert len(mounts) == len(container.get("volumeMounts", []))
            words = " ".join([*container.get("command", []), *container.get("args", [])])
            for path in re.findall(r"/etc/gen3c/(\S+)", words):
                assert path in maps[volumes[mounts["/etc/gen3c"]]["configMap"]["name"]]
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container.get(probe, {}).get("httpGet", {}).get("port", "grpc") in ports | {"grpc"}
        assert mounted == set(volumes)
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in made


def test_programs_understand_what_they_are_told(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    for container in containers(rendered):
        match container["name"]:
            case "server":
                understand("gen3c", ["serve", *container["args"]])
                understand(*program(container["lifecycle"]["preStop"]["exec"]["command"]))
            case "build":
                understand("gen3c-export", container["args"])
            case "checkpoints":
                assert container["command"] == ["sh", "/etc/gen3c/checkpoints.sh"]
            case "health":
                understand("gen3c", container["args"])
            case name:
                pytest.fail(f"no test knows the container {name}")
        assert {one["name"] for one in container.get("env", []) if one["name"].startswith("GEN3C_")} <= VARIABLES


def test_the_server_serves_what_is_built(case: tuple[Values, Rendered]) -> None:
    values, rendered = case
    server = rendered.server()
    builds = [one for one in containers(rendered) if one["name"] == "build"]
    assert len(builds) == 1 + len(rendered.of("Job"))
    for build in builds:
        given = dict(word.partition("=")[::2] for word in build["args"])
        assert f"--model-repository={given['--out']}/{given['--name']}" in server["args"]
        assert f"--deployment={given['--deployment']}" in server["args"]
        assert mounted(build, "/build") == {"name": "build", "mountPath": "/build"}
        assert environment(build, "GEN3C_CHECKPOINTS") == environment(server, "GEN3C_CHECKPOINTS")
    assert mounted(server, "/build")["readOnly"] is True
    assert (environment(server, "GEN3C_CHECKPOINTS") is not None) == (values.get("preset") == "gen3c-7b")


def test_the_deployment_file_is_one_that_the_server_reads(case: tuple[Values, Rendered], tmp_path: Path) -> None:
    values, rendered = case
    for config in rendered.of("ConfigMap"):
        (tmp_path / "deployment.yaml").write_text(config["data"]["deployment.yaml"])
        assert Deployment.load(tmp_path / "deployment.yaml") == Deployment.model_validate(values.get("deployment", {}))


def test_a_pod_has_the_time_that_its_parts_take(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    server = rendered.server()
    given = dict(word.partition("=")[::2] for word in server["args"])
    drain = dict(word.partition("=")[::2] for word in server["lifecycle"]["preStop"]["exec"]["command"])
    grace = rendered.one("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > int(drain["--timeout"]) + int(given["--exit-timeout"])
    assert drain["--run-dir"] == given["--run-dir"]
    probe = server["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > int(given["--start-timeout"])


def test_a_server_that_is_not_ready_is_out_within_10_seconds_and_a_slow_answer_alone_changes_nothing(
    case: tuple[Values, Rendered],
) -> None:
    _, rendered = case
    server = rendered.server()
    probe = server["readinessProbe"]
    # The verdict comes just after a probe, the ones that see it are a period apart, and the last takes all its time.
    assert probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"] < 10
    for slow in (probe, server["livenessProbe"]):
        assert slow["failureThreshold"] > 1
        # More than Kubernetes' default of a second, in which a busy machine may not answer; no probe waits for another.
        assert 1 < slow["timeoutSeconds"] <= slow["periodSeconds"]


def test_probes_read_the_launchers_verdict(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    server = rendered.server()
    paths = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert paths == {
        "startup": {"path": "/started", "port": "health"},
        "readiness": {"path": "/ready", "port": "health"},
        "liveness": {"path": "/live", "port": "health"},
    }
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert f"--health-port={ports['health']}" in server["args"]
