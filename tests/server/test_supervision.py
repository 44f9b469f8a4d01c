"""A model's process dies while the real graph works: what becomes of its jobs, and of the server."""

import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path
from queue import Queue

import pytest
from gen3c_client.contract import Progress
from gen3c_client.errors import JobError
from gen3c_client.transport import Client, JobEvent

from tests.server.conftest import SmallJob, collect, run
from tests.server.serve_process import EXIT_S, ServeProcess, leftovers, serving, wait_until

pytestmark = pytest.mark.slow

SEEN_S = 10.0
MESSAGE = "A model of the server failed, and the server restarts; send the job again."

Events = Generator[JobEvent, None, None]


@pytest.fixture
def served(built: Path, tmp_path: Path) -> Generator[ServeProcess]:
    with serving(built, tmp_path / "run", "--restart-grace", "20") as served:
        yield served


def denoising(client: Client, steps: int, at: int = 1) -> Events:
    """A job that has come to a denoising step."""
    job = SmallJob()
    events = client.generate(job.media, job.job_spec(steps=steps), geometry=job.geometry)
    for event in events:
        if isinstance(event, Progress) and event.stage == "denoise" and event.step >= at:
            return events
    raise AssertionError("no denoising")


def outcome(events: Events) -> Queue[str]:
    """How a job ends, read in a thread; nobody may be left waiting."""
    ended: Queue[str] = Queue()

    def follow() -> None:
        try:
            ended.put("completed" if collect(events).files["video.mp4"] else "empty")
        except JobError as error:
            ended.put(f"{error.code}: {error}")

    threading.Thread(target=follow, daemon=True).start()
    return ended


def kill(served: ServeProcess, model: str) -> float:
    """SIGKILL to a model's process, as the kernel sends when memory runs out; when that was."""
    os.kill(served.stub(model), signal.SIGKILL)
    killed = time.monotonic()
    seen = wait_until(lambda: served.page("/ready")[0] == 503, SEEN_S)
    print(f"\n{model}: seen after {seen:.1f} s")
    return killed


def wait_for_return(served: ServeProcess, killed: float) -> None:
    wait_until(lambda: served.page("/ready")[0] == 200, served.back_s - (time.monotonic() - killed))
    print(f"started in {served.start_s:.1f} s, back after {time.monotonic() - killed:.1f} s")


def test_a_dead_network_costs_its_job_an_error_that_is_worth_another_try(served: ServeProcess) -> None:
    client = Client(served.url)
    running = outcome(denoising(client, 900))
    spare = client.generate(SmallJob().media, SmallJob().job_spec(), geometry=SmallJob().geometry)
    assert next(spare).event == "progress"
    waiting = outcome(spare)
    killed = kill(served, "dit")
    assert running.get(timeout=served.back_s).startswith("UNAVAILABLE: The model 'dit' of the server has died")
    assert waiting.get(timeout=served.back_s).startswith("UNAVAILABLE: ")
    wait_for_return(served, killed)
    assert served.figure('gen3c_server_restarts_total{cause="process_died"}') == 1
    assert run(client, SmallJob()).files["video.mp4"]
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(EXIT_S + 5) == 0
    (told,) = [line for line in served.lines() if line["event"] == "server_failed"]
    assert (told["level"], told["cause"]) == ("error", "process_died")
    assert told["message"].startswith("The process of model dit died")
    assert leftovers(served.process.pid) == ([], [])


def test_a_job_that_does_not_need_the_dead_model_ends(served: ServeProcess) -> None:
    client = Client(served.url)
    running = outcome(denoising(client, 30))
    killed = kill(served, "geometry")
    with pytest.raises(JobError, match=MESSAGE) as refused:
        run(client, SmallJob())
    assert refused.value.code == "UNAVAILABLE"
    assert running.get(timeout=served.back_s) == "completed"
    wait_for_return(served, killed)


def test_a_dead_job_model_leaves_no_caller_waiting(served: ServeProcess) -> None:
    running = outcome(denoising(Client(served.url), 900))
    killed = kill(served, "gen3c")
    assert running.get(timeout=served.back_s).startswith("UNAVAILABLE: ")
    wait_for_return(served, killed)
    assert run(Client(served.url), SmallJob()).files["video.mp4"]


def test_a_job_that_takes_too_long_for_the_grace_is_told_to_come_again(built: Path, tmp_path: Path) -> None:
    with serving(built, tmp_path / "run", "--restart-grace", "1") as served:
        running = outcome(denoising(Client(served.url), 900))
        killed = kill(served, "conditioner")
        assert running.get(timeout=served.back_s) == f"UNAVAILABLE: {MESSAGE}"
        wait_for_return(served, killed)
