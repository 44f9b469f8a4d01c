"""Mutual TLS and an access key between a client's container and a server's, with files mounted read-only."""

import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from gen3c_client.connection import Access, Tls, read_access_key
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.certificates import Authority
from tests.image import containers
from tests.image.conftest import Build

NAME = "gen3c.test"
FOLDER = "/certificates"


@dataclass(frozen=True)
class Secured:
    """A server, and the folders of what it and its clients have."""

    server: containers.Server
    clients: Path

    def environment(self, **changed: str | None) -> list[str]:
        """Options of podman for a client that is let in, but for what is changed."""
        told = {
            "GEN3C_CLIENT_TLS_CA": f"{FOLDER}/ca.pem",
            "GEN3C_CLIENT_TLS_CERTIFICATE": f"{FOLDER}/client.pem",
            "GEN3C_CLIENT_TLS_KEY": f"{FOLDER}/client.key",
            "GEN3C_CLIENT_TLS_NAME": NAME,
            "GEN3C_ACCESS_KEY_FILE": f"{FOLDER}/access-key",
            **changed,
        }
        given = [f"--env={name}={value}" for name, value in told.items() if value is not None]
        return [f"--volume={self.clients}:{FOLDER}:ro", *given]


@pytest.fixture(scope="module")
def secured(build: Build, built: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    servers, clients = folder / "server", folder / "client"
    for path in (servers, clients):
        path.mkdir()
        (path / "access-key").write_text("k" * 32)
    authority = Authority(clients)
    for source in authority.server("server", NAME):
        source.rename(servers / source.name)
    authority.client("client")
    Authority(clients, "other").client("stranger")
    (servers / "ca.pem").write_bytes((clients / "ca.pem").read_bytes())
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the images' user reads them
    variables = {"TLS_CERTIFICATE": "server.pem", "TLS_KEY": "server.key", "TLS_CLIENT_CA": "ca.pem"}
    variables["ACCESS_KEY_FILE"] = "access-key"
    options = [f"--env=GEN3C_{name}={FOLDER}/{file}" for name, file in variables.items()]
    mount = f"--volume={servers}:{FOLDER}:ro"
    with containers.server(build, built, "gen3c-test-server-secured", mount, *options) as server:
        yield Secured(server, clients)


def ended(command: list[str]) -> tuple[int, str]:
    """Exit code and last words."""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=400, check=False)
    return done.returncode, " ".join(done.stderr.split())


def test_a_client_with_certificate_and_key_gets_a_video(build: Build, secured: Secured, tmp_path: Path) -> None:
    command = containers.job(build, secured.server.url, tmp_path / "results", podman=secured.environment())
    code, said = ended(command)
    assert code == 0, said + secured.server.log()
    assert (tmp_path / "results" / "out" / "video.mp4").stat().st_size > 1000


def test_others_are_refused(build: Build, secured: Secured, tmp_path: Path) -> None:
    plain = dict.fromkeys(f"GEN3C_CLIENT_TLS_{name}" for name in ("CA", "CERTIFICATE", "KEY", "NAME"))
    stranger = {
        "GEN3C_CLIENT_TLS_CERTIFICATE": f"{FOLDER}/stranger.pem",
        "GEN3C_CLIENT_TLS_KEY": f"{FOLDER}/stranger.key",
    }
    for changed, expected, words in (
        (plain, 3, "A server that speaks TLS needs --tls"),
        (stranger, 3, "No server can be reached"),
        ({"GEN3C_CLIENT_TLS_CERTIFICATE": None, "GEN3C_CLIENT_TLS_KEY": None}, 3, "No server can be reached"),
        ({"GEN3C_ACCESS_KEY_FILE": None}, 2, "wants an access key"),
    ):
        command = containers.job(build, secured.server.url, tmp_path / "results", podman=secured.environment(**changed))
        code, said = ended(command)
        assert (code, words in said) == (expected, True), said + secured.server.log()
    assert not list((tmp_path / "results").rglob("video.mp4"))


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryRegister"])
def test_what_changes_the_server_is_refused_even_with_certificate_and_key(secured: Secured, method: str) -> None:
    folder = secured.clients
    tls = Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key", NAME)
    access = Access.of(tls, read_access_key(folder / "access-key"))
    with access.channel(secured.server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest(), metadata=[*access.headers().items()], timeout=10).live
        call, request = getattr(stub, method), getattr(service_pb2, f"{method}Request")()
        with pytest.raises(grpc.RpcError, match="protocol is restricted"):
            call(request, metadata=[*access.headers().items()], timeout=10)
