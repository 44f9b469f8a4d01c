"""The real graph behind mutual TLS and an access key, with the commands of a user."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.server.conftest import SmallJob
from tests.server.serve_process import ServeProcess, serving, wait_until

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).parent / "gen3c"
NAME = "gen3c.test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, a key and a job's inputs."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    authority.server("server", NAME)
    authority.client("client")
    (folder / "access-key").write_text("a key of some length\n".replace(" ", "-"))
    (folder / "photos").mkdir()
    job = SmallJob()
    for i, picture in enumerate(job.media):
        (folder / "photos" / f"{i}.png").write_bytes(picture)
    (folder / "geometry.npz").write_bytes(job.geometry)
    return folder


@pytest.fixture(scope="module")
def served(built: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    flags = ["--tls-certificate", folder / "server.pem", "--tls-key", folder / "server.key"]
    flags += ["--tls-client-ca", folder / "ca.pem", "--access-key-file", folder / "access-key"]
    run_dir = tmp_path_factory.mktemp("run") / "run"
    with serving(built, run_dir, *map(str, flags), "--canary-interval", "1", "--restart-grace", "1") as served:
        yield served


def gen3c(served: ServeProcess, folder: Path, *words: str, **changed: str | None) -> subprocess.CompletedProcess[str]:
    """The client's program, told by its environment how to be let in; without what is None."""
    told = {
        "GEN3C_URL": served.url,
        "GEN3C_CLIENT_TLS_CA": str(folder / "ca.pem"),
        "GEN3C_CLIENT_TLS_CERTIFICATE": str(folder / "client.pem"),
        "GEN3C_CLIENT_TLS_KEY": str(folder / "client.key"),
        "GEN3C_CLIENT_TLS_NAME": NAME,
        "GEN3C_ACCESS_KEY_FILE": str(folder / "access-key"),
        **changed,
    }
    environment = {**os.environ, **{name: value for name, value in told.items() if value is not None}}
    return subprocess.run(
        [PROGRAM, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def generate(served: ServeProcess, folder: Path, output: Path, **changed: str | None) -> tuple[int, str]:
    words = ("generate", "photos", "--geometry-file", "geometry.npz", "--output", str(output))
    ended = gen3c(served, folder, *words, **changed)
    return ended.returncode, " ".join(ended.stderr.split())


def test_who_has_certificate_and_key_gets_a_video(served: ServeProcess, folder: Path, tmp_path: Path) -> None:
    assert generate(served, folder, tmp_path)[0] == 0
    assert (tmp_path / "video.mp4").stat().st_size > 1000
    assert gen3c(served, folder, "health").returncode == 0


def test_who_lacks_something_gets_none_and_is_told_what(served: ServeProcess, folder: Path, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    stranger, key = other.client("stranger")
    (tmp_path / "wrong").write_text("x" * 20)
    plain = dict.fromkeys(f"GEN3C_CLIENT_TLS_{name}" for name in ("CA", "CERTIFICATE", "KEY", "NAME"))
    for changed, code, said in (
        (plain, 3, "A server that speaks TLS needs --tls"),
        ({"GEN3C_CLIENT_TLS_CERTIFICATE": None, "GEN3C_CLIENT_TLS_KEY": None}, 3, "No server can be reached"),
        (
            {"GEN3C_CLIENT_TLS_CERTIFICATE": str(stranger), "GEN3C_CLIENT_TLS_KEY": str(key)},
            3,
            "No server can be reached",
        ),
        ({"GEN3C_CLIENT_TLS_CA": str(other.file)}, 3, "No server can be reached"),
        ({"GEN3C_CLIENT_TLS_NAME": "another.test"}, 3, "No server can be reached"),
        ({"GEN3C_ACCESS_KEY_FILE": None}, 2, "wants an access key; --access-key-file"),
        ({"GEN3C_ACCESS_KEY_FILE": str(tmp_path / "wrong")}, 2, "does not know our access key"),
    ):
        ended, text = generate(served, folder, tmp_path / "none", **changed)
        assert (ended, said in text) == (code, True), text
        assert gen3c(served, folder, "health", **changed).returncode == 1
    assert not (tmp_path / "none").exists()


def test_canaries_and_restarts_work_behind_tls(served: ServeProcess, folder: Path) -> None:
    wait_until(lambda: served.figure("gen3c_canary_duration_seconds_count") > 0, 60)
    os.kill(served.stub("dit"), signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: served.page("/ready")[0] == 503, 10)
    wait_until(lambda: served.page("/ready")[0] == 200, served.back_s)
    print(f"\nstarted in {served.start_s:.1f} s, back after {time.monotonic() - killed:.1f} s")
    assert served.figure("gen3c_canary_failures_total") == 0
    assert gen3c(served, folder, "health").returncode == 0
