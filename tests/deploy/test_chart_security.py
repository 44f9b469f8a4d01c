"""What the pods of the chart may not do, and who may reach them."""

import pytest

from tests.deploy.chart import GPU_PROFILES, PROFILES, Rendered, containers, mounted, profile, render
from tests.deploy.values import Values

UID = 10001  # docker/Dockerfile


def test_pods_are_restricted(case: tuple[Values, Rendered]) -> None:
    """The Pod Security Standard `restricted`, and more."""
    _, rendered = case
    pods = list(rendered.pods())
    assert {kind for kind, _ in pods} >= {"Deployment", "Pod"}
    for _, pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
        assert {next(iter(set(volume) - {"name"})) for volume in spec.get("volumes", [])} <= {
            *("configMap", "emptyDir", "persistentVolumeClaim", "secret")
        }
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == UID
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(rendered):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert "limits" in container["resources"]


def test_the_account_has_no_token(case: tuple[Values, Rendered]) -> None:
    _, rendered = case
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        one["kind"] for one in rendered.manifests
    }


def test_only_grpc_is_served_and_only_who_is_named_gets_in(case: tuple[Values, Rendered]) -> None:
    values, rendered = case
    (port,) = rendered.one("Service")["spec"]["ports"]
    assert port == {"name": "grpc", "port": 8001, "targetPort": "grpc", "appProtocol": "grpc"}
    for policy in rendered.of("NetworkPolicy"):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        open_ports = [[one["port"] for one in rule["ports"]] for rule in spec["ingress"]]
        metrics = values.get("networkPolicy", {}).get("metrics", ["default"])
        assert open_ports == [[8001], *([[8002, 8003]] if metrics else [])]
        assert all(rule["from"] for rule in spec["ingress"])  # an empty list would be everybody
    assert len(rendered.of("NetworkPolicy")) == values.get("networkPolicy", {}).get("enabled", True)


@pytest.mark.parametrize(
    ("feature", "ports"),
    [
        ("defaults", []),
        ("traces", [[53, 53], [4318]]),
        ("download", [[53, 53], [443]]),
        ("everything else", [[5000]]),
    ],
)
def test_a_server_calls_only_what_it_is_told_to(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]], feature: str, ports: list[list[int]]
) -> None:
    policy = rendered_cases[GPU_PROFILES[0], feature][1].one("NetworkPolicy")
    assert [[one["port"] for one in rule["ports"]] for rule in policy["spec"]["egress"]] == ports


def test_secrets_are_files_that_others_cannot_read(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]],
) -> None:
    for feature, path, secret in (
        ("mutual tls", "/etc/gen3c-tls", "certificate"),
        ("access key", "/etc/gen3c-access", "key"),
    ):
        rendered = rendered_cases[PROFILES[0], feature][1]
        mount = mounted(rendered.server(), path)
        assert mount["readOnly"] is True
        (volume,) = [
            one
            for one in rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
            if one["name"] == mount["name"]
        ]
        assert volume["secret"] == {"secretName": secret, "defaultMode": 0o440}


def test_tls_and_key_are_asked_for_and_the_test_pod_has_them(
    rendered_cases: dict[tuple[str, str], tuple[Values, Rendered]],
) -> None:
    def words(feature: str) -> tuple[set[str], set[str]]:
        rendered = rendered_cases[PROFILES[0], feature][1]
        (test,) = rendered.of("Pod")
        return set(rendered.server()["args"]), set(test["spec"]["containers"][0]["args"])

    server, test = words("mutual tls")
    assert {
        "--tls-certificate=/etc/gen3c-tls/tls.crt",
        "--tls-key=/etc/gen3c-tls/tls.key",
        "--tls-client-ca=/etc/gen3c-tls/ca.crt",
    } <= server
    assert {
        "--tls-ca=/etc/gen3c-tls/ca.crt",
        "--tls-certificate=/etc/gen3c-tls/tls.crt",
        "--tls-key=/etc/gen3c-tls/tls.key",
    } <= test
    server, test = words("access key")
    assert "--access-key-file=/etc/gen3c-access/access-key" in server & test
    for given in words("defaults"):
        assert not any("tls" in word or "key" in word for word in given)


def test_the_token_of_the_hub_is_in_the_download_alone() -> None:
    rendered = render(
        profile(GPU_PROFILES[0]),
        {"checkpoints": {"download": {"enabled": True, "licencesAccepted": True, "tokenSecret": "hub"}}},
    )
    with_token = [one["name"] for one in containers(rendered) if "hub" in str(one)]
    assert with_token == ["checkpoints"]


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_a_pod_has_its_gpu_and_the_download_none(name: str) -> None:
    rendered = render(profile(name), {"checkpoints": {"download": {"enabled": True, "licencesAccepted": True}}})
    gpus = {one["name"]: one["resources"]["limits"].get("nvidia.com/gpu", 0) for one in containers(rendered)}
    assert gpus == {"checkpoints": 0, "build": 1, "server": 1, "health": 0}
