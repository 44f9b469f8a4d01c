"""TLS, the access key and what is closed to all, at the real Triton: who is refused, and who is not."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from gen3c_client.connection import Access, Credentials, Tls
from launcher_probe import Serving, ask_at, canary
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from gen3c_server.launcher import EmbeddedServer, PreflightError, ServeOptions
from gen3c_server.launcher.certificates import server_name
from gen3c_server.launcher.security import Security
from tests.certificates import Authority

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

NAME = "gen3c.test"
KEY = "0123456789abcdef+/=="
# What changes the server, or reads memory of its machine: gRPC's method and request, and HTTP's path and body.
CLOSED = {
    "load": ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="probe")),
    "unload": ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="probe")),
    "index": ("RepositoryIndex", messages.RepositoryIndexRequest()),
    "shm": ("SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest()),
    "register": (
        "SystemSharedMemoryRegister",
        messages.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8),
    ),
    "cuda": ("CudaSharedMemoryRegister", messages.CudaSharedMemoryRegisterRequest(name="x", byte_size=8)),
    "log": ("LogSettings", messages.LogSettingsRequest()),
    "trace": ("TraceSetting", messages.TraceSettingRequest()),
}
CLOSED_PATHS = {
    "load": ("POST", "/v2/repository/models/probe/load"),
    "unload": ("POST", "/v2/repository/models/probe/unload"),
    "index": ("POST", "/v2/repository/index"),
    "shm": ("GET", "/v2/systemsharedmemory/status"),
    "register": ("POST", "/v2/systemsharedmemory/region/x/register"),
    "cuda": ("POST", "/v2/cudasharedmemory/region/x/register"),
    "log": ("POST", "/v2/logging"),
    "trace": ("POST", "/v2/trace/setting"),
}


@dataclass(frozen=True)
class Secured:
    """A server that speaks TLS, wants certificates of clients, and a key."""

    server: EmbeddedServer
    security: Security
    authority: Authority
    folder: Path

    def client(self, **changed: Path | None) -> Credentials:
        """Those that are let in, but for what is changed."""
        cert, key = self.folder / "client.pem", self.folder / "client.key"
        return Tls(**{"ca": self.authority.file, "cert": cert, "key": key, **changed}, name=NAME).read()


@pytest.fixture(scope="module")
def secured(probe_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    certificate, key = authority.server("server", NAME)
    authority.client("client")
    (folder / "key").write_text(f"{KEY}\n")
    security = Security.load(certificate, key, authority.file, folder / "key")
    with EmbeddedServer(ServeOptions(probe_repository, security=security, host="0.0.0.0")) as server:
        server.wait_ready(canary(security))
        yield Secured(server, security, authority, folder)


@pytest.fixture(scope="module")
def keyed(probe_repository: Path) -> Iterator[EmbeddedServer]:
    """A server that wants a key, in plain text."""
    security = Security(access_key=KEY)
    with EmbeddedServer(ServeOptions(probe_repository, security=security)) as server:
        server.wait_ready(canary(security))
        yield server


@pytest.fixture(scope="module")
def plain(probe_repository: Path) -> Iterator[EmbeddedServer]:
    """A server as it is without any option."""
    with EmbeddedServer(ServeOptions(probe_repository)) as server:
        server.wait_ready(canary(Security()))
        yield server


def refusal(server: EmbeddedServer, access: Access) -> str:
    """The words with which an inference is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        ask_at(server.grpc_url, "hello", access)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    return str(refused.value.details())  # type: ignore[attr-defined]


def http_call(server: EmbeddedServer, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.http_url, timeout=5)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def hello() -> str:
    """An inference as HTTP wants it."""
    return json.dumps({"inputs": [{"name": "IN", "shape": [1], "datatype": "BYTES", "data": ["hello"]}]})


def test_a_client_with_certificate_and_key_is_answered(secured: Secured) -> None:
    assert ask_at(secured.server.grpc_url, "hello", Access(secured.client(), KEY)) == "hello"


def test_the_files_of_mutual_tls_go_with_the_server(secured: Secured) -> None:
    assert (secured.server.run.path / "client-ca.pem").exists()
    assert secured.server.ports.host == "0.0.0.0"


def test_a_server_behind_mutual_tls_is_restarted(start_serving: Callable[..., Serving], secured: Secured) -> None:
    """Its canary, before and after, shows what the launcher has made."""
    files = [secured.security.certificate, secured.security.key, secured.authority.file, secured.folder / "key"]
    serving = start_serving(security=[str(file) for file in files], canary_interval_s=0.2)
    os.kill(serving.stub, signal.SIGKILL)
    serving.wait_for_page("/ready", 503, 10)
    serving.wait_for_page("/ready", 200, 60)
    assert ask_at(serving.url, "hello", Access(secured.client(), KEY)) == "hello"
    assert serving.figures()["gen3c_canary_failures_total"] == 0
    serving.process.send_signal(signal.SIGTERM)
    assert serving.wait(30)[0] == 0
    serving.assert_nothing_left()


def test_plain_text_is_refused(secured: Secured) -> None:
    assert "Socket closed" in refusal(secured.server, Access(None, KEY))


def test_a_client_without_a_certificate_is_refused(secured: Secured) -> None:
    assert "Socket closed" in refusal(secured.server, Access(secured.client(cert=None, key=None), KEY))


def test_a_certificate_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "other").client("stranger")
    assert "Socket closed" in refusal(secured.server, Access(secured.client(cert=cert, key=key), KEY))


def test_the_launchers_certificate_is_no_other_launchers(secured: Secured) -> None:
    other = Security.load(secured.security.certificate, secured.security.key, secured.authority.file, None)
    credentials = other.access().credentials
    assert "Socket closed" in refusal(secured.server, Access(credentials, KEY))


def test_a_server_of_another_authority_is_not_trusted(secured: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").file
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(secured.server, Access(secured.client(ca=other), KEY))


@pytest.mark.parametrize("key", [None, KEY[:-1], KEY + "0"])
def test_a_call_without_the_key_is_refused(secured: Secured, keyed: EmbeddedServer, key: str | None) -> None:
    for server, access in ((secured.server, Access(secured.client(), key)), (keyed, Access(None, key))):
        assert "protocol is restricted" in refusal(server, access)


def test_plain_http_is_the_launchers_alone_where_grpc_speaks_tls(secured: Secured) -> None:
    assert secured.server.http_url.startswith("127.0.0.1:")
    assert secured.server.ports.http_host == "127.0.0.1"
    for path in ("/v2/health/ready", "/v2", "/v2/models/probe", "/v2/models/probe/stats"):
        assert http_call(secured.server, "GET", path, gen3c_key=KEY)[0] == 403
    assert http_call(secured.server, "POST", "/v2/models/probe/infer", hello(), gen3c_key=KEY)[0] == 403


def test_http_wants_the_key_too(keyed: EmbeddedServer) -> None:
    path = "/v2/models/probe/infer"
    assert http_call(keyed, "POST", path, hello())[0] == 403
    assert http_call(keyed, "POST", path, hello(), gen3c_key=KEY[:-1])[0] == 403
    status, answer = http_call(keyed, "POST", path, hello(), gen3c_key=KEY)
    assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, ["hello"])
    assert http_call(keyed, "GET", "/v2/health/ready")[0] == 403


def test_without_options_everybody_is_answered(plain: EmbeddedServer) -> None:
    assert ask_at(plain.grpc_url, "hello", Access()) == "hello"
    assert http_call(plain, "POST", "/v2/models/probe/infer", hello())[0] == 200


@pytest.mark.parametrize("what", CLOSED)
def test_what_changes_the_server_is_closed_to_all(
    what: str, plain: EmbeddedServer, keyed: EmbeddedServer, secured: Secured
) -> None:
    method, request = CLOSED[what]
    path = CLOSED_PATHS[what]
    for server, access in (
        (plain, Access()),
        (keyed, Access(None, KEY)),
        (secured.server, Access(secured.client(), KEY)),
    ):
        with access.channel(server.grpc_url) as channel:
            call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)
            with pytest.raises(grpc.RpcError) as refused:
                call(request, metadata=[*access.headers().items()], timeout=10)
        assert "protocol is restricted" in refused.value.details()  # type: ignore[attr-defined]
        status, said = http_call(server, *path, "{}", gen3c_key=KEY)
        assert (status, "API is restricted" in said) == (403, True)


def test_models_can_be_neither_loaded_nor_unloaded_even_with_the_launchers_own_key(plain: EmbeddedServer) -> None:
    headers = plain.options.security.http_headers()
    for what in ("load", "unload"):
        status, said = http_call(plain, *CLOSED_PATHS[what], "{}", **headers)
        assert status >= 400
        assert "explicit model load / unload is not allowed" in said


def test_a_restart_takes_over_a_new_certificate(start_serving: Callable[..., Serving], tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).server("server", NAME)
    serving = start_serving(security=[str(certificate), str(key), None, None], canary_interval_s=0.2)
    Authority(tmp_path, "other").server("server", NAME)  # in the same files
    read_before = serving.figures()["gen3c_canary_duration_seconds_count"]
    time.sleep(2)  # canaries go on with the certificate that Triton has
    assert serving.page("/ready")[0] == 200
    assert serving.figures()["gen3c_canary_duration_seconds_count"] > read_before
    os.kill(serving.stub, signal.SIGKILL)
    serving.wait_for_page("/ready", 503, 10)
    serving.wait_for_page("/ready", 200, 60)
    assert serving.figures()["gen3c_canary_failures_total"] == 0


def test_no_key_is_in_the_log(secured: Secured, keyed: EmbeddedServer) -> None:
    for server in (secured.server, keyed):
        text = server.log_path.read_text()
        assert "Started GRPCInferenceService" in text
        assert KEY not in text
        assert server.options.security.launcher_key not in text
        assert KEY not in repr(server.options)


def test_a_name_that_the_server_is_expected_under(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert server_name(authority.server("one", "a.test", "b.test")[0]) == "a.test"
    assert server_name(authority.server("wild", "*.test")[0]) == "gen3c.test"
    assert server_name(authority.server("common.test")[0]) == "common.test"


def test_files_that_cannot_work_are_refused_before_anything_starts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server("server", NAME)
    other = authority.server("other", NAME)[1]
    old, old_key = authority.server("old", NAME, days=-1)
    (tmp_path / "text").write_text("hello")
    for arguments, sentence in (
        ((certificate, None, None), "belong together"),
        ((None, None, authority.file), "needs --tls-certificate"),
        ((certificate, other, None), f"{other} does not belong to the certificate"),
        ((old, old_key, None), "expired on "),
        ((key, key, None), "holds no certificate"),
        ((certificate, certificate, None), "holds no private key"),
        ((certificate, tmp_path / "absent", None), "cannot be read: No such file"),
        ((certificate, key, tmp_path / "text"), "holds no certificate"),
    ):
        with pytest.raises(PreflightError, match=sentence):
            Security.load(*arguments, None)


@pytest.mark.parametrize("text", ["short", "white space in the key", "ä" * 20, "x" * 300])
def test_an_access_key_that_is_none_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(PreflightError, match=r"legal: 16 to 256") as refused:
        Security.load(None, None, None, tmp_path / "key")
    assert text not in str(refused.value)
