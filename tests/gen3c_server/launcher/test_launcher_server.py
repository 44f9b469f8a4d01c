"""The launcher with the real Triton: start, failures of a start, life, and every way to end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from launcher_probe import CONFIG, PROBE, Serving, add_model, alive, ask, regions

from gen3c_server.launcher import EmbeddedServer, ServeOptions, serve
from gen3c_server.launcher.ports import Ports, reserve_ports

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

Start = Callable[..., Serving]


def said_by_serve(options: ServeOptions, **more: Any) -> tuple[int, str]:
    said: list[str] = []
    code = serve(options, say=said.append, **more)
    return code, "\n".join(said)


def open_stream(url: str) -> triton.InferenceServerClient:
    """A gRPC stream that has had its answer and stays open."""
    client = triton.InferenceServerClient(url)
    answers: Queue[Any] = Queue()
    client.start_stream(callback=lambda result, error: answers.put(error or result))
    tensor = triton.InferInput("IN", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"hello"], dtype=np.object_))
    client.async_stream_infer("probe", [tensor])
    assert answers.get(timeout=10).as_numpy("OUT")[0] == b"hello"
    return client


def test_embedded_server_serves_and_leaves_nothing(probe_repository: Path) -> None:
    options = ServeOptions(probe_repository, environment={"GEN3C_PRESET": "tiny"}, start_timeout_s=30)
    with EmbeddedServer(options) as server:
        facts = server.wait_ready(lambda url, timeout_s: ask(url, "canary", timeout_s))
        assert facts.models == ["probe"]
        assert ask(server.grpc_url, "hello") == "hello"
        assert ask(server.grpc_url, "env GEN3C_PRESET") == "tiny"
        assert ask(server.grpc_url, "env GEN3C_RUN_DIR") == str(server.run.path)
        assert regions(server.shm_prefix)
        pids = {server.process.group, *server.process.stubs()}
        start = time.monotonic()
    assert time.monotonic() - start < 10  # an idle Triton takes 2 to 4 s
    assert not alive(pids)
    assert not regions(server.shm_prefix)
    assert not server.run.path.exists()


def test_a_given_run_directory_stays_and_keeps_the_log(probe_repository: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with EmbeddedServer(ServeOptions(probe_repository, run_dir=run_dir, start_timeout_s=30)) as server:
        server.wait_ready()
        assert (run_dir / "jobs").is_dir()
        server.stop(hurry=lambda: True)
    assert sorted(path.name for path in run_dir.iterdir()) == ["gen3c.lock", "triton.log"]
    assert "successfully loaded 'probe'" in (run_dir / "triton.log").read_text()


def test_busy_port_is_named_and_nothing_starts(probe_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = said_by_serve(ServeOptions(probe_repository, grpc_port=port))
    assert code == 2
    assert said == (
        f"Port {port} (gRPC) on 127.0.0.1 is in use by another program. Stop it, or choose another port with "
        "--grpc-port (0 takes a free one)."
    )


def test_port_taken_after_the_check_is_named(probe_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        free = reserve_ports(ServeOptions(probe_repository))
        monkeypatch.setattr(
            "gen3c_server.launcher.server.reserve_ports",
            lambda _: Ports(free.host, port, free.grpc, free.metrics, free.host),
        )
        code, said = said_by_serve(ServeOptions(probe_repository, start_timeout_s=30))
    assert code == 1
    assert f"another program took 127.0.0.1:{port}" in said


def test_broken_models_are_named_with_their_cause(tmp_path: Path) -> None:
    add_model(tmp_path, "probe", PROBE)
    add_model(tmp_path, "typo", "import nothing_of_this_name\n")
    add_model(
        tmp_path,
        "unset",
        "class TritonPythonModel:\n"
        "    def initialize(self, args):\n"
        "        raise ValueError('The preset huge does not exist.')\n",
    )
    code, said = said_by_serve(ServeOptions(tmp_path, start_timeout_s=30))
    assert code == 1
    assert "2 model(s) failed to load" in said
    assert "typo: ModuleNotFoundError: No module named 'nothing_of_this_name'" in said
    assert "unset: ValueError: The preset huge does not exist." in said
    assert "At:" not in said
    assert str(tmp_path) not in said


def test_start_timeout_names_the_model_that_still_loads(tmp_path: Path) -> None:
    slow = "import time\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(60)\n"
    add_model(add_model(tmp_path, "probe", PROBE), "slow", slow)
    code, said = said_by_serve(ServeOptions(tmp_path, start_timeout_s=2))
    assert code == 1
    assert "not ready after 2 s" in said
    assert "Still loading: slow." in said


def test_a_failed_first_inference_fails_the_start(probe_repository: Path) -> None:
    def canary(_url: str, _timeout_s: float) -> None:
        raise ValueError("OUT is empty.")

    code, said = said_by_serve(ServeOptions(probe_repository, start_timeout_s=30), canary=canary)
    assert code == 1
    assert "first inference failed: OUT is empty." in said


def test_a_hanging_first_inference_ends_at_the_start_timeout(probe_repository: Path) -> None:
    release = threading.Event()
    code, said = said_by_serve(ServeOptions(probe_repository, start_timeout_s=3), canary=lambda *_: release.wait(30))
    release.set()
    assert code == 1
    assert "not ready after 3 s, making its first inference." in said


def test_a_stop_before_ready_is_obeyed(probe_repository: Path) -> None:
    release = threading.Event()

    def canary(_url: str, _timeout_s: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        release.wait(30)

    start = time.monotonic()
    code, said = said_by_serve(ServeOptions(probe_repository, start_timeout_s=30), canary=canary)
    release.set()
    assert (code, said) == (0, "Stopped before the server was ready.")
    assert time.monotonic() - start < 10


def test_sigterm_stops_an_idle_server(start_serving: Start) -> None:
    serving = start_serving()
    serving.process.send_signal(signal.SIGTERM)
    code, said, seconds = serving.wait(20)
    assert (code, said) == (0, "Stopping; again to stop at once.\n")
    assert seconds < 10
    serving.assert_nothing_left()


def test_sigterm_ends_within_the_deadline_despite_an_open_stream(start_serving: Start) -> None:
    serving = start_serving(exit_timeout_s=5)
    client = open_stream(serving.url)
    serving.process.send_signal(signal.SIGTERM)
    code, said, seconds = serving.wait(20)
    client.stop_stream()
    assert code == 0
    assert "open stream" in said
    assert seconds < 6  # the deadline and the launcher's own end
    serving.assert_nothing_left()


def test_second_signal_kills_at_once(start_serving: Start) -> None:
    serving = start_serving(exit_timeout_s=60)
    client = open_stream(serving.url)
    serving.process.send_signal(signal.SIGINT)
    time.sleep(1)
    serving.process.send_signal(signal.SIGINT)
    code, _, seconds = serving.wait(20)
    client.stop_stream()
    assert code == 0
    assert seconds < 3
    serving.assert_nothing_left()


def test_running_jobs_are_drained_before_triton_stops(start_serving: Start) -> None:
    serving = start_serving()
    answers: Queue[str] = Queue()
    thread = threading.Thread(target=lambda: answers.put(ask(serving.url, "job")))
    thread.start()
    while not (serving.run_dir / "jobs" / "one").exists():
        time.sleep(0.02)
    serving.process.send_signal(signal.SIGTERM)
    assert answers.get(timeout=10) == "drained"
    thread.join()
    code, said, _ = serving.wait(20)
    assert code == 0
    assert "cut off" not in said
    serving.assert_nothing_left()


def test_a_job_that_ignores_the_drain_is_cut_off_in_time(start_serving: Start) -> None:
    serving = start_serving(exit_timeout_s=4)

    def job() -> None:
        with pytest.raises(triton.InferenceServerException):
            ask(serving.url, "stubborn")

    thread = threading.Thread(target=job)
    thread.start()
    while not (serving.run_dir / "jobs" / "one").exists():
        time.sleep(0.02)
    serving.process.send_signal(signal.SIGTERM)
    code, said, seconds = serving.wait(20)
    thread.join()
    assert code == 0
    assert "1 job(s) still ran after 2 s and will be cut off." in said
    assert seconds < 5
    serving.assert_nothing_left()


def test_a_closed_terminal_does_not_disturb_the_stop(start_serving: Start) -> None:
    serving = start_serving()
    assert serving.process.stderr is not None
    serving.process.stderr.close()
    serving.process.send_signal(signal.SIGHUP)
    assert serving.process.wait(20) == 0
    serving.assert_nothing_left()


def test_death_of_triton_is_reported_and_cleaned_up(start_serving: Start) -> None:
    serving = start_serving(restarts=0)
    os.kill(serving.triton, signal.SIGKILL)
    code, said, seconds = serving.wait(20)
    assert code == 1
    assert said.startswith("Triton died (signal SIGKILL, as the kernel sends when memory runs out).")
    assert "Started GRPCInferenceService" in said  # the log's last lines
    assert seconds < 3
    serving.assert_nothing_left()


def test_death_of_a_model_process_without_restarts_ends_the_server(start_serving: Start) -> None:
    # Triton would stay ready and fail every request.
    serving = start_serving(restarts=0)
    os.kill(serving.stub, signal.SIGKILL)
    code, said, _ = serving.wait(20)
    assert code == 1
    assert said.startswith("The process of model probe died")
    serving.assert_nothing_left()


def test_nothing_outlives_a_killed_launcher(start_serving: Start) -> None:
    serving = start_serving()
    # A stub that is busy would not notice for a long time that Triton is gone.

    def job() -> None:
        with pytest.raises(triton.InferenceServerException):
            ask(serving.url, "job")

    thread = threading.Thread(target=job)
    thread.start()
    while not (serving.run_dir / "jobs" / "one").exists():
        time.sleep(0.02)
    serving.process.kill()
    serving.process.communicate()
    serving.assert_nothing_left(within_s=5)
    thread.join()


def test_unknown_config_field_is_reported_with_the_model(tmp_path: Path) -> None:
    add_model(tmp_path, "probe", PROBE, CONFIG + 'backendx: "python"\n')
    code, said = said_by_serve(ServeOptions(tmp_path, start_timeout_s=30))
    assert code == 1
    assert "probe: " in said
    assert "backendx" in said
