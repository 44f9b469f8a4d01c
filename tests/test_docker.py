"""What docker/ says of the package is so. Nothing is built here: tests/image does that."""

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gen3c_server.cli import serve

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
SERVED = ("serve", "text", "traces")
LOCKS = {"client": (), "cpu": SERVED, "cuda": SERVED, "triton": None, "build": None}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(text: str) -> dict[str, str]:
    """Names, normalized, and versions."""
    return {
        name.lower().replace("_", "-"): version for name, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.M)
    }


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    found = yaml.safe_load((DOCKER / name).read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_hashes_and_the_versions_that_the_tests_run_with(name: str) -> None:
    text = (DOCKER / "requirements" / f"{name}.txt").read_text()
    tested = pins((ROOT / "constraints.txt").read_text())
    locked = pins(text)
    for package, version in locked.items():
        entry = text.partition(f"\n{package}=={version}")[2] if not text.startswith(package) else text
        assert re.match(r"[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", entry), package
        assert version.partition("+")[0] == tested.get(package, version), package
    assert "://" not in text
    extras = LOCKS[name]
    if extras is not None:
        wanted = [*PROJECT["project"]["dependencies"]]
        for extra in extras:
            wanted += PROJECT["project"]["optional-dependencies"][extra]
        names = {re.match(r"[\w.-]+", one)[0].lower().replace("_", "-") for one in wanted}  # type: ignore[index]
        assert names <= set(locked)


def test_only_the_image_for_gpus_has_the_torch_for_them() -> None:
    torch = {
        name: pins((DOCKER / "requirements" / f"{name}.txt").read_text()).get("torch")
        for name in ("client", "cpu", "cuda")
    }
    assert torch["client"] is None
    assert str(torch["cpu"]).endswith("+cpu")
    assert "+" not in str(torch["cuda"])


def test_the_images_have_the_version_of_the_package() -> None:
    versions = set(re.findall(r"^ARG VERSION=(.*)$", (DOCKER / "Dockerfile").read_text(), re.M))
    assert versions == {PROJECT["project"]["version"]}


def test_the_images_are_built_from_every_package() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {one.removesuffix(".*") for one in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert sent == packages - {"gen3c_client"} | {
        *("client", "model_repository", "docker/requirements", "pyproject.toml", "README.md", "LICENSE")
    }


@pytest.mark.parametrize("name", ["server", "export", "prometheus", "grafana"])
def test_a_service_has_no_rights(name: str) -> None:
    services = compose()["services"] | compose("compose.monitoring.yaml")["services"]
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in service["volumes"] if name == "server")


def test_the_server_has_time_to_stop_and_its_health_check_to_wait() -> None:
    server = compose()["services"]["server"]
    exit_timeout = inspect.signature(serve).parameters["exit_timeout"].default
    assert int(server["stop_grace_period"].removesuffix("s")) >= exit_timeout + 5
    check = server["healthcheck"]
    instruction = re.search(r"^HEALTHCHECK (.*) CMD (.*)$", (DOCKER / "Dockerfile").read_text(), re.M)
    assert instruction is not None
    options = dict(re.findall(r"--([a-z-]+)=(\w+)", instruction[1]))
    assert options == {name.replace("_", "-"): str(value) for name, value in check.items() if name != "test"}
    assert instruction[2] == str(check["test"][1:]).replace("'", '"')


def test_the_ports_are_those_of_this_machine_alone() -> None:
    ports = compose()["services"]["server"]["ports"]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    defaults = [
        inspect.signature(serve).parameters[name].default
        for name in ("http_port", "grpc_port", "metrics_port", "health_port")
    ]
    assert [int(port.rpartition(":")[2]) for port in ports] == defaults


def test_the_file_for_gpus_adds_to_services_that_exist() -> None:
    base, gpu = compose(), compose("compose.gpu.yaml")
    assert set(gpu["services"]) == set(base["services"])
    arguments = gpu["services"]["server"]["build"]["args"]
    declared = set(re.findall(r"^ARG (\w+)", (DOCKER / "Dockerfile").read_text(), re.M))
    assert set(arguments) <= declared
    assert (DOCKER / "requirements" / f"{arguments['FLAVOUR']}.txt").is_file()


def test_monitoring_is_pinned_runs_as_nobody_and_has_no_password_of_ours() -> None:
    services = compose("compose.monitoring.yaml")["services"]
    assert set(services) == {"prometheus", "grafana"}
    for service in services.values():
        assert re.fullmatch(r"docker\.io/\w+/\w+:v?\d+\.\d+\.\d+", service["image"])
        assert int(service["user"].partition(":")[0]) > 0
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        here = [volume for volume in service["volumes"] if volume.startswith("./")]
        assert all(volume.endswith(":ro") and (DOCKER / volume.split(":")[0]).exists() for volume in here)
    secret = services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert re.fullmatch(r"\$\{GRAFANA_PASSWORD:\?.*\}", secret)
    volumes = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert {volume for volume in volumes if not volume.startswith("./")} == set(
        compose("compose.monitoring.yaml")["volumes"]
    )
