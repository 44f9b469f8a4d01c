"""Fixtures of the client's tests: the command line in this process, and a real Triton as its peer."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gen3c_client.cli import main
from gen3c_client.connection import Tls
from triton_peer import Peer, serve_peer


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A server for all tests that leave it alive."""
    with serve_peer(tmp_path_factory.mktemp("peer")) as peer:
        yield peer


@pytest.fixture
def mortal_peer(tmp_path: Path) -> Iterator[Peer]:
    """A server of one test's own, to be killed."""
    run_dir = tmp_path / "mortal"
    run_dir.mkdir()
    with serve_peer(run_dir) as peer:
        yield peer


@pytest.fixture
def tls_peer(tmp_path: Path) -> Iterator[tuple[Peer, Tls]]:
    """A server that speaks TLS and asks for client certificates, and what a client needs to meet it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    key, cert, run_dir = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "tls"
    run_dir.mkdir()
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    flags = ["use-ssl=true", "use-ssl-mutual=true", f"server-cert={cert}", f"server-key={key}", f"root-cert={cert}"]
    with serve_peer(run_dir, *(f"--grpc-{flag}" for flag in flags)) as peer:
        yield peer, Tls(ca=cert, cert=cert, key=key)


@dataclass
class Ended:
    """What a run of the command line left."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs `gen3c` in this process."""
    monkeypatch.delenv("GEN3C_URL", raising=False)

    def run(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A file that passes for a photo (the peer does not decode it)."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 looks like a JPEG")
    return path
