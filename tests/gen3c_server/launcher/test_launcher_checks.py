"""The parts of the launcher that start nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher_probe import CONFIG, PROBE, add_model

from gen3c_server.launcher import PreflightError, ServeOptions
from gen3c_server.launcher.find import find_triton, parse_version
from gen3c_server.launcher.flags import check_flags, command_line, known_flags
from gen3c_server.launcher.log import (
    LogReader,
    busy_address,
    failed_models,
    last_lines,
    loading_models,
    of_interest,
)
from gen3c_server.launcher.models import check_repository
from gen3c_server.launcher.ports import Ports, reserve_ports
from gen3c_server.launcher.preflight import (
    check_numpy,
    check_platform,
    check_python_on_path,
    check_shared_memory,
    check_stub_python,
    find_libpython,
    libpython_folders,
)
from gen3c_server.launcher.process import describe_exit
from gen3c_server.launcher.run_dir import RunDirectory, server_environment
from gen3c_server.repository import default_model_repository


@pytest.mark.parametrize(
    ("numpy", "server"), [("1.26.4", (2, 51)), ("2.4.6", (2, 54)), ("2.4.6", (3, 0)), ("2.4.6", None)]
)
def test_numpy_that_works(numpy: str, server: tuple[int, int] | None) -> None:
    check_numpy(numpy, server)


@pytest.mark.parametrize("numpy", ["2.0.0", "2.4.6", "3.0.0rc1"])
def test_numpy_that_empties_tensors(numpy: str) -> None:
    with pytest.raises(PreflightError, match=f"numpy {numpy} .* Triton 2.51 .*empty.*numpy<2"):
        check_numpy(numpy, (2, 51))


def test_absent_numpy() -> None:
    with pytest.raises(PreflightError, match="not installed"):
        check_numpy(None, (2, 51))


def test_platform() -> None:
    check_platform("Linux", "x86_64")
    with pytest.raises(PreflightError, match="this is Darwin arm64"):
        check_platform("Darwin", "arm64")


def test_stub_of_another_python() -> None:
    check_stub_python((3, 11), (3, 11))
    check_stub_python(None, (3, 11))
    with pytest.raises(PreflightError, match=r"built for Python 3.12.*installed in Python 3.11"):
        check_stub_python((3, 12), (3, 11))


def test_python_on_path_must_be_ours(tmp_path: Path) -> None:
    check_python_on_path(Path(sys.prefix), Path(sys.executable))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to("/bin/sh")
    with pytest.raises(PreflightError, match="virtual environment"):
        check_python_on_path(tmp_path, Path(sys.executable))


def test_shared_memory(tmp_path: Path) -> None:
    check_shared_memory(tmp_path, 1)
    with pytest.raises(PreflightError, match="missing or not writable"):
        check_shared_memory(tmp_path / "absent", 1)
    with pytest.raises(PreflightError, match=r"needs 1099511627776 MiB.*--shm-size"):
        check_shared_memory(tmp_path, 1 << 60)


def test_libpython(tmp_path: Path) -> None:
    name = "libpython3.11.so.1.0"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with pytest.raises(PreflightError, match=r"install the package libpython3\.11;"):
        find_libpython(name, [first, second])
    (second / name).touch()
    assert find_libpython(name, [first, second]) == second / name
    (first / name).touch()
    assert find_libpython(name, [first, second]) == first / name


def test_libpython_is_looked_for_beside_this_interpreter() -> None:
    assert Path(sys.base_prefix) / "lib" in libpython_folders()


def test_options_refuse_what_cannot_be() -> None:
    for port in (0, 65536, -1):
        with pytest.raises(PreflightError, match=f"Port {port} does not exist"):
            ServeOptions(Path(), http_port=port)
    with pytest.raises(PreflightError, match=r"need different ports; given were 8000 \(HTTP\), 8000 \(gRPC\)"):
        ServeOptions(Path(), http_port=8000, grpc_port=8000)
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(PreflightError, match="exit timeout"):
            ServeOptions(Path(), exit_timeout_s=seconds)
    with pytest.raises(PreflightError, match=r"The canary interval is -1\.0 s; legal: from 0"):
        ServeOptions(Path(), canary_interval_s=-1.0)
    with pytest.raises(PreflightError, match="The number of restarts is -1; legal: from 0"):
        ServeOptions(Path(), restarts=-1)


def test_ports_are_different_and_free() -> None:
    ports = reserve_ports(ServeOptions(Path()))
    assert len({ports.http, ports.grpc, ports.metrics}) == 3
    for port in (ports.http, ports.grpc, ports.metrics):
        socket.create_server(("127.0.0.1", port)).close()


def test_foreign_address_is_refused() -> None:
    # 192.0.2.0/24 is reserved for documentation: no machine has it.
    with pytest.raises(PreflightError, match=r"cannot listen on 192\.0\.2\.1:0 \(HTTP\)"):
        reserve_ports(ServeOptions(Path(), host="192.0.2.1"))


def test_url_is_one_that_can_be_dialled() -> None:
    assert Ports("0.0.0.0", 1, 2, 3, "0.0.0.0").url(2) == "127.0.0.1:2"
    assert Ports("::", 1, 2, 3, "::").url(2) == "[::1]:2"
    assert Ports("10.0.0.7", 1, 2, 3, "127.0.0.1").url(1) == "10.0.0.7:1"


def test_own_flags_are_known_to_this_server() -> None:
    install = find_triton()
    command = command_line(install.binary, Path("r"), Path("b"), Ports("h", 1, 2, 3, "h"), "p", 20.0)
    assert {flag.partition("=")[0] for flag in command[1:]} <= known_flags(install.binary)
    check_flags(install.binary, ["--log-verbose=1", "--backend-config=python,x=1"])
    with pytest.raises(PreflightError, match="does not know the flag '--no-such-flag'"):
        check_flags(install.binary, ["--no-such-flag=1"])
    with pytest.raises(PreflightError, match="sets the Triton flag --http-port itself"):
        check_flags(install.binary, ["--http-port=1"])


def test_stub_is_read_for_its_python() -> None:
    assert find_triton().stub_python() == sys.version_info[:2]


def test_triton_folder_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no Triton server in"):
        find_triton(tmp_path)


def test_system_triton_tells_its_version(tmp_path: Path) -> None:
    for file in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\0libpython3.12.so.1.0\0")
    (tmp_path / "TRITON_VERSION").write_text("2.70.0\n")
    install = find_triton(tmp_path)
    assert install.version == (2, 70)
    assert install.stub_is_in_place
    assert install.stub_python() == (3, 12)
    assert parse_version("nightly") is None


def test_repository_faults_name_the_model(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="not a folder"):
        check_repository(tmp_path / "absent")
    with pytest.raises(PreflightError, match="holds no model"):
        check_repository(tmp_path)
    add_model(tmp_path, "probe", PROBE)
    assert check_repository(tmp_path) == ["probe"]

    # Triton 24.10 loads such a model for ever.
    (tmp_path / "probe" / "1" / "model.py").unlink()
    with pytest.raises(PreflightError, match=r"Model 'probe' has no code: .*1/model\.py is missing"):
        check_repository(tmp_path)

    (tmp_path / "probe" / "1").rmdir()
    with pytest.raises(PreflightError, match="Model 'probe' has no version"):
        check_repository(tmp_path)

    (tmp_path / "probe" / "config.pbtxt").write_text(CONFIG + "max_batch_size: many\n")
    with pytest.raises(PreflightError, match=r"Model 'probe': its config\.pbtxt cannot be read: 6:17"):
        check_repository(tmp_path)


def test_default_repository_is_the_checkouts() -> None:
    assert default_model_repository() == Path(__file__).resolve().parents[3] / "model_repository"


def test_run_directory_has_one_owner(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path / "run")
    first.drain.touch()
    (first.jobs / "stale").touch()
    with pytest.raises(PreflightError, match="in use by another gen3c server"):
        RunDirectory(tmp_path / "run")
    assert first.running_jobs() == 1, "a refused second owner must not clean up the first one's folder"
    first.remove()

    second = RunDirectory(tmp_path / "run")
    assert second.running_jobs() == 0
    assert not second.drain.exists()
    second.remove()


def test_jobs_of_dead_processes_are_not_counted(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    run = RunDirectory(tmp_path / "run")
    (run.jobs / "lost").write_text(str(ended.pid))
    assert run.running_jobs() == 0
    (run.path / "progress-made").touch()
    assert not run.makes_progress(60)
    for name, owner in (("alive", str(os.getpid())), ("unknown", "")):
        (run.jobs / name).write_text(owner)
    assert run.running_jobs() == 2
    assert run.makes_progress(60)
    os.utime(run.path / "progress-made", (time.time() - 70,) * 2)
    assert not run.makes_progress(60)
    run.remove()


def test_run_directory_spares_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine").touch()
    with pytest.raises(PreflightError, match="not made by gen3c serve"):
        RunDirectory(tmp_path)
    assert (tmp_path / "lib" / "mine").exists()


def test_environment_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    got = server_environment(Path("/venv"), Path("/run/lib"), Path("/run"), {"GEN3C_PRESET": "tiny"})
    assert got["PATH"] == "/venv/bin:/usr/bin"
    assert got["LD_LIBRARY_PATH"] == "/run/lib:/opt/lib"
    assert (got["GEN3C_RUN_DIR"], got["GEN3C_PRESET"]) == ("/run", "tiny")


LOG = r"""
W1123 22:57:42.453839 3716 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, x"
E1123 22:57:42.454033 3716 server.cc:241] "CudaDriverHelper has not been initialized."
I1123 22:57:42.455459 3716 model_lifecycle.cc:472] "loading: broken:1"
I1123 22:57:42.455459 3716 model_lifecycle.cc:472] "loading: slow:1"
I1123 22:57:42.617853 3716 model_lifecycle.cc:839] "successfully loaded 'echo'"
E1123 22:57:42.8 3716 life.cc:642] "failed to load 'broken' version 1: Internal: Error: no\n\nAt:\n  /r/m.py(1)\n"
E1123 22:58:12.487891 3873 model_repository_manager.cc:724] "failed to load model 'bare': at least one version"
+--------+---------+
| broken | 1       |
E1123 22:57:31.280751 3618 main.cc:245] "failed to start GRPC service: Socket '127.0.0.1:18001' already in use "
"""


def test_log_is_read_for_causes() -> None:
    assert failed_models(LOG) == {"broken": "Error: no", "bare": "at least one version"}
    assert busy_address(LOG) == "127.0.0.1:18001"
    assert busy_address("") is None
    assert loading_models(LOG) == ["slow"]


def test_log_is_shortened_for_people() -> None:
    told = [message for line in LOG.splitlines() if (message := of_interest(line))]
    assert [message.split(":")[0] for message in told] == [
        "failed to load 'broken' version 1",
        "failed to load model 'bare'",
        "failed to start GRPC service",
    ]
    assert "At:" not in "".join(told)
    assert "+---" not in last_lines(LOG)
    assert len(last_lines(LOG, 2).splitlines()) == 2


def test_log_reader_skips_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("an earlier server\n")
    reader = LogReader(path)
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert reader.new_lines() == ["one"]
        file.write("o\n")
    assert reader.new_lines() == ["two"]
    assert reader.text() == "one\ntwo\n"


def test_exit_is_described() -> None:
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-11) == "signal SIGSEGV"
    assert "memory" in describe_exit(-9)
