"""The launcher's supervisor with the real Triton: what fails is seen, told, restarted, and bounded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest
import tritonclient.grpc as triton
from launcher_probe import PROBE, PYTHONPATH, SCRIPT, Serving, add_model, alive, ask, regions

from gen3c_server.launcher import ServeOptions, serve
from tests.launcher_pages import page

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

SEEN_S, BACK_S = 10, 60
RESTARTS = 'gen3c_server_restarts_total{cause="%s"}'

Start = Callable[..., Serving]


@contextmanager
def job(serving: Serving, command: str) -> Generator[Queue[str]]:
    """A job of the probe model, under way: its answer, or the code of its error."""
    answers: Queue[str] = Queue()

    def call() -> None:
        try:
            answers.put(ask(serving.url, command, 60))
        except triton.InferenceServerException as error:
            answers.put(str(error.status()))

    thread = threading.Thread(target=call)
    thread.start()
    while not (serving.run_dir / "jobs" / "one").exists():
        time.sleep(0.02)
    yield answers
    thread.join(20)
    assert not thread.is_alive()


def restart(serving: Serving, cause: str) -> tuple[str, float]:
    """Wait until a failure was seen and the server is back; what /ready said meanwhile, and how long it took."""
    before = set(serving.pids), serving.prefix, serving.run_dir
    why, seen = serving.wait_for_page("/ready", 503, SEEN_S)
    assert serving.page("/live")[0] == serving.page("/started")[0] == 200
    _, back = serving.wait_for_page("/ready", 200, BACK_S)
    assert serving.figures()[RESTARTS % cause] == 1
    assert ask(serving.url, "hello") == "hello"  # at the same port
    pids, prefix, run_dir = before
    assert alive(pids) <= {serving.process.pid}
    assert not regions(prefix)
    serving.look()
    assert run_dir == serving.run_dir or not run_dir.exists()
    print(f"\nseen after {seen:.2f} s, back after {seen + back:.1f} s")
    return why, seen + back


def end(serving: Serving) -> str:
    """A stop that leaves nothing; what was said."""
    serving.process.send_signal(signal.SIGTERM)
    code, said, _ = serving.wait(30)
    assert code == 0
    serving.assert_nothing_left()
    return said


def test_a_dead_model_process_is_replaced(start_serving: Start) -> None:
    serving = start_serving()
    assert serving.page("/ready") == (200, "The server is ready.\n")
    os.kill(serving.stub, signal.SIGKILL)
    why, _ = restart(serving, "process_died")
    assert why == "The server has failed and is being restarted.\n"
    said = end(serving)
    assert said.startswith("The process of model probe died")
    assert "Restarting the server (1 of 3 in 600 s)." in said
    assert said.count("Ready: ") == 1  # the first one was read before


def test_a_dead_triton_is_replaced(start_serving: Start) -> None:
    serving = start_serving()
    os.kill(serving.triton, signal.SIGKILL)
    restart(serving, "server_died")
    assert serving.figures()["gen3c_server_ready"] == 1
    assert "Triton died (signal SIGKILL" in end(serving)


def test_a_server_whose_canary_fails_is_replaced(start_serving: Start) -> None:
    serving = start_serving(canary_interval_s=0.2)
    time.sleep(2)
    assert serving.page("/ready")[0] == 200
    assert serving.figures()["gen3c_canary_duration_seconds_count"] > 2
    (serving.run_dir / "broken").touch()
    restart(serving, "canary_failed")
    assert serving.figures()["gen3c_canary_failures_total"] == 1
    assert "A canary failed: " in end(serving)


@pytest.mark.slow
def test_a_model_that_hangs_without_a_job_is_seen(start_serving: Start) -> None:
    serving = start_serving(canary_interval_s=0.2, canary_timeout_s=1, restart_grace_s=0)
    os.kill(serving.stub, signal.SIGSTOP)  # it lives and answers nothing
    restart(serving, "canary_failed")
    assert "A canary failed: The probe did not answer." in end(serving)


@pytest.mark.slow
def test_a_canary_that_waits_for_a_job_is_no_failure(start_serving: Start) -> None:
    serving = start_serving(canary_interval_s=0.2, canary_timeout_s=1)
    with job(serving, "job") as answers:
        time.sleep(6)  # ten intervals without one, then one that gets no answer
        assert serving.page("/ready")[0] == 200
        (serving.run_dir / "drain").touch()
        assert answers.get(timeout=10) == "drained"
    assert serving.figures()["gen3c_canary_failures_total"] == 0
    said = end(serving)
    assert said.count("The probe did not answer. Jobs make progress meanwhile, so the server goes on.") == 1


@pytest.mark.slow
def test_who_waits_for_a_job_that_does_not_get_on_is_told(start_serving: Start) -> None:
    serving = start_serving(
        canary_interval_s=0.2, canary_timeout_s=1, stall_timeout_s=2, restart_grace_s=0.5, exit_timeout_s=2
    )
    with job(serving, "stubborn") as answers:
        (serving.run_dir / "progress-made").touch()  # when it began
        restart(serving, "jobs_stalled")
        assert answers.get(timeout=10) == "StatusCode.UNAVAILABLE"
    end(serving)


@pytest.mark.slow
def test_jobs_that_hang_while_canaries_pass_are_seen(start_serving: Start) -> None:
    """As where a thread of the job model hangs, or a model that canaries leave out."""
    serving = start_serving(canary_interval_s=0.2, stall_timeout_s=2, restart_grace_s=0)
    (serving.run_dir / "progress-made").touch()
    time.sleep(3)  # without a job nothing has to get on
    assert serving.page("/ready")[0] == 200
    (serving.run_dir / "jobs" / "hung").write_text(str(serving.stub))
    began = time.monotonic()
    restart(serving, "jobs_stalled")
    assert time.monotonic() - began > 2
    assert serving.figures()["gen3c_canary_failures_total"] == 0
    assert "No job has got on for 2 s (--stall-timeout)." in end(serving)


@pytest.mark.slow
def test_failed_starts_add_up_however_long_they_take(start_serving: Start, tmp_path: Path) -> None:
    slow = f"import time, pathlib\nif pathlib.Path({str(tmp_path / 'slow')!r}).exists():\n    time.sleep(30)\n" + PROBE
    serving = start_serving(
        add_model(tmp_path / "repository", "probe", slow), restarts=2, restart_window_s=1, start_timeout_s=3
    )
    (tmp_path / "slow").touch()
    os.kill(serving.stub, signal.SIGKILL)
    code, said, _ = serving.wait(60)
    assert code == 1
    assert said.count("Restarting the server") == 2


def test_a_drained_server_stays_closed_over_a_restart(start_serving: Start) -> None:
    serving = start_serving()
    (serving.run_dir / "closed").touch()
    serving.wait_for_page("/ready", 503, SEEN_S)
    first = serving.triton
    os.kill(serving.stub, signal.SIGKILL)
    deadline = time.monotonic() + BACK_S
    while serving.triton == first or not (serving.run_dir / "closed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
        serving.look()
    end(serving)


def test_memory_of_a_server_that_was_killed_whole_is_removed(start_serving: Start, tmp_path: Path) -> None:
    """Launcher, guard and all: what was in /dev/shm is found by the next server of the run directory."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in ("gen3c.lock", "shm-prefix"):
        (run_dir / name).write_text("gen3c-1-0123abcd-" if name == "shm-prefix" else "")
    left, other = Path("/dev/shm/gen3c-1-0123abcd-region"), Path("/dev/shm/gen3c-1-4567abcd-region")
    left.touch()
    other.touch()
    try:
        serving = start_serving(run_dir=str(run_dir))
        assert not left.exists()
        assert other.exists()
        assert regions((run_dir / "shm-prefix").read_text())
        serving.process.send_signal(signal.SIGTERM)
        assert serving.wait(30)[0] == 0
        assert not (run_dir / "shm-prefix").exists()
    finally:
        left.unlink(missing_ok=True)
        other.unlink()


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    return add_model(add_model(tmp_path / "two", "probe", PROBE), "other", PROBE)


@pytest.mark.slow
def test_a_job_that_can_end_does_before_a_restart(start_serving: Start, two_models: Path) -> None:
    serving = start_serving(two_models, restart_grace_s=1.5)
    with job(serving, "job") as answers:
        killed = time.monotonic()
        os.kill(serving.stubs["other"], signal.SIGKILL)
        serving.wait_for_page("/ready", 503, SEEN_S)
        assert (serving.run_dir / "restart").exists()
        assert answers.get(timeout=10) == "drained"
        assert time.monotonic() - killed > 1.5  # its grace; then it was told
    serving.wait_for_page("/ready", 200, BACK_S)
    end(serving)


def test_nobody_waits_for_the_jobs_of_a_dead_process(start_serving: Start) -> None:
    serving = start_serving(restart_grace_s=60)
    with job(serving, "stubborn") as answers:
        (serving.run_dir / "jobs" / "one").write_text(str(serving.stub))  # as the job model's files name their process
        os.kill(serving.stub, signal.SIGKILL)
        _, seconds = restart(serving, "process_died")
        assert answers.get(timeout=10) != "drained"
    assert seconds < 30
    end(serving)


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_server_that_fails_again_and_again_is_given_up(start_serving: Start, tmp_path: Path, restarts: int) -> None:
    serving = start_serving(run_dir=str(tmp_path / "run"), canary_interval_s=0.2, restarts=restarts)
    (tmp_path / "run" / "broken").touch()  # stays with the folder
    code, said, _ = serving.wait(60)
    assert code == 1
    assert said.count("Restarting the server") == restarts
    assert said.count("A canary failed") + said.count("first inference failed") == restarts + 1
    given_up = f"restarted {restarts} time(s) in the last 600 s of service; --restarts allows {restarts}."
    assert said.count(given_up) == 1
    assert not alive(serving.pids)
    assert not regions(serving.prefix)


@pytest.mark.slow
def test_restarts_that_are_long_ago_do_not_count(start_serving: Start) -> None:
    serving = start_serving(restarts=1, restart_window_s=1)
    for count in (1, 2):
        time.sleep(1.2)  # of service
        os.kill(serving.stub, signal.SIGKILL)
        serving.wait_for_page("/ready", 503, SEEN_S)
        serving.wait_for_page("/ready", 200, BACK_S)
        assert serving.figures()[RESTARTS % "process_died"] == count
        serving.look()
    end(serving)


def test_a_stop_during_the_grace_of_a_restart_is_obeyed(start_serving: Start, two_models: Path) -> None:
    serving = start_serving(two_models, restart_grace_s=60)
    with job(serving, "job") as answers:
        os.kill(serving.stubs["other"], signal.SIGKILL)
        serving.wait_for_page("/ready", 503, SEEN_S)
        serving.process.send_signal(signal.SIGTERM)
        assert answers.get(timeout=10) == "drained"
    code, said, seconds = serving.wait(20)
    assert code == 0
    assert "Stopping" in said
    assert seconds < 10
    serving.assert_nothing_left()


def test_a_stop_while_the_new_server_starts_is_obeyed(start_serving: Start, tmp_path: Path) -> None:
    slow = f"import time, pathlib\nif pathlib.Path({str(tmp_path / 'slow')!r}).exists():\n    time.sleep(30)\n" + PROBE
    serving = start_serving(add_model(tmp_path / "repository", "probe", slow))
    (tmp_path / "slow").touch()
    os.kill(serving.stub, signal.SIGKILL)
    serving.wait_for_page("/ready", 503, SEEN_S)
    first = serving.triton
    while serving.triton == first:
        time.sleep(0.1)
        serving.look()
    serving.process.send_signal(signal.SIGTERM)
    code, said, seconds = serving.wait(20)
    assert code == 0
    assert said.endswith("Stopped before the server was ready.\n")
    assert seconds < 10
    serving.assert_nothing_left()


def test_the_launcher_tells_that_its_server_starts(tmp_path: Path) -> None:
    slow = f"import time\nwhile not __import__('os').path.exists({str(tmp_path / 'go')!r}):\n    time.sleep(0.05)\n"
    repository = add_model(tmp_path / "repository", "probe", slow + PROBE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(repository), f'{{"health_port": {port}}}']
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        health, deadline = f"127.0.0.1:{port}", time.monotonic() + 30
        while True:
            try:
                assert page(health, "/live") == (200, "The launcher is at work.\n")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert page(health, "/ready") == page(health, "/started") == (503, "The server is starting.\n")
        assert page(health, "/metrics")[0] == 200
        assert page(health, "/else") == (
            404,
            "There is no such page; legal: /live, /started, /ready, /metrics.\n",
        )
        (tmp_path / "go").touch()
        while page(health, "/ready")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert page(health, "/started")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_busy_port_of_the_launchers_pages_is_named(probe_repository: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve(ServeOptions(probe_repository, health_port=port), say=said.append) == 2
    assert said == [
        f"Port {port} (health) on 127.0.0.1 is in use by another program. Stop it, or choose another port with "
        "--health-port (0 takes a free one)."
    ]


def test_a_closed_server_is_not_ready(start_serving: Start) -> None:
    serving = start_serving()
    (serving.run_dir / "closed").touch()
    why, _ = serving.wait_for_page("/ready", 503, SEEN_S)
    assert why == "The server is about to stop and takes no new job.\n"
    assert serving.page("/live")[0] == serving.page("/started")[0] == 200
    run_dir = serving.run_dir
    end(serving)
    assert not (run_dir / "closed").exists()
